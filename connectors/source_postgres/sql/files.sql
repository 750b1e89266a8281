-- Behind heirs.sql. $1 oid of a relation that this transaction has locked: the tables that hold its rows, its partitions
-- or itself, and the file of each. Another file is another table: it was truncated or written anew.
SELECT c.oid, pg_catalog.pg_relation_filenode(c.oid)
FROM heirs h
JOIN pg_catalog.pg_class c ON c.oid = h.relid
WHERE c.relkind <> 'p'
ORDER BY c.oid
