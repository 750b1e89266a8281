-- $1 oid of a relation that this transaction has locked: the tables that hold its rows, its partitions or itself, and the
-- file of each. Another file is another table: it was truncated or written anew.
WITH RECURSIVE heirs AS (
    SELECT $1::pg_catalog.oid AS relid
    UNION
    SELECT i.inhrelid
    FROM heirs h
    JOIN pg_catalog.pg_inherits i ON i.inhparent = h.relid
)
SELECT c.oid, pg_catalog.pg_relation_filenode(c.oid)
FROM heirs h
JOIN pg_catalog.pg_class c ON c.oid = h.relid
WHERE c.relkind <> 'p'
ORDER BY c.oid
