-- The statement that makes an empty copy of table $1 named $2 beside it, with its storage settings. By its name: of a table
-- that is dropped meanwhile regclass would print a number.
SELECT format('CREATE TABLE %I.%I (LIKE %I.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMMENTS '
              'INCLUDING GENERATED%s)%s TABLESPACE %I',
              n.nspname, $2::text, n.nspname, c.relname,
              CASE WHEN current_setting('server_version_num')::int >= 140000 THEN ' INCLUDING COMPRESSION' END,
              (SELECT format(' WITH (%s)', string_agg(format('%I = %L', o.option_name, o.option_value), ', '))
               FROM pg_options_to_table(c.reloptions) o HAVING count(*) > 0),
              space.spcname)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_tablespace space ON space.oid = CASE c.reltablespace
    WHEN 0 THEN (SELECT dattablespace FROM pg_database WHERE datname = current_database()) ELSE c.reltablespace END
WHERE c.oid = $1::oid
