-- Behind heirs.sql. $1 oid of a relation: what holds its rows, those of its partitions and of the tables that inherit from
-- it: the kind of relation, its access method, its blocks, their size in bytes, and bytes with all that belongs to it.
-- Nothing where nothing is stored here.
SELECT c.relkind,
       m.amname,
       pg_relation_size(c.oid) / current_setting('block_size')::int8,
       current_setting('block_size'),
       pg_table_size(c.oid)
FROM heirs h
JOIN pg_class c ON c.oid = h.relid
LEFT JOIN pg_am m ON m.oid = c.relam
WHERE c.relkind <> 'p'
