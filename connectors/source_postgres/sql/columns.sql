-- $1 oid of a relation: its columns in order. An array is what its element's type says is its array; int2vector and
-- oidvector, which only look like arrays, are not. The text form of a type is what its output function prints: where
-- a cast to text does something else (a domain over char(n) loses blanks), the cast must not be used.
SELECT a.attname,
       a.attnum,
       format_type(a.atttypid, a.atttypmod),
       t.oid,
       a.atttypmod,
       t.typtype,
       NOT a.attnotnull,
       e.oid,
       e.typtype,
       CASE WHEN e.oid IS NOT NULL THEN format_type(e.oid, a.atttypmod) END,
       t.typtype = 'd' OR EXISTS (
           SELECT FROM pg_cast x
           WHERE x.castsource = t.oid AND x.casttarget = 'text'::regtype AND x.castmethod = 'f'
       )
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
WHERE a.attrelid = $1::oid
  AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY a.attnum
