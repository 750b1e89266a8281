-- What the numbers of transactions mean in this transaction's snapshot: the database; the first transaction that had not
-- ended, and the one behind the last that had begun; and a hash of all enums' labels, which change without their rows.
SELECT d.oid,
       pg_catalog.txid_snapshot_xmin(s.taken),
       pg_catalog.txid_snapshot_xmax(s.taken),
       (SELECT pg_catalog.hashtextextended(pg_catalog.string_agg(pg_catalog.format('%s %L', e.oid, e.enumlabel), ',' ORDER BY e.oid), 0)
        FROM pg_catalog.pg_enum e)
FROM pg_catalog.pg_database d
CROSS JOIN (SELECT pg_catalog.txid_current_snapshot() AS taken) s
WHERE d.datname = pg_catalog.current_database()
