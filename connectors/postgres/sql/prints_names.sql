-- Whether the text form of type `t` (a row of pg_type) depends on the search path: regclass and its like print as much
-- of a name as the path asks for, alone, in arrays, domains, composites and ranges.
EXISTS (
    WITH RECURSIVE part(type) AS (
        SELECT t.oid
        UNION
        SELECT below.type
        FROM part p
        JOIN pg_type pt ON pt.oid = p.type
        CROSS JOIN LATERAL (
            SELECT pt.typbasetype WHERE pt.typtype = 'd'
            UNION ALL
            SELECT pe.oid FROM pg_type pe WHERE pe.oid = pt.typelem AND pe.typarray = pt.oid
            UNION ALL
            SELECT c.atttypid FROM pg_attribute c
            WHERE c.attrelid = pt.typrelid AND pt.typrelid <> 0 AND c.attnum > 0 AND NOT c.attisdropped
            UNION ALL
            SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = pt.oid
            UNION ALL
            -- A multirange depends on its range; pg_range tells since PostgreSQL 14 only.
            SELECT d.refobjid FROM pg_depend d
            WHERE pt.typtype = 'm' AND d.classid = 'pg_type'::regclass AND d.objid = pt.oid
              AND d.refclassid = 'pg_type'::regclass
        ) AS below(type)
    )
    SELECT FROM part
    WHERE type IN ('regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype,
                   'regclass'::regtype, 'regtype'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype,
                   to_regtype('regcollation')) -- since PostgreSQL 13
)
