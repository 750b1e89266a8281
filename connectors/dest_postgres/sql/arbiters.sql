-- The unique indexes of table $1 on exactly the columns $2 (a JSON list), in whatever order: none that is partial, on
-- expressions or invalid. One row per index and column, the columns in the order of $2, the best index first: its oid;
-- whether a violation is an error at once (not deferrable); the name of its constraint, if it has one; then how it
-- compares the column: the equality operator and the collation, both as SQL, and whether equal values of the column
-- are equal in every byte, given a type for which the usual equality is that.
WITH key AS (
    SELECT k.name, k.position, a.attnum
    FROM json_array_elements_text($2::json) WITH ORDINALITY AS k(name, position)
    LEFT JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attname = k.name AND NOT a.attisdropped
), candidates AS (
    SELECT i.*, c.conname, c.contype
    FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
    LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid AND c.contype IN ('p', 'u')
    WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND i.indnkeyatts = (SELECT count(*) FROM key)
)
SELECT i.indexrelid, i.indimmediate, i.conname,
       format('OPERATOR(%I.%s)', s.nspname, o.oprname),
       CASE WHEN l.oid IS NOT NULL THEN format('COLLATE %I.%I', ln.nspname, l.collname) ELSE '' END,
       s.nspname = 'pg_catalog' AND coalesce(l.collisdeterministic, true)
FROM candidates i
CROSS JOIN key k
JOIN LATERAL generate_series(0, i.indnkeyatts - 1) AS p(position) ON i.indkey[p.position] = k.attnum
JOIN pg_opclass oc ON oc.oid = i.indclass[p.position]
JOIN pg_amop e ON e.amopfamily = oc.opcfamily AND e.amopstrategy = 3
              AND e.amoplefttype = oc.opcintype AND e.amoprighttype = oc.opcintype
JOIN pg_operator o ON o.oid = e.amopopr
JOIN pg_namespace s ON s.oid = o.oprnamespace
LEFT JOIN pg_collation l ON l.oid = i.indcollation[p.position]
LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
WHERE NOT EXISTS (SELECT FROM key WHERE attnum IS NULL
                     OR NOT EXISTS (SELECT FROM generate_series(0, i.indnkeyatts - 1) AS q(position)
                                    WHERE i.indkey[q.position] = key.attnum))
ORDER BY i.contype IS NOT DISTINCT FROM 'p' DESC, i.conname IS NOT NULL DESC, i.indexrelid, k.position
