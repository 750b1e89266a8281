-- $1 name of a slot, $2 of a publication: how far the slot was confirmed, and which publication it is. A server from version 18 on
-- says nothing of changes whose publication is not there.
SELECT s.confirmed_flush_lsn,
       p.oid
FROM (SELECT) one
LEFT JOIN pg_replication_slots s ON s.slot_name = $1::text
LEFT JOIN pg_publication p ON p.pubname = $2::text
