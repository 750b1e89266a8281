-- How far the log is written; and how far it will be soon, which is known where the server confirms commits before.
SELECT pg_current_wal_flush_lsn(),
       CASE WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn() END
WHERE NOT pg_is_in_recovery()
UNION ALL
SELECT pg_last_wal_replay_lsn(), NULL
WHERE pg_is_in_recovery()
