-- $1 JSON list of types: how the server makes a value of the type from its text form, as SQL around the text; whether
-- the result has to be held against the text; and postgres/sql/prints_names.sql. The SQL means the same under any
-- search path.
--
-- A cast from text is the type's input function, unless there is a cast function, which may read something else:
-- regclass's knows neither "-" nor numbers. There the input function is called by its name.
--
-- A type that is not PostgreSQL's own may be defined otherwise than at the source, and then round or cut without a
-- word: a domain over varchar(3) makes abc of abcde. "char" reads octal escapes since PostgreSQL 15 only.
WITH RECURSIVE named AS (
    SELECT f.position, f.name, to_regtype(f.name)::oid AS type
    FROM json_array_elements_text($1::json) WITH ORDINALITY AS f(name, position)
), below AS (
    SELECT n.position, n.type FROM named n
    UNION ALL
    SELECT b.position, t.typbasetype FROM below b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT CASE WHEN x.oid IS NULL THEN '' ELSE format('%I.%I(', i.nspname, p.proname) END,
       CASE WHEN x.oid IS NULL THEN ''
            WHEN p.pronargs = 1 THEN '::pg_catalog.cstring)'
            ELSE format('::pg_catalog.cstring, %s::pg_catalog.oid, -1)',
                        CASE WHEN base.typelem = 0 THEN base.oid ELSE base.typelem END)
       END
       || CASE
              WHEN x.oid IS NOT NULL AND t.typtype <> 'd' THEN ''
              -- What has no grammar of its own is looked up in the search path, where something else may come first.
              WHEN s.nspname = 'pg_catalog' AND n.name IN (quote_ident(o.typname), quote_ident(o.typname) || '[]')
                  THEN '::pg_catalog.' || n.name
              -- On a line of its own: the name may end in a comment.
              ELSE format(E'::\n%s\n', n.name)
          END,
       o.typtype IN ('d', 'c') OR o.typtype IN ('r', 'm') AND o.oid >= 16384 OR o.oid = '"char"'::regtype,
{s}FROM named n
JOIN pg_type t ON t.oid = n.type
-- The type, or of an array its elements'.
JOIN pg_type o ON o.oid = coalesce((SELECT e.oid FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid), t.oid)
JOIN pg_namespace s ON s.oid = o.typnamespace
-- What a domain is one of in the end.
JOIN below b ON b.position = n.position
JOIN pg_type base ON base.oid = b.type AND base.typtype <> 'd'
JOIN pg_proc p ON p.oid = base.typinput
JOIN pg_namespace i ON i.oid = p.pronamespace
LEFT JOIN pg_cast x ON x.castsource = 'text'::regtype AND x.casttarget = base.oid AND x.castmethod = 'f'
ORDER BY n.position
