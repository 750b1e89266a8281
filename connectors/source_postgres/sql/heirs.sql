-- What a query of $1, the oid of a relation, begins with: it, its partitions, and the tables that inherit from it.
WITH RECURSIVE heirs AS (
    SELECT $1::pg_catalog.oid AS relid
    UNION
    SELECT i.inhrelid
    FROM heirs h
    JOIN pg_catalog.pg_inherits i ON i.inhparent = h.relid
)
