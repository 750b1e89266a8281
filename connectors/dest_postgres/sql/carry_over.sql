-- What table $1 has and CREATE TABLE … (LIKE …) does not copy, as statements for table $2, in order.
WITH old AS (SELECT * FROM pg_class WHERE oid = $1::oid),
     new AS (SELECT * FROM pg_class WHERE oid = $2::oid),
     -- Who holds what; a null list of grants stands for the owner's own.
     grants AS (
         SELECT g.grantee, g.privilege_type, g.is_grantable
         FROM old, aclexplode(coalesce(old.relacl, acldefault('r', old.relowner))) AS g
     ),
     granted AS (
         SELECT DISTINCT g.grantee
         FROM new, aclexplode(coalesce(new.relacl, acldefault('r', new.relowner))) AS g
     )
SELECT statement FROM (
    SELECT 1 AS step, 0 AS item, format('ALTER TABLE %s OWNER TO %I', new.oid::regclass, pg_get_userbyid(old.relowner)) AS statement
    FROM old, new WHERE old.relowner <> new.relowner
    UNION ALL
    -- The new table may have grants by ALTER DEFAULT PRIVILEGES, and its owner has what owners have.
    SELECT 2, 0, format('REVOKE ALL ON %s FROM %s', new.oid::regclass,
                     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(
                         CASE grantee WHEN new.relowner THEN old.relowner ELSE grantee END)) END)
    FROM old, new, granted WHERE old.relacl IS NOT NULL OR new.relacl IS NOT NULL
    UNION ALL
    SELECT 3, 0, format('GRANT %s ON %s TO %s%s', g.privilege_type, new.oid::regclass,
                     CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                     CASE WHEN g.is_grantable AND g.grantee <> old.relowner THEN ' WITH GRANT OPTION' END)
    FROM old, new, grants g WHERE old.relacl IS NOT NULL OR new.relacl IS NOT NULL
    UNION ALL
    SELECT 4, a.attnum, format('GRANT %s (%I) ON %s TO %s%s', g.privilege_type, a.attname, new.oid::regclass,
                     CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                     CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM old JOIN pg_attribute a ON a.attrelid = old.oid AND NOT a.attisdropped AND a.attacl IS NOT NULL, new,
         aclexplode(a.attacl) AS g
    UNION ALL
    SELECT 5, 0, format('COMMENT ON TABLE %s IS %L', new.oid::regclass, obj_description(old.oid, 'pg_class'))
    FROM old, new WHERE obj_description(old.oid, 'pg_class') IS NOT NULL
    UNION ALL
    SELECT 6, a.attnum, format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', new.oid::regclass, a.attname, a.attstattarget)
    FROM old JOIN pg_attribute a ON a.attrelid = old.oid AND a.attnum > 0 AND NOT a.attisdropped, new
    WHERE a.attstattarget >= 0
    UNION ALL
    SELECT 7, a.attnum, format('ALTER TABLE %s ALTER COLUMN %I SET (%s)', new.oid::regclass, a.attname,
                     (SELECT string_agg(format('%I = %L', o.option_name, o.option_value), ', ') FROM pg_options_to_table(a.attoptions) o))
    FROM old JOIN pg_attribute a ON a.attrelid = old.oid AND a.attnum > 0 AND NOT a.attisdropped, new
    WHERE a.attoptions IS NOT NULL
    UNION ALL
    SELECT 8, 0, format('ALTER TABLE %s SET (%s)', new.oid::regclass,
                     (SELECT string_agg(format('%I = %L', o.option_name, o.option_value), ', ') FROM pg_options_to_table(old.reloptions) o))
    FROM old, new WHERE old.reloptions IS DISTINCT FROM new.reloptions AND old.reloptions IS NOT NULL
    UNION ALL
    SELECT 9, 0, format('ALTER TABLE %s SET (%s)', new.oid::regclass,
                     (SELECT string_agg(format('toast.%I = %L', o.option_name, o.option_value), ', ') FROM pg_options_to_table(toast.reloptions) o))
    FROM old JOIN pg_class toast ON toast.oid = old.reltoastrelid, new WHERE toast.reloptions IS NOT NULL
) AS carried
ORDER BY step, item, statement
