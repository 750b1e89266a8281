-- $1 schema, $2 name: the relation that a stream reads.
SELECT c.oid,
       c.relkind,
       has_schema_privilege(n.oid, 'USAGE'),
       row_security_active(c.oid)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text
  AND c.relname = $2::text
