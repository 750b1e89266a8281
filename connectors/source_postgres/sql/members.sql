-- $1 publication, $2 tables as a JSON list of {"schema", "name"}: whether it tells of each under the table's own name, in
-- the list's order.
SELECT EXISTS (
           SELECT FROM pg_publication_tables p
           WHERE p.pubname = $1::text AND p.schemaname = w.value ->> 'schema' AND p.tablename = w.value ->> 'name'
       )
FROM json_array_elements($2::json) WITH ORDINALITY AS w (value, position)
ORDER BY w.position
