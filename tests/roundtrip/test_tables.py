"""Tables as they come: odd names, many columns, huge values, keys, views, and what only the stored bytes tell."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rapidbyte_dagster.errors import RapidbyteError, SchemaError
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database, unique_name
from tests.roundtrip.builtin_types import WITHOUT_INPUT
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.movement import Pair, assert_moves
from tests.roundtrip.tables import identifier

ODD_NAMES = [
    '"',
    "it's",
    "a b",
    "UPPER",
    "select",
    "%s %d {}",
    "back\\slash",
    "line\nbreak",
    "$1",
    "--",
    "/*",
    "ü🌍",
    "n" * 63,
]


def test_names_of_any_characters_arrive(tmp_path: Path, pair: Pair) -> None:
    columns = ", ".join(f"{identifier(name)} {'text' if i % 2 else 'inet[]'}" for i, name in enumerate(ODD_NAMES))
    table = 'odd " table; %s -- \\ ü'
    schema = "odd \" schema's\n{}"
    pair.source.execute(
        f"CREATE SCHEMA {identifier(schema)};"
        f"CREATE TABLE {identifier(schema)}.{identifier(table)} ({columns}, PRIMARY KEY ({identifier(ODD_NAMES[1])}));"
        f"INSERT INTO {identifier(schema)}.{identifier(table)} SELECT '{{::1}}', i FROM generate_series(1, 3) i"
    )
    assert_moves(tmp_path, pair, table, schema=schema)
    assert_moves(tmp_path, pair, table, schema=schema, columns=[*ODD_NAMES[5:], ODD_NAMES[1]])


@pytest.mark.full
def test_as_many_columns_as_a_table_can_have_arrive(tmp_path: Path, pair: Pair) -> None:
    types = ["integer", "text", "boolean", "date", "numeric(9,2)", "smallint[]", "inet", "numeric"]
    values = [
        "i",
        "'t' || i",
        "i = 1",
        "date '2000-01-01' + i",
        "i / 3.0",
        "ARRAY[i, NULL]",
        "'::1'::inet + i",
        "i / 7.0",
    ]
    numbers = range(1600)
    columns = ", ".join(f"c{number} {types[number % len(types)]}" for number in numbers)
    # A row fits into one page when most of its fields are NULL.
    row = ", ".join(values[n % len(values)] if n % 64 < 8 else "NULL" for n in numbers)
    pair.source.execute(
        f"CREATE TABLE widest ({columns}); INSERT INTO widest SELECT {row} FROM generate_series(1, 20) i"
    )
    assert_moves(tmp_path, pair, "widest")
    assert_moves(tmp_path, pair, "widest", resources={"max_batch_bytes": 1})


def test_rows_of_nothing_but_null_arrive(tmp_path: Path, pair: Pair) -> None:
    """Of every type there is, those included that nothing can be read into."""
    types = pair.source.fetch(
        """
        SELECT format_type(t.oid, NULL) FROM pg_type t LEFT JOIN pg_type e ON e.typarray = t.oid
        WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
          AND coalesce(e.typtype, t.typtype) IN ('b', 'r', 'm')
        ORDER BY t.oid
        """
    )
    assert len(types) > 150
    columns = ", ".join(f"c{number} {name}" for number, [name] in enumerate(types))
    pair.source.execute(f"CREATE TABLE nulls ({columns}); INSERT INTO nulls SELECT FROM generate_series(1, 100)")
    assert_moves(tmp_path, pair, "nulls")


VALUES_WITHOUT_INPUT = {
    "pg_node_tree": "SELECT ev_action AS v FROM pg_rewrite LIMIT 1",
    "pg_ndistinct": "SELECT stxdndistinct AS v FROM pg_statistic_ext_data",
    "pg_dependencies": "SELECT stxddependencies AS v FROM pg_statistic_ext_data",
    "pg_mcv_list": "SELECT stxdmcv AS v FROM pg_statistic_ext_data",
}


@pytest.mark.parametrize("name", VALUES_WITHOUT_INPUT)
def test_a_value_that_no_column_takes_is_an_error(tmp_path: Path, pair: Pair, name: str) -> None:
    assert name in WITHOUT_INPUT
    table, about = unique_name("inputless"), unique_name("about")
    pair.source.execute(
        f"""
        CREATE TABLE of_{about} (a int, b int);
        INSERT INTO of_{about} SELECT i % 5, i % 5 FROM generate_series(1, 100) i;
        CREATE STATISTICS {about} (ndistinct, dependencies, mcv) ON a, b FROM of_{about}; ANALYZE of_{about};
        """
    )
    pair.source.execute(
        f"CREATE TABLE {table} AS {VALUES_WITHOUT_INPUT[name]}; ALTER TABLE {table} OWNER TO etl", superuser=True
    )
    with pytest.raises(RapidbyteError, match=name):
        run(make_pipeline(tmp_path, pair.source, pair.destination, [table]))
    assert pair.destination.fetch_value("SELECT to_regclass(%s) IS NULL", [f"raw.{table}"])


def test_values_of_a_megabyte_and_more_arrive(tmp_path: Path, pair: Pair) -> None:
    megabyte = 1024 * 1024
    pair.source.execute(
        f"""
        CREATE TABLE huge (n int PRIMARY KEY, t text, b bytea, j json, jb jsonb, v varbit, ts text[],
                           ns numeric(76,0)[], bs boolean[], deep text[], inets inet[], poly polygon, num numeric);
        INSERT INTO huge (n, t) VALUES (1, repeat('ü', {megabyte})), (2, NULL), (3, ''), (4, 'x');
        INSERT INTO huge (n, b) VALUES (5, decode(repeat('00ff5c', {megabyte}), 'hex'));
        INSERT INTO huge (n, j) SELECT 6, to_json(repeat('"\\', {megabyte}));
        INSERT INTO huge (n, jb) SELECT 7, jsonb_agg(i) FROM generate_series(1, 200000) i;
        INSERT INTO huge (n, v) VALUES (8, repeat('1', {megabyte})::varbit);
        INSERT INTO huge (n, ts) SELECT 9, array_agg(nullif(i % 7, 0)::text) FROM generate_series(1, 200000) i;
        INSERT INTO huge (n, ns) SELECT 10, array_fill(NULL::numeric, ARRAY[200000]);
        INSERT INTO huge (n, bs) SELECT 11, array_agg(i % 3 = 0) FROM generate_series(1, 200001) i;
        INSERT INTO huge (n, deep) SELECT 12, array_fill(repeat('x"', 100), ARRAY[2, 5000]);
        INSERT INTO huge (n, inets) SELECT 13, array_agg('::1'::inet + i) FROM generate_series(1, 50000) i;
        INSERT INTO huge (n, poly) SELECT 14, ('(' || string_agg('(' || i || ',0.1)', ',') || ')')::polygon
            FROM generate_series(1, 20000) i;
        INSERT INTO huge (n, num) VALUES (15, (repeat('9', 131072) || '.' || repeat('1', 16383))::numeric);
        INSERT INTO huge (n, t) SELECT 100 + i, repeat(chr(65 + i % 26), 700000 + i) FROM generate_series(1, 20) i;
        """
    )
    assert_moves(tmp_path, pair, "huge")
    assert_moves(
        tmp_path,
        pair,
        "huge",
        columns=["n", "t", "b", "j", "bs"],
        resources={"max_batch_bytes": 1, "max_inflight_bytes": 1},
    )


def test_text_forms_of_many_chunks_arrive(tmp_path: Path, pair: Pair) -> None:
    """The destination converts 64 MB at a time."""
    for database in (pair.source, pair.destination):
        database.execute("CREATE DOMAIN long_text AS text")
    pair.source.execute(
        """
        CREATE TABLE chunks (n int PRIMARY KEY, v long_text, r regtype, d int);
        INSERT INTO chunks SELECT i, repeat(chr(65 + i % 26), 7000000 + i), 'integer', i FROM generate_series(1, 10) i;
        """
    )
    assert_moves(tmp_path, pair, "chunks")


def test_floats_arrive_bit_by_bit(tmp_path: Path, pair: Pair) -> None:
    """Signs and payloads of NaN too, which only a binary COPY can write."""
    patterns = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000001, 0xFFFFFFFFFFFFFFFF, 0x8000000000000000, 1]
    narrow = [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x80000000, 1]
    rows = b"".join(
        struct.pack(">h iI iI iQ", 3, 4, number, 4, small, 8, large)
        for number, (small, large) in enumerate(zip(narrow, patterns, strict=True))
    )
    pair.source.execute("CREATE TABLE bits (n integer PRIMARY KEY, small real, large double precision)")
    with pair.source.connect() as connection:
        with connection.cursor().copy("COPY bits FROM STDIN (FORMAT binary)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows + b"\xff\xff")
        connection.execute("ALTER TABLE bits ADD smalls real[], ADD larges double precision[]")
        connection.execute("UPDATE bits SET smalls = ARRAY[small, NULL, small], larges = ARRAY[large]")
    assert_moves(tmp_path, pair, "bits")


def test_generated_columns_identities_and_serials_arrive_as_their_values(tmp_path: Path, pair: Pair) -> None:
    pair.source.execute(
        """
        CREATE TABLE made (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s serial, a integer DEFAULT 7,
                           stored integer GENERATED ALWAYS AS (a * 2) STORED,
                           virtual text GENERATED ALWAYS AS (a || 'x'));
        INSERT INTO made (a) SELECT i FROM generate_series(1, 10) i; DELETE FROM made WHERE id = 5;
        """
    )
    assert_moves(tmp_path, pair, "made")


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE VIEW {} AS SELECT n, v, v::text AS t, ARRAY[v] AS a, ROW(n, v)::sample_rows AS r FROM sample_rows",
        "CREATE MATERIALIZED VIEW {} AS SELECT n, n::numeric(12,4) AS m, v FROM sample_rows",
        "CREATE TABLE {} (n int, v inet) PARTITION BY RANGE (n);"
        "CREATE TABLE low PARTITION OF {} FOR VALUES FROM (0) TO (10); CREATE TABLE high (v inet, gone int, n int);"
        "ALTER TABLE high DROP COLUMN gone; ALTER TABLE {} ATTACH PARTITION high FOR VALUES FROM (10) TO (99);"
        "INSERT INTO {} SELECT * FROM sample_rows",
        "CREATE TABLE {} () INHERITS (sample_rows); INSERT INTO {} SELECT * FROM sample_rows",
        "CREATE UNLOGGED TABLE {} (gone int, n int, gone_too text, v inet); INSERT INTO {} SELECT 1, n, 'x', v"
        " FROM sample_rows; ALTER TABLE {} DROP gone, DROP gone_too; ALTER TABLE {} ADD added int NOT NULL DEFAULT 5",
    ],
    ids=["view", "materialized view", "partitioned table", "child table", "table with dropped columns"],
)
def test_whatever_can_be_selected_from_arrives(tmp_path: Path, pair: Pair, definition: str) -> None:
    subject = unique_name("subject")
    rows = f"rows_of_{subject}"
    pair.source.execute(
        f"CREATE TABLE {rows} (n int, v inet);"
        f"INSERT INTO {rows} SELECT i, '::1'::inet + i FROM generate_series(1, 20) i"
    )
    pair.destination.execute(f"CREATE TYPE {rows} AS (n int, v inet)")
    pair.source.execute(definition.replace("{}", subject).replace("sample_rows", rows))
    assert_moves(tmp_path, pair, subject)


@pytest.mark.parametrize(
    "definition",
    [
        "INSERT INTO t VALUES (1, NULL); ALTER TABLE t ADD CONSTRAINT told NOT NULL b NOT VALID",
        "CREATE TABLE heir () INHERITS (t); INSERT INTO heir VALUES (1, NULL);"
        "ALTER TABLE t ADD CONSTRAINT told NOT NULL b NO INHERIT",
        "ALTER TABLE t ADD CONSTRAINT told NOT NULL b NO INHERIT; CREATE TABLE between_them () INHERITS (t);"
        "CREATE TABLE heir () INHERITS (between_them); INSERT INTO heir VALUES (1, NULL)",
    ],
    ids=["not validated", "not inherited", "not inherited twice"],
)
def test_null_in_a_column_that_says_not_null_arrives(
    tmp_path: Path, source_db: Database, destination_db: Database, definition: str
) -> None:
    source_db.execute(f"CREATE TABLE t (a int NOT NULL, b text); {definition}")
    result = run(make_pipeline(tmp_path, source_db, destination_db, ["t"]))
    assert [column.nullable for column in result.columns] == [False, True]
    assert destination_db.fetch("SELECT a, b FROM raw.t") == [(1, None)]


def test_a_key_that_includes_other_columns_arrives_as_the_key_alone(tmp_path: Path, pair: Pair) -> None:
    pair.source.execute("CREATE TABLE including (a int, b text, c int, PRIMARY KEY (c, a) INCLUDE (b))")
    assert assert_moves(tmp_path, pair, "including").primary_key == ("c", "a")


def test_keys_that_are_equal_but_not_the_same_arrive_as_they_are_now(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    """A table that others refer to is replaced by comparing keys, and 1.0 equals 1.00."""
    source_db.execute(
        "CREATE TABLE t (k numeric PRIMARY KEY, v numeric(9,2)); INSERT INTO t VALUES (1.0, 1), (2, 2), (3.10, 3)"
    )
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["t"], write_mode="replace")
    run(pipeline)
    destination_db.execute(
        "CREATE TABLE raw.child (k numeric REFERENCES raw.t ON DELETE CASCADE); INSERT INTO raw.child VALUES (1), (2)"
    )
    source_db.execute("UPDATE t SET k = k + 0.0000, v = v + 1 WHERE k < 3; UPDATE t SET k = 3.1 WHERE k = 3.1")
    run(pipeline)
    assert_same(Table(source_db, "public", "t"), Table(destination_db, "raw", "t"))
    assert destination_db.fetch_value("SELECT count(*) FROM raw.child") == 2


def test_a_table_of_no_columns_is_an_error(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    source_db.execute("CREATE TABLE t (); INSERT INTO t DEFAULT VALUES")
    with pytest.raises(SchemaError, match="no columns") as caught:
        run(make_pipeline(tmp_path, source_db, destination_db, ["t"]))
    assert "take the stream out" in str(caught.value.hint)
    assert destination_db.fetch_value("SELECT to_regclass('raw.t') IS NULL")
