-- $1 name of a slot: what has to hold for it to bring changes. `wal_status` is told from PostgreSQL 13 on.
SELECT s.confirmed_flush_lsn,
       s.plugin,
       s.database IS NOT DISTINCT FROM current_database(),
       to_jsonb(s)->>'wal_status'
FROM pg_replication_slots s
WHERE s.slot_name = $1::text
