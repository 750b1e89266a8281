-- $1 oid of a relation, $2 one of its columns: whether its collation is deterministic, the collation's name where it is
-- not the database's, and whether an index brings all rows in the column's order.
SELECT coalesce(l.collisdeterministic, true),
       CASE WHEN l.collname <> 'default' THEN quote_ident(n.nspname) || '.' || quote_ident(l.collname) END,
       EXISTS (
           SELECT FROM pg_index i
           JOIN pg_class x ON x.oid = i.indexrelid
           JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
           JOIN pg_opclass o ON o.oid = i.indclass[0] AND o.opcdefault
           WHERE i.indrelid = a.attrelid
             AND i.indkey[0] = a.attnum
             AND i.indcollation[0] = a.attcollation
             AND i.indisvalid
             AND i.indpred IS NULL
       )
FROM pg_attribute a
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_namespace n ON n.oid = l.collnamespace
WHERE a.attrelid = $1::oid
  AND a.attname = $2::text
  AND NOT a.attisdropped
