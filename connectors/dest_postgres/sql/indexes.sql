-- The indexes of table $1, to be built again on table $2, whose names begin with $3 until the old ones are gone.
-- One row per index: its oid, its name, the statements that build it, the statement that gives it its name back.
-- `build` is null when the definition does not begin as expected: then the table cannot be swapped.
SELECT i.indexrelid,
       c.relname,
       CASE WHEN starts_with(pg_get_indexdef(i.indexrelid), head.old) THEN
           format('SET LOCAL default_tablespace = %L; ', space.spcname)
           || head.new || substr(pg_get_indexdef(i.indexrelid), length(head.old) + 1) || ';'
           || CASE WHEN k.oid IS NULL THEN '' ELSE
                  format(' ALTER TABLE %s ADD CONSTRAINT %I %s USING INDEX %I%s%s;',
                         $2::oid::regclass, name.new,
                         CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END,
                         name.new,
                         CASE WHEN k.condeferrable THEN ' DEFERRABLE' END,
                         CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END) END
           || CASE WHEN i.indisclustered THEN
                  format(' ALTER TABLE %s CLUSTER ON %I;', $2::oid::regclass, name.new) ELSE '' END
           || coalesce((SELECT string_agg(format(' ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s;',
                                                 n.nspname, name.new, a.attnum, a.attstattarget), '')
                        FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0), '')
           || coalesce(format(' COMMENT ON INDEX %I.%I IS ', n.nspname, name.new)
                       || quote_literal(obj_description(i.indexrelid, 'pg_class')) || ';', '')
           || coalesce(format(' COMMENT ON CONSTRAINT %I ON %s IS ', name.new, $2::oid::regclass)
                       || quote_literal(obj_description(k.oid, 'pg_constraint')) || ';', '')
       END AS build,
       -- A constraint and its index are renamed together.
       CASE WHEN k.oid IS NULL THEN format('ALTER INDEX %I.%I RENAME TO %I', n.nspname, name.new, c.relname)
            ELSE format('ALTER TABLE %I.%I RENAME CONSTRAINT %I TO %I', n.nspname, t.relname, name.new, k.conname)
       END AS rename
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_tablespace space ON space.oid = CASE c.reltablespace
    WHEN 0 THEN (SELECT dattablespace FROM pg_database WHERE datname = current_database()) ELSE c.reltablespace END
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = t.oid AND k.contype IN ('p', 'u')
CROSS JOIN LATERAL (SELECT $3 || i.indexrelid AS new) AS name
CROSS JOIN LATERAL (
    SELECT format('CREATE %sINDEX %I ON %s USING ',
                  CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname, t.oid::regclass) AS old,
           format('CREATE %sINDEX %I ON %s USING ',
                  CASE WHEN i.indisunique THEN 'UNIQUE ' END, name.new, $2::oid::regclass) AS new
) AS head
WHERE i.indrelid = $1::oid
ORDER BY i.indisprimary DESC, i.indexrelid
