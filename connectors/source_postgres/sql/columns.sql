-- $1 oid of a relation: its columns in order. An array is what its element's type says is its array; int2vector and
-- oidvector, which only look like arrays, are not. The text form of a type is what its output function prints: where
-- a cast to text does something else (a domain over char(n) loses blanks), the cast must not be used.
-- NOT NULL holds for what is read when it was validated, and holds in every table that inherits from this one, as it
-- does in partitions. The last column is postgres/sql/prints_names.sql.
WITH RECURSIVE heirs AS (
    SELECT $1::oid AS relid
    UNION
    SELECT i.inhrelid
    FROM heirs h
    JOIN pg_inherits i ON i.inhparent = h.relid
    JOIN pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition
)
SELECT a.attname,
       a.attnum,
       format_type(a.atttypid, a.atttypmod),
       t.oid,
       a.atttypmod,
       t.typtype,
       EXISTS (
           SELECT FROM heirs h
           JOIN pg_attribute b ON b.attrelid = h.relid AND b.attname = a.attname
           WHERE NOT b.attnotnull OR EXISTS (
               SELECT FROM pg_constraint k
               WHERE k.conrelid = b.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[b.attnum] AND NOT k.convalidated
           )
       ),
       e.oid,
       e.typtype,
       CASE WHEN e.oid IS NOT NULL THEN format_type(e.oid, a.atttypmod) END,
       t.typtype = 'd' OR EXISTS (
           SELECT FROM pg_cast x
           WHERE x.castsource = t.oid AND x.casttarget = 'text'::regtype AND x.castmethod = 'f'
       ),
       a.attgenerated,
{s}FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
WHERE a.attrelid = $1::oid
  AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY a.attnum
