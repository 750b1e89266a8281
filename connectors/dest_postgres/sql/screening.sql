-- What a row has to be like for table $1.$2 to refuse it, as one condition about the stream's columns ($3, a JSON list) of
-- table $4 (as SQL) with the alias "each". NULL when there is none. For a search_path of pg_catalog.
WITH target AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
), stream AS (
    SELECT a.attnum, a.attname, a.attnotnull
    FROM target t
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE a.attname IN (SELECT json_array_elements_text($3::json))
), conditions AS (
    SELECT format('each.%I IS NULL', attname) AS condition FROM stream WHERE attnotnull
    UNION ALL
    SELECT format('NOT (%s)', pg_get_expr(k.conbin, k.conrelid))
    FROM target t
    JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'c'
    WHERE k.conkey <@ ARRAY(SELECT attnum FROM stream)
    UNION ALL
    SELECT format('(%s AND NOT EXISTS (SELECT FROM %s AS referenced WHERE %s)%s)',
                  string_agg(format('each.%I IS NOT NULL', a.attname), ' AND '),
                  k.confrelid::regclass,
                  string_agg(format('referenced.%I = each.%I', r.attname, a.attname), ' AND '),
                  -- The row that it points to may be among those that come.
                  CASE WHEN k.confrelid = k.conrelid AND k.confkey <@ ARRAY(SELECT attnum FROM stream)
                       THEN format(' AND NOT EXISTS (SELECT FROM %s AS referenced WHERE %s)', $4::text,
                                   string_agg(format('referenced.%I = each.%I', r.attname, a.attname), ' AND '))
                  END)
    FROM target t
    JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f' AND k.conkey <@ ARRAY(SELECT attnum FROM stream)
    CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS key(ours, theirs)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.ours
    JOIN pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = key.theirs
    GROUP BY k.oid, k.conrelid, k.confrelid, k.confkey
)
SELECT string_agg(condition, ' OR ') FROM conditions
