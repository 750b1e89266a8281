-- $1 publication, $2 oid of a table: whether changes of the table are told, or as those of a table that it is a
-- partition of; the numbers of the columns that are told (NULL: all that are not generated), and of which rows.
-- From PostgreSQL 15 on.
SELECT t.relid = $2::oid,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       array_to_string(t.attrs, ' '),
       pg_get_expr(t.qual, t.relid)
FROM pg_get_publication_tables($1::text) t
JOIN pg_class c ON c.oid = t.relid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.relid = $2::oid
   OR t.relid IN (SELECT relid FROM pg_partition_ancestors($2::oid))
ORDER BY t.relid = $2::oid DESC
LIMIT 1
