-- Why no unique index on the columns $2 (a JSON list) can be made on table $1, as far as the catalog knows: one reason
-- per row, none when it can.
SELECT 'permission', 'it belongs to ' || quote_ident(pg_get_userbyid(c.relowner))
FROM pg_class c WHERE c.oid = $1::oid AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT 'schema', 'it is partitioned by ' || pg_get_partkeydef(p.partrelid) || ', all of which a unique index has to hold'
FROM pg_partitioned_table p
WHERE p.partrelid = $1::oid
  AND EXISTS (SELECT FROM unnest(p.partattrs::int2[]) AS k(attnum)
              LEFT JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = k.attnum AND k.attnum > 0
              WHERE a.attname IS NULL OR a.attname::text NOT IN (SELECT json_array_elements_text($2::json)))
