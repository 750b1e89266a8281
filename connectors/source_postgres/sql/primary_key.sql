-- $1 oid of a relation: the columns of its primary key, in the key's order. None where other tables inherit from it:
-- what is read holds their rows too, and the key says nothing of those.
SELECT a.attname
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = $1::oid
  AND i.indisprimary
  AND k.position <= i.indnkeyatts
  AND NOT EXISTS (
      SELECT FROM pg_inherits h
      JOIN pg_class c ON c.oid = h.inhrelid AND NOT c.relispartition
      WHERE h.inhparent = i.indrelid
  )
ORDER BY k.position
