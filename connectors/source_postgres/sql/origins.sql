-- $1 publication, $2 tables as a JSON list of {"schema", "name"}: what each is, and its place in the publication, in the
-- list's order. Whoever drops one of them and makes it again makes another.
SELECT concat_ws('.', c.oid, b.oid, coalesce(
           (SELECT r.oid FROM pg_publication_rel r WHERE r.prpubid = b.oid AND r.prrelid = c.oid), 0))
FROM json_array_elements($2::json) WITH ORDINALITY AS w (value, position)
LEFT JOIN pg_namespace n ON n.nspname = w.value ->> 'schema'
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.value ->> 'name'
LEFT JOIN pg_publication b ON b.pubname = $1::text
ORDER BY w.position
