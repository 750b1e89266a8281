-- $1 schema, $2 name: what somebody who looks for it may have meant.
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname NOT IN ('information_schema', 'pg_toast')
  AND n.nspname NOT LIKE 'pg\_temp%'
  AND (lower(c.relname) = lower($2::text)
       OR (n.nspname = $1::text
           AND (strpos(lower(c.relname), lower($2::text)) > 0 OR strpos(lower($2::text), lower(c.relname)) > 0)))
ORDER BY lower(c.relname) = lower($2::text) DESC, n.nspname = $1::text DESC, c.relname
LIMIT 3
