-- $1 tables as a JSON list of {"schema", "name"}: a text that is another one whenever their rows, files or columns may have
-- changed since it was asked for last. The server counts a transaction's rows up to a few seconds after it committed; a
-- standby counts nothing that it replays, so that its place in the WAL has to do.
WITH RECURSIVE wanted AS (
    SELECT c.oid
    FROM json_to_recordset($1::json) AS w (schema text, name text)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
), parts AS (
    SELECT oid FROM wanted
    UNION
    SELECT i.inhrelid FROM parts p JOIN pg_inherits i ON i.inhparent = p.oid
)
SELECT concat_ws(' ', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END, md5(coalesce(string_agg(concat_ws(' ',
           c.oid,
           c.relfilenode,
           c.relreplident,
           pg_stat_get_tuples_inserted(c.oid),
           pg_stat_get_tuples_updated(c.oid),
           pg_stat_get_tuples_deleted(c.oid),
           (
               SELECT string_agg(concat_ws(' ', a.attname, a.atttypid, a.atttypmod, a.attnotnull), ',' ORDER BY a.attnum)
               FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           )), ';' ORDER BY c.oid), '')))
FROM parts p
JOIN pg_class c ON c.oid = p.oid
