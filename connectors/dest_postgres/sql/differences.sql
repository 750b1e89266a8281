-- What CREATE TABLE … (LIKE …) copies of table $1 and table $2 has otherwise, or the other way round: one row each.
-- Servers before PostgreSQL 14 have no attcompression.
WITH described AS (
    SELECT a.attrelid AS relation,
           concat_ws(E'\n', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation, a.attgenerated,
                     a.attstorage, to_jsonb(a) ->> 'attcompression', pg_get_expr(d.adbin, d.adrelid)) AS what
    FROM pg_attribute a
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid IN ($1::oid, $2::oid) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT c.conrelid, concat_ws(E'\n', c.conname, pg_get_expr(c.conbin, c.conrelid), c.connoinherit)
    FROM pg_constraint c
    WHERE c.conrelid IN ($1::oid, $2::oid) AND c.contype = 'c'
)
SELECT what FROM described GROUP BY what HAVING count(DISTINCT relation) < 2
