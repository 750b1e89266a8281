-- published.sql up to PostgreSQL 14, which tells whole tables.
SELECT t.relid = $2::oid,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       NULL,
       NULL
FROM pg_get_publication_tables($1::text) AS t (relid)
JOIN pg_class c ON c.oid = t.relid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.relid = $2::oid
   OR t.relid IN (SELECT relid FROM pg_partition_ancestors($2::oid))
ORDER BY t.relid = $2::oid DESC
LIMIT 1
