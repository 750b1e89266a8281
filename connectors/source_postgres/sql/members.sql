-- $1 publication, $2 tables as a JSON list of {"schema", "name"}: whether it tells of each, be it under the names of the
-- table's partitions, in the list's order.
SELECT EXISTS (
           SELECT FROM pg_publication_tables p
           WHERE p.pubname = $1::text AND p.schemaname = w.value ->> 'schema' AND p.tablename = w.value ->> 'name'
       ) OR EXISTS (
           SELECT FROM pg_publication b
           JOIN pg_namespace n ON n.nspname = w.value ->> 'schema'
           JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.value ->> 'name' AND c.relkind = 'p'
           WHERE b.pubname = $1::text
             AND (b.puballtables
                  OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = b.oid AND r.prrelid = c.oid))
       )
FROM json_array_elements($2::json) WITH ORDINALITY AS w (value, position)
ORDER BY w.position
