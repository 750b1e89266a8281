-- Why columns of table $1 cannot be altered: one row each. $2 JSON list of the columns whose type is to change. A row
-- without a column is about the table as a whole.
--
-- Indexes and constraints are made again by the server, unless their operators are missing: only trying tells.
WITH target AS (
    SELECT c.oid, c.relkind, c.relispartition, c.reloftype FROM pg_class c WHERE c.oid = $1::oid
), retyped AS (
    SELECT a.attrelid, a.attnum, a.attname, a.attinhcount
    FROM target t
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN json_array_elements_text($2::json) AS f(name) ON f.name = a.attname
)
SELECT name, reason FROM (
    SELECT NULL::text AS name, 'it is a partition: alter the table that it is a partition of' AS reason
    FROM target WHERE relispartition
    UNION ALL
    SELECT NULL, 'it is a typed table' FROM target WHERE reloftype <> 0
    UNION ALL
    SELECT r.attname, 'the column is inherited' FROM retyped r WHERE r.attinhcount > 0
    UNION ALL
    SELECT r.attname, 'the table is partitioned by it'
    FROM retyped r JOIN pg_partitioned_table p ON p.partrelid = r.attrelid
    WHERE r.attnum = ANY (p.partattrs::smallint[])
    UNION ALL
    SELECT r.attname, pg_describe_object(coalesce(v.classid, d.classid), coalesce(v.objid, d.objid), 0) || ' depends on it'
    FROM retyped r
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.attrelid AND d.refobjsubid = r.attnum
    -- The view behind a rule.
    LEFT JOIN LATERAL (
        SELECT 'pg_class'::regclass::oid AS classid, w.ev_class AS objid
        FROM pg_rewrite w WHERE d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    ) AS v ON true
    WHERE d.classid IN ('pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass,
                        'pg_publication_rel'::regclass)
    UNION ALL
    SELECT r.attname, 'generated column ' || quote_ident(g.attname) || ' depends on it'
    FROM retyped r
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.attrelid AND d.refobjsubid = r.attnum
    JOIN pg_attrdef e ON d.classid = 'pg_attrdef'::regclass AND e.oid = d.objid AND e.adrelid = r.attrelid
    JOIN pg_attribute g ON g.attrelid = e.adrelid AND g.attnum = e.adnum AND g.attnum <> r.attnum
) AS found
GROUP BY name, reason
ORDER BY name NULLS FIRST, reason
