-- $1 schemas, $2 names: the tables that streams capture, by their place in the list, with their columns.
SELECT s.place,
       c.oid,
       a.attname,
       a.atttypid,
       a.atttypmod
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS s(schema, name, place)
JOIN pg_namespace n ON n.nspname = s.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.name
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY s.place, a.attnum
