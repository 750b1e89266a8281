-- $1 oids, $2 modifiers of types: what columns.sql tells of a column's type, and of what it is at the bottom where it is a
-- domain, which is what it is sent as in binary form. A type that was dropped since is left out.
WITH RECURSIVE asked AS (
    SELECT *
    FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY AS a(type, modifier, place)
), base AS (
    SELECT place, type
    FROM asked
    UNION ALL
    SELECT b.place, t.typbasetype
    FROM base b
    JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd'
)
SELECT a.type,
       a.modifier,
       format_type(a.type, a.modifier),
       t.typtype,
       e.oid,
       e.typtype,
       CASE WHEN e.oid IS NOT NULL THEN format_type(e.oid, a.modifier) END,
       u.oid,
       u.typtype,
       f.oid,
       f.typtype
FROM asked a
JOIN pg_type t ON t.oid = a.type
LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
JOIN base b ON b.place = a.place
JOIN pg_type u ON u.oid = b.type AND u.typtype <> 'd'
LEFT JOIN pg_type f ON f.oid = u.typelem AND f.typarray = u.oid
