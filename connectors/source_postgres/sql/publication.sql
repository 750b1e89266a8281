-- $1 name: a publication, and what its comment says. Which columns pg_publication has depends on the version.
SELECT p.puballtables,
       p.pubinsert,
       p.pubupdate,
       p.pubdelete,
       p.pubtruncate,
       coalesce((to_jsonb(p) ->> 'pubviaroot')::bool, false),
       coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false),
       obj_description(p.oid, 'pg_publication'),
       pg_has_role(p.pubowner, 'USAGE')
FROM pg_publication p
WHERE p.pubname = $1::text
