-- Behind heirs.sql. $1 oid of a relation that this transaction has locked: what of it, its partitions and the tables that
-- inherit from it was truncated or written anew since the transaction's snapshot, which finds those empty. pg_class is read
-- as of the snapshot, pg_relation_filenode tells what is there now.
SELECT c.relname
FROM heirs h
JOIN pg_catalog.pg_class c ON c.oid = h.relid
WHERE c.relfilenode <> 0 AND pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode
LIMIT 1
