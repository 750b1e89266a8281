-- $1 oid of a relation, $2 publication: what decides whether its changes can be captured. The last three are of a partition whose
-- changes would not come like those of the others.
SELECT c.relpersistence,
       c.relreplident,
       c.oid < 16384,
       EXISTS (
           SELECT FROM pg_inherits i
           JOIN pg_class h ON h.oid = i.inhrelid AND NOT h.relispartition
           WHERE i.inhparent = c.oid
       ),
       pg_has_role(c.relowner, 'USAGE'),
       pg_get_userbyid(c.relowner),
       EXISTS (
           SELECT FROM pg_publication_rel r
           JOIN pg_publication b ON b.oid = r.prpubid AND b.pubname = $2::text
           WHERE r.prrelid = c.oid
       ),
       odd.name,
       odd.relreplident,
       odd.relpersistence
FROM pg_class c
LEFT JOIN LATERAL (
    SELECT quote_ident(n.nspname) || '.' || quote_ident(l.relname) AS name, l.relreplident, l.relpersistence
    FROM pg_partition_tree(c.oid) p
    JOIN pg_class l ON l.oid = p.relid
    JOIN pg_namespace n ON n.oid = l.relnamespace
    WHERE c.relkind = 'p'
      AND p.isleaf
      AND p.relid <> c.oid
      AND (l.relreplident <> c.relreplident OR l.relpersistence <> 'p')
    ORDER BY l.oid
    LIMIT 1
) odd ON true
WHERE c.oid = $1::oid
