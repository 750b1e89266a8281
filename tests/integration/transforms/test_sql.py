"""transform-sql between two real databases."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import CancelToken, check_pipeline, replay_dead_letters
from rapidbyte_dagster.errors import Kind, RapidbyteError, RunCancelled, Stage
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no DuckDB 2 for Python 3.10")

VALUES = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "0"],
    "integer": ["2147483647", "-1"],
    "bigint": ["-9223372036854775808", "1"],
    "real": ["'NaN'", "0.1", "1e-7", "'-Infinity'", "1e20", "-0.0", "123456", "1234567"],
    "double precision": ["-0.0", "1e-4", "1e-5", "1e15", "123456789012345680", "5e-324", "0.1", "1e300", "100"],
    "numeric(12,4)": ["12.5", "'NaN'", "-0.0005", "0"],
    "numeric(70,2)": ["12345678901234567890123456789012345678901234567890.12", "-0.01"],
    "numeric": ["1.50", "1e-20"],
    "text": ["''", "'naïve 🐘'", "repeat('x', 3000)"],
    "varchar(20)": ["'a b'"],
    "char(5)": ["'a'"],
    "bytea": ["'\\x00ff'", "''"],
    "date": ["'2024-02-29'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'5874897-12-31'", "'4713-01-01 BC'"],
    "time": ["'24:00:00'", "'01:02:03.4'"],
    "timestamp": ["'2024-02-29 01:02:03.000004'", "'-infinity'", "'0001-01-01 00:00:00'", "'4713-01-01 00:00:00 BC'"],
    "timestamptz": ["'2024-02-29 01:02:03+02'", "'infinity'", "'294276-12-31 23:59:59+00'", "'0044-03-15 12:00+00 BC'"],
    "interval": ["'1 year 2 mons -3 days 04:05:06.7'", "'-1 day'", "'0'", "'infinity'", "'-14 mons 1 day -1:00:01'"],
    "uuid": ["'00000000-0000-4000-8000-0000000000ff'"],
    "json": ["'{\"a\" : 1}'"],
    "jsonb": ["'{\"a\": [1, null]}'"],
    "inet": ["'192.168.0.1/24'"],
    "mood": ["'happy'"],
    "text[]": ["array['a b', null, '', 'NULL', '\"\\']", "'{}'", "array['ä', 'x,y', '{', E'a\\tb']"],
    "integer[]": ["array[1, null]"],
    "boolean[]": ["array[true, null, false]"],
    "date[]": ["array['infinity'::date, '0044-03-15 BC']"],
    "timestamptz[]": ["array['2024-02-29 01:02:03+02'::timestamptz]"],
    "uuid[]": ["array['00000000-0000-4000-8000-0000000000ff'::uuid]"],
    "numeric(12,4)[]": ["array[1.5, 'NaN']"],
    "bytea[]": ["array['\\x005c'::bytea]"],
    "interval[]": ["array['1 day'::interval]"],
    "real[]": ["array[0.1, 1e20]"],
}  # fmt: skip
"""A type of PostgreSQL's, and values of it. Each column has NULLs beside."""

COLUMNS = {f"c{place}": type_name for place, type_name in enumerate(VALUES)}
ROWS = max(map(len, VALUES.values())) + 1
SETTINGS = "-c TimeZone=UTC -c IntervalStyle=postgres -c DateStyle=ISO"


def create_every_type(database: Database) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('happy')")
    columns = ", ".join(f"{name} {type_name}" for name, type_name in COLUMNS.items())
    database.execute(f"CREATE TABLE things (id bigint PRIMARY KEY, t text, {columns})")
    for row in range(ROWS):
        values = [known[row] if row < len(known) else "NULL" for known in VALUES.values()]
        text = f"'{row}'" if row % 2 == 0 else "'odd'"
        database.execute(f"INSERT INTO things VALUES ({row}, {text}, {', '.join(values)})")


def as_texts(database: Database, table: str) -> list[tuple[Any, ...]]:
    """Every row, as the server prints it."""
    told = ", ".join(f"{name}::text" for name in ("id", *COLUMNS))
    with psycopg.connect(database.dsn, options=SETTINGS) as connection:
        return connection.execute(f"SELECT {told} FROM {table} ORDER BY id".encode()).fetchall()


def computed(folder: Path, source: Database, destination: Database, query: str, **options: Any) -> Pipeline:
    limits = options.pop("limits", {})
    transforms = [{"use": "sql", "config": {"query": query}, "limits": limits}]
    return make_pipeline(folder, source, destination, ["things"], transforms=transforms, **options)


def letters_of(pipeline: Pipeline) -> list[dict[str, Any]]:
    with open_state(pipeline, {}) as state:
        found: list[dict[str, Any]] = state.dead_letters("shop", "things").to_pylist()
    return found


def test_every_type_arrives_as_it_was_and_rows_that_fail_are_kept_as_the_server_prints_them(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    create_every_type(source_db)
    destination_db.execute("CREATE TYPE mood AS ENUM ('happy')")
    pipeline = computed(
        tmp_path,
        source_db,
        destination_db,
        "SELECT * EXCLUDE (t), t::INTEGER * 1.5 AS n, upper(t) AS u FROM stream",
        destination_section={"on_data_error": "dlq"},
    )
    result = run(pipeline)
    assert (result.rows, result.filtered, result.dead_letters) == ((ROWS + 1) // 2, 0, ROWS // 2)
    expected = as_texts(source_db, "things")
    assert as_texts(destination_db, "raw.things") == [row for row in expected if int(row[0]) % 2 == 0]
    assert destination_db.fetch("SELECT n::text, u FROM raw.things ORDER BY id")[1] == ("3.0", "2")
    types = (
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = '{}'::regclass AND attnum > 0 AND attname NOT IN ('t', 'n', 'u') ORDER BY attnum"
    )
    assert destination_db.fetch(types.format("raw.things")) == source_db.fetch(types.format("things"))

    letters = letters_of(pipeline)
    assert {(each["stage"], each["error_category"], each["error_message"]) for each in letters} == {
        ("transform 1", "cast", "column n: CAST(t AS INTEGER) fails")
    }
    records = sorted((json.loads(each["record_json"]) for each in letters), key=lambda record: record["id"])
    odd = [row for row in expected if int(row[0]) % 2 == 1]
    for record, row in zip(records, odd, strict=True):
        for name, value in zip(("id", *COLUMNS), row, strict=True):
            assert text_of(record[name]) == value, f"{COLUMNS.get(name)} of row {row[0]}"


def text_of(value: Any) -> str | None:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else None if value is None else str(value)


@pytest.fixture
def amounts(source_db: Database) -> Database:
    source_db.execute("CREATE TABLE things (id int PRIMARY KEY, amount text, made timestamptz)")
    source_db.execute(
        "INSERT INTO things SELECT i, CASE WHEN i % 100 = 7 THEN 'n/a' ELSE (i * 1.25)::text END,"
        " '2024-01-01'::timestamptz + i * interval '1 hour' FROM generate_series(1, 1000) i"
    )
    return source_db


AMOUNTS = "SELECT id, amount::DECIMAL(12, 2) AS amount, made::DATE AS day FROM stream WHERE id > 500"


def test_rows_are_filtered_converted_and_upserted_by_the_key_that_the_source_has(
    tmp_path: Path, amounts: Database, destination_db: Database
) -> None:
    amounts.execute("UPDATE things SET amount = '1' WHERE amount = 'n/a'")
    pipeline = computed(tmp_path, amounts, destination_db, AMOUNTS, write_mode="upsert")
    assert (run(pipeline).rows, run(pipeline).filtered) == (500, 500)
    query = "SELECT id, {}::numeric(12,2), {} FROM {} WHERE id > 500 ORDER BY id"
    expected = amounts.fetch(query.format("amount", "(made AT TIME ZONE 'UTC')::date", "things"))
    assert destination_db.fetch(query.format("amount", "day", "raw.things")) == expected
    assert destination_db.fetch_value("SELECT pg_typeof(amount)::text FROM raw.things LIMIT 1") == "numeric"


def test_a_row_that_fails_ends_the_run_or_is_left_out(
    tmp_path: Path, amounts: Database, destination_db: Database
) -> None:
    reason = "column amount: CAST(amount AS DECIMAL(12, 2)) fails"
    with pytest.raises(RapidbyteError) as caught:
        run(computed(tmp_path, amounts, destination_db, AMOUNTS))
    assert (caught.value.kind, caught.value.info.stage) == (Kind.DATA, Stage.TRANSFORM)
    assert caught.value.info.message == f"row 507 of the run: {reason}"
    assert destination_db.fetch_value("SELECT to_regclass('raw.things')") is None

    lines: list[str] = []
    skipping = computed(tmp_path, amounts, destination_db, AMOUNTS, destination_section={"on_data_error": "skip"})
    result = run(skipping, on_log=lambda level, message: lines.append(message))
    assert (result.rows, result.rejected, result.filtered, result.dead_letters) == (495, 5, 500, 0)
    assert f"transform 1: 5 rows were left out; the first: {reason}" in lines


def test_rows_that_failed_are_replayed_through_the_statement(
    tmp_path: Path, amounts: Database, destination_db: Database
) -> None:
    options: dict[str, Any] = {"destination_section": {"on_data_error": "dlq"}, "write_mode": "upsert"}
    pipeline = computed(tmp_path, amounts, destination_db, AMOUNTS, **options)
    assert run(pipeline).dead_letters == 5
    # NULL where there is no number now; 507 and 607 are left out on purpose.
    mended = AMOUNTS.replace("amount::DECIMAL(12, 2)", "TRY_CAST(amount AS DECIMAL(12, 2))").replace("500", "607")
    pipeline = computed(tmp_path, amounts, destination_db, mended, **options)
    with open_state(pipeline, {}) as state:
        replay_dead_letters(pipeline, pipeline.streams[0], state=state, run_id="replay", environ={})
        assert state.dead_letter_counts("shop", "things").waiting == 0
    query = "SELECT id, amount, day FROM raw.things WHERE id % 100 = 7 ORDER BY id"
    expected = amounts.fetch(
        "SELECT id, NULL::numeric, (made AT TIME ZONE 'UTC')::date FROM things WHERE id IN (707, 807, 907) ORDER BY id"
    )
    assert destination_db.fetch(query) == expected


def test_a_statement_that_does_not_fit_is_found_by_check_before_a_row_moves(
    tmp_path: Path, amounts: Database, destination_db: Database
) -> None:
    for query, check, message in (
        ("SELECT count(*) AS n FROM stream", "config", "count_star(…) is an aggregate: its result depends on more"),
        ("SELECT total FROM stream", "schema", "there is no column 'total' in the stream, which has: id, amount, made"),
    ):
        pipeline = computed(tmp_path, amounts, destination_db, query)
        errors = [finding for finding in check_pipeline(pipeline, {}) if finding.level == "error"]
        assert {finding.stage for finding in errors} == {Stage.TRANSFORM}, check
        assert all(message in finding.message for finding in errors)
        with pytest.raises(RapidbyteError, match="query: ") as caught:
            run(pipeline)
        assert caught.value.kind is Kind.CONFIG
        assert destination_db.fetch_value("SELECT to_regclass('raw.things')") is None


def test_a_cancelled_run_leaves_nothing_behind(tmp_path: Path, amounts: Database, destination_db: Database) -> None:
    query = "SELECT id, levenshtein(repeat('abcdefgh', 3000), repeat(amount, 9000)) AS n FROM stream"
    cancel = CancelToken()
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        cancel.cancel()

    timer = threading.Timer(2, press)
    timer.start()
    with pytest.raises(RunCancelled):
        run(computed(tmp_path, amounts, destination_db, query), cancel=cancel)
    assert time.monotonic() - pressed[0] < 2
    assert destination_db.fetch_value("SELECT to_regclass('raw.things')") is None
    for database in (amounts, destination_db):
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert database.fetch_value(others) == 0
