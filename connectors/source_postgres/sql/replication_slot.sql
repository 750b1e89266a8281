-- $1 name: a replication slot, who reads it, and how much WAL lies ahead of it. Which columns pg_replication_slots has
-- depends on the version. One row, whether the slot exists or not.
SELECT w.position,
       s.slot_name IS NOT NULL,
       s.slot_type,
       s.plugin,
       s.database,
       s.database = current_database(),
       s.temporary,
       s.active,
       s.active_pid,
       a.application_name,
       s.restart_lsn,
       s.confirmed_flush_lsn,
       to_jsonb(s) ->> 'wal_status',
       to_jsonb(s) ->> 'safe_wal_size',
       coalesce(to_jsonb(s) ->> 'two_phase' = 'true', false),
       to_jsonb(s) ->> 'invalidation_reason',
       pg_wal_lsn_diff(w.position, s.confirmed_flush_lsn)::int8,
       pg_wal_lsn_diff(w.position, s.restart_lsn)::int8
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS position) w
LEFT JOIN pg_replication_slots s ON s.slot_name = $1::text
LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
