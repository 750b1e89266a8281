-- $1 oid of a relation: its columns, whether they are NOT NULL as columns.sql has it, their place in the primary key, and what rows
-- have in them that are older than the column: a value, or something that the catalog does not know, as the table was written
-- again for it or since. Partitions hold the rows of their table, and were given the value together; one that came later
-- has no such rows.
WITH holders AS (
    SELECT $1::oid AS oid
    UNION
    SELECT relid FROM pg_partition_tree($1::oid)
)
SELECT a.attname,
       a.attnotnull AND NOT EXISTS (
           SELECT FROM pg_constraint k
           WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated
       ),
       k.position,
       a.atttypid,
       CASE WHEN o.values = 1 THEN o.value END,
       o.values > 1 OR o.values = 0 AND o.is_untold
FROM pg_attribute a
LEFT JOIN LATERAL (
    SELECT p.position
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS p(number, position)
    WHERE i.indrelid = a.attrelid AND i.indisprimary AND p.position <= i.indnkeyatts AND p.number = a.attnum
) k ON true
CROSS JOIN LATERAL (
    SELECT count(DISTINCT m.value) AS values,
           min(m.value) AS value,
           -- Numbers are given in turn, to the files of tables as to defaults: a default that came after the file's
           -- beginning, and without a value, is one that rows from before did not get.
           bool_or(c.relfilenode <> c.oid AND CASE
               WHEN d.oid IS NOT NULL THEN c.relfilenode > d.oid
               ELSE b.attidentity <> '' OR t.typdefault IS NOT NULL
           END) AS is_untold
    FROM holders h
    JOIN pg_class c ON c.oid = h.oid AND c.relkind = 'r'
    JOIN pg_attribute b ON b.attrelid = c.oid AND b.attname = a.attname AND NOT b.attisdropped
    JOIN pg_type t ON t.oid = b.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = b.attrelid AND d.adnum = b.attnum
    CROSS JOIN LATERAL (
        SELECT CASE WHEN b.atthasmissing THEN array_to_string(b.attmissingval, '') COLLATE "C" END AS value
    ) m
) o
WHERE a.attrelid = $1::oid
  AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY k.position
