-- Processes whose snapshot is older than this transaction's number, which it has already, and who might read tables with
-- it: one row each.
--
-- The sessions of this stream read nothing here. Nor do other streams' that are writing: what a source does begins
-- otherwise.
SELECT a.pid
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.usesysid IS NOT NULL AND age(a.backend_xmin) > 0
  AND a.pid <> pg_backend_pid()
  AND a.application_name <> current_setting('application_name')
  AND NOT starts_with(a.application_name, current_setting('application_name') || '/')
  AND NOT (a.application_name LIKE 'rapidbyte/%'
           AND a.query ~ '^(COPY [^(]|INSERT |DELETE |UPDATE |MERGE |WITH |CREATE |ALTER |ANALYZE |DROP )')
