-- $1 oid of a relation: the columns of its primary key, in the key's order.
SELECT a.attname
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = $1::oid
  AND i.indisprimary
  AND k.position <= i.indnkeyatts
ORDER BY k.position
