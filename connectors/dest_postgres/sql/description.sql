-- What CREATE TABLE … (LIKE …) copies of table $1, hashed. Servers before PostgreSQL 14 have no attcompression.
WITH described AS (
    SELECT concat_ws(E'\n', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation, a.attgenerated,
                     a.attstorage, to_jsonb(a) ->> 'attcompression', pg_get_expr(d.adbin, d.adrelid)) AS what
    FROM pg_attribute a
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT concat_ws(E'\n', c.conname, pg_get_expr(c.conbin, c.conrelid), c.connoinherit)
    FROM pg_constraint c
    WHERE c.conrelid = $1::oid AND c.contype = 'c'
)
SELECT md5(string_agg(what, E'\n\n' ORDER BY what)) FROM described
