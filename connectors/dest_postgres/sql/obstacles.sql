-- Why table $1 cannot make way for another one under its name: one reason per row, none when it can.
--
-- A swap keeps what carry_over.sql copies and loses everything else that hangs on the old table. So the list of what
-- may depend on the table is closed: whatever is not known here is an obstacle.
WITH target AS (
    SELECT c.*, n.nspname, t.typarray
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_type t ON t.oid = c.reltype
    WHERE c.oid = $1::oid
)
SELECT reason FROM (
    SELECT 1, 'it is a partitioned table' FROM target WHERE relkind <> 'r'
    UNION ALL
    SELECT 1, 'it belongs to ' || quote_ident(pg_get_userbyid(relowner)) FROM target
    WHERE relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
      AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
    UNION ALL
    SELECT 1, 'no tables may be created in its schema' FROM target
    WHERE NOT has_schema_privilege(relnamespace, 'CREATE')
    UNION ALL
    SELECT 2, 'it is unlogged or temporary' FROM target WHERE relpersistence <> 'p'
    UNION ALL
    SELECT 2, 'it has row-level security' FROM target WHERE relrowsecurity OR relforcerowsecurity
    UNION ALL
    SELECT 2, 'it has a replica identity of its own' FROM target WHERE relreplident <> 'd'
    UNION ALL
    SELECT 2, 'it is a typed table' FROM target WHERE reloftype <> 0
    UNION ALL
    SELECT 2, 'it inherits from ' || i.inhparent::regclass::text FROM target t JOIN pg_inherits i ON i.inhrelid = t.oid
    UNION ALL
    SELECT 2, 'its access method is ' || quote_ident(a.amname) FROM target t JOIN pg_am a ON a.oid = t.relam
    WHERE a.amname <> 'heap'
    UNION ALL
    SELECT 3, 'publication ' || quote_ident(p.pubname) || ' covers it'
    FROM target t JOIN pg_publication_tables p ON p.schemaname = t.nspname AND p.tablename = t.relname
    UNION ALL
    SELECT 3, 'a subscription writes it' FROM target t JOIN pg_subscription_rel s ON s.srrelid = t.oid
    UNION ALL
    SELECT 3, 'it has a security label' FROM target t
    WHERE EXISTS (SELECT FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = t.oid)
    UNION ALL
    SELECT 3, 'its index ' || quote_ident(c.relname) || ' cannot be built again as it is'
    FROM target t
    JOIN pg_index i ON i.indrelid = t.oid
    JOIN pg_class c ON c.oid = i.indexrelid
    WHERE NOT i.indisvalid OR NOT i.indisready OR NOT i.indislive OR i.indisexclusion
    UNION ALL
    SELECT 3, 'it is part of extension ' || quote_ident(e.extname)
    FROM target t
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_extension'::regclass
    JOIN pg_extension e ON e.oid = d.refobjid
    UNION ALL
    SELECT 4, pg_describe_object(d.classid, d.objid, d.objsubid) || ' depends on it'
    FROM target t
    JOIN pg_depend d
      ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
      OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.reltype, t.typarray)
    WHERE NOT CASE d.classid
        WHEN 'pg_class'::regclass THEN
            d.objid IN (t.oid, t.reltoastrelid)
            OR EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = d.objid AND i.indrelid = t.oid)
        WHEN 'pg_attrdef'::regclass THEN
            EXISTS (SELECT FROM pg_attrdef a WHERE a.oid = d.objid AND a.adrelid = t.oid)
        WHEN 'pg_constraint'::regclass THEN
            -- Primary key, unique, check, not null. Foreign keys and exclusion constraints are obstacles.
            EXISTS (SELECT FROM pg_constraint c
                    WHERE c.oid = d.objid AND c.conrelid = t.oid AND c.contype IN ('p', 'u', 'c', 'n'))
        WHEN 'pg_type'::regclass THEN d.objid IN (t.reltype, t.typarray)
        ELSE false
    END
) AS found(rank, reason)
GROUP BY rank, reason
ORDER BY rank, reason
