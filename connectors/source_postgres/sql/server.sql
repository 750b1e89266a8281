-- What change capture needs of the server and of this user. Who may replicate is an attribute of the role, or membership
-- of a role where the server is RDS.
SELECT current_setting('wal_level'),
       r.rolsuper OR r.rolreplication OR EXISTS (
           SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(g.oid, 'USAGE')
       ),
       current_user,
       current_setting('max_replication_slots'),
       (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders'),
       (SELECT count(*) FROM pg_stat_replication),
       pg_is_in_recovery(),
       has_database_privilege(current_database(), 'CREATE'),
       current_database()
FROM pg_roles r
WHERE r.rolname = current_user
