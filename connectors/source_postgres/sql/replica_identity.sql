-- $1 oid of a table: the columns that tell its rows apart in the WAL, in their index's order. None where that is the
-- whole row, or nothing.
SELECT a.attname
FROM pg_class c
JOIN pg_index i ON i.indrelid = c.oid
    AND i.indimmediate
    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE c.oid = $1::oid
  AND k.position <= i.indnkeyatts
ORDER BY k.position
