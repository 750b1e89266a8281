-- The bytes that encode_test.zig and numeric.zig expect, made by the server:
--     psql --no-psqlrc --tuples-only --no-align --file golden.sql; the last line goes through `xxd -p`.
\pset fieldsep ' '
SELECT v, encode(numeric_send(v), 'hex')
FROM (VALUES (0::numeric), (0::numeric(12,4)), (1.50::numeric(12,4)), (-1.50::numeric(12,4)), (0.001), (0.00001), (10000),
    (99999999), (123456.7890), (12345678901234567890123456789012345678), (1e-30), (1.5e10), ('NaN'), ('Infinity'),
    ('-Infinity')) AS t(v);
SELECT v, encode(date_send(v), 'hex') FROM (VALUES ('2024-02-29'::date), ('infinity')) AS t(v);
SELECT v, encode(timestamp_send(v), 'hex')
FROM (VALUES ('2024-02-29 12:34:56.789012'::timestamp), ('-infinity'), ('294276-12-31 23:59:59.999999')) AS t(v);
SELECT v, encode(time_send(v), 'hex') FROM (VALUES ('24:00:00'::time)) AS t(v);
SELECT v, encode(interval_send(v), 'hex')
FROM (VALUES ('1 year 2 mons -3 days 04:05:06.000007'::interval), ('infinity')) AS t(v);
SELECT encode(jsonb_send('[1]'), 'hex');
SELECT encode(uuid_send('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'), 'hex');
SELECT encode(array_send('{1,NULL,-2}'::int4[]), 'hex'), encode(array_send('{}'::int4[]), 'hex');
SELECT encode(array_send('{a,NULL,""}'::text[]), 'hex');
SELECT encode(array_send('{1.50,NULL}'::numeric(12,4)[]), 'hex');
SELECT encode(array_send('{t,f}'::bool[]), 'hex');
SELECT encode(array_send(ARRAY['{"a": 1}'::jsonb]), 'hex');
COPY (SELECT true, (-2)::int2, 7::int8, 1.5::float8, 'abc'::text, NULL::int4, '{1,NULL,-2}'::int4[]) TO STDOUT (FORMAT binary);
