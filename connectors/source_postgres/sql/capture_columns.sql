-- $1 oid of a relation: its columns, whether they are NOT NULL as columns.sql has it, and their place in the primary key.
SELECT a.attname,
       a.attnotnull AND NOT EXISTS (
           SELECT FROM pg_constraint k
           WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated
       ),
       k.position
FROM pg_attribute a
LEFT JOIN LATERAL (
    SELECT p.position
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS p(number, position)
    WHERE i.indrelid = a.attrelid AND i.indisprimary AND p.position <= i.indnkeyatts AND p.number = a.attnum
) k ON true
WHERE a.attrelid = $1::oid
  AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY k.position
