-- $1 schema or NULL: what can be read, partitions by their partitioned table. Estimates as of the last ANALYZE; -1
-- (never analysed) is unknown.
SELECT c.oid,
       n.nspname,
       c.relname,
       c.relkind,
       CASE c.relkind
           WHEN 'v' THEN NULL
           WHEN 'p' THEN (
               SELECT CASE WHEN min(l.reltuples) >= 0 THEN sum(l.reltuples)::int8 END
               FROM pg_partition_tree(c.oid) p
               JOIN pg_class l ON l.oid = p.relid
               WHERE p.isleaf AND l.relkind <> 'p')
           ELSE CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END
       END,
       CASE c.relkind
           WHEN 'r' THEN pg_total_relation_size(c.oid)
           WHEN 'm' THEN pg_total_relation_size(c.oid)
           WHEN 'p' THEN (
               SELECT coalesce(sum(pg_total_relation_size(p.relid)), 0)
               FROM pg_partition_tree(c.oid) p
               WHERE p.isleaf)
       END
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND NOT c.relispartition
  AND CASE WHEN $1::text IS NULL
           THEN n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg\_temp%'
           ELSE n.nspname = $1::text
      END
  AND has_schema_privilege(n.oid, 'USAGE')
  AND has_any_column_privilege(c.oid, 'SELECT')
ORDER BY n.nspname, c.relname
