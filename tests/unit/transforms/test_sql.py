"""What transform-sql makes of batches: values, types, rows that fail, limits and stops."""

from __future__ import annotations

import datetime as dt
import importlib.util
import math
import sys
import threading
import time
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import ConfigError, Kind, RapidbyteError, RunCancelled, Stage
from rapidbyte_dagster.runtime import End, LogLevel
from rapidbyte_dagster.transforms import duckdb_engine
from tests.sandbox.connectors import Recorder
from tests.unit.transforms.sql_runs import MEGABYTE, PG_TYPE, argument, items, message, run, transform

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no DuckDB 2 for Python 3.10")

MINUS_INFINITY, INFINITY = -(2**63), 2**63 - 1
INFINITE_SPAN: Any = (2**31 - 1, 2**31 - 1, 2**63 - 1)
WRAPPED = -(2**63) + 500_000
"""A timestamp of the year 294247."""


def numbers(*values: int | None) -> pa.RecordBatch:
    return pa.record_batch({"id": pa.array(values, pa.int32())})


def texts(*values: str | None) -> pa.RecordBatch:
    return pa.record_batch({"id": pa.array(range(len(values)), pa.int64()), "t": pa.array(values, pa.string())})


def decimals(*unscaled: int, precision: int = 38) -> Any:
    """Also of numbers that the type has no room for: what stands for NaN and infinities."""
    data = b"".join(each.to_bytes(16, "little", signed=True) for each in unscaled)
    return pa.Array.from_buffers(pa.decimal128(precision, 2), len(unscaled), [None, pa.py_buffer(data)])


def every_type() -> pa.RecordBatch:
    """A row of each value that is at the end of its type's range, and one of NULLs."""
    wide = (2**255 - 1).to_bytes(32, "little") + bytes(32)
    key = uuid.UUID(int=7).bytes
    columns: dict[str, Any] = {
        "b": pa.array([True, None]),
        "s": pa.array([-(2**15), None], pa.int16()),
        "i": pa.array([2**31 - 1, None], pa.int32()),
        "l": pa.array([2**63 - 1, None], pa.int64()),
        "f": pa.array([math.nan, None], pa.float32()),
        "d": pa.array([-0.0, None]),
        "n": decimals(-(2**127), 0),
        "w": pa.Array.from_buffers(pa.decimal256(76, 2), 2, [None, pa.py_buffer(wide)]),
        "t": pa.array(["naïve 🐘", None]),
        "y": pa.array([b"\0\xff", None]),
        "day": pa.array([-(2**31), None], pa.int32()).cast(pa.date32()),
        "at": pa.array([MINUS_INFINITY, None], pa.int64()).cast(pa.timestamp("us")),
        "tz": pa.array([WRAPPED, None], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "clock": pa.array([86_400_000_000, None], pa.int64()).cast(pa.time64("us")),
        "span": pa.array([INFINITE_SPAN, None], pa.month_day_nano_interval()),
        "u": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key, None], pa.binary(16))),
        "j": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a" : 1}', None])),
        "list": pa.array([["a", None], None], pa.list_(pa.string())),
        "uuids": pa.ListArray.from_arrays(
            [0, 1, 1], pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key], pa.binary(16)))
        ),
    }
    fields = [
        pa.field(name, values.type, metadata={PG_TYPE: f"type of {name}".encode()}) for name, values in columns.items()
    ]
    schema = pa.schema(fields, metadata={b"rapidbyte:primary_key": b'["i"]'})
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)


def test_columns_that_stay_as_they_are_keep_every_bit_and_all_that_is_told_of_them() -> None:
    given = every_type()
    ran = run("SELECT *, l IS NULL AS is_null FROM stream WHERE b OR true", given)
    assert ran.schema.equals(given.schema.append(pa.field("is_null", pa.bool_())), check_metadata=True)
    made = ran.table.combine_chunks().to_batches()[0]
    for name in given.schema.names:
        expected, found = given.column(name), made.column(name)
        assert [bytes(each) if each else None for each in found.buffers()] == [
            bytes(each) if each else None for each in expected.buffers()
        ] or found.equals(expected), name
    assert made.column("is_null").to_pylist() == [False, True]


def test_a_statement_that_changes_nothing_lets_messages_go_on_as_they_came() -> None:
    given = [every_type(), every_type()]
    ran = run("SELECT * FROM stream", given)
    assert ran.messages == [message(batch) for batch in given]
    assert (ran.rows, ran.counts) == (4, {"rejected": 0, "filtered": 0})


def test_a_key_stays_one_where_its_columns_stay_under_their_names() -> None:
    given = every_type()
    for query, kept in (
        ("SELECT i, t FROM stream", True),
        ("SELECT t FROM stream", False),
        ("SELECT i AS j, t FROM stream", False),
        ("SELECT i + 0 AS i FROM stream WHERE l < 5", False),
    ):
        assert (b"rapidbyte:primary_key" in (run(query, given).schema.metadata or {})) is kept, query


def test_rows_are_filtered_and_computed_in_their_order() -> None:
    ran = run("SELECT id * 2 AS double, id FROM stream WHERE id % 3 = 0", [numbers(*range(5000)), numbers(None, 3)])
    assert ran.table.to_pydict() == {
        "double": [2 * each for each in range(0, 5000, 3)] + [6],
        "id": [*range(0, 5000, 3), 3],
    }
    assert ran.counts == {"rejected": 0, "filtered": 5002 - 1668}
    assert ran.rows == 1668


def test_batches_of_which_nothing_stays_are_not_emitted() -> None:
    ran = run("SELECT id FROM stream WHERE id > 9", [numbers(1, 2), numbers(), numbers(10)])
    assert [batch.num_rows for batch in ran.batches] == [1]
    assert ran.counts["filtered"] == 2


@pytest.mark.parametrize(
    ("expression", "arrow_type", "value"),
    [
        ("id > 0", pa.bool_(), True),
        ("id::TINYINT", pa.int16(), 1),
        ("id::UTINYINT", pa.int16(), 1),
        ("id::USMALLINT", pa.int32(), 1),
        ("id::UINTEGER", pa.int64(), 1),
        ("id::UBIGINT", pa.decimal128(20, 0), Decimal(1)),
        ("id::FLOAT", pa.float32(), 1.0),
        ("id / 2", pa.float64(), 0.5),
        ("id * 1.5", pa.decimal128(12, 1), Decimal("1.5")),
        ("'a' || id", pa.string(), "a1"),
        ("'\\x00\\xff'::BLOB", pa.binary(), b"\0\xff"),
        ("DATE '2024-02-29' + id", pa.date32(), None),
        ("TIMESTAMP '2024-02-29 00:00:00' + INTERVAL 1 DAY", pa.timestamp("us"), None),
        ("TIMESTAMPTZ '2024-02-29 00:00:00+02'", pa.timestamp("us", "UTC"), None),
        ("TIME '24:00:00'", pa.time64("us"), None),
        ("INTERVAL 3 DAY", pa.month_day_nano_interval(), None),
        ("'00000000-0000-0000-0000-000000000007'::UUID", pa.uuid(), uuid.UUID(int=7)),
        ("'{}'::JSON", pa.json_(), "{}"),
        ("[id, NULL]", pa.list_(pa.field("item", pa.int32())), [1, None]),
        ("[id > 0]", pa.list_(pa.field("item", pa.bool_())), [True]),
        ("[id::UTINYINT]", pa.list_(pa.field("item", pa.int16())), [1]),
        ("CASE WHEN id > 5 THEN [true] END", pa.list_(pa.field("item", pa.bool_())), None),
    ],
)
def test_what_is_computed_has_a_type_of_the_stream(expression: str, arrow_type: pa.DataType, value: Any) -> None:
    ran = run(f"SELECT {expression} AS x FROM stream", numbers(1))
    assert ran.schema.field("x") == pa.field("x", arrow_type)
    if value is not None:
        assert ran.table["x"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("NULL", "NULL, of no type"),
        ("id::HUGEINT", "hugeint"),
        ("{'a': id}", "struct"),
        ("MAP {'a': id}", "map"),
        ("[[id]]", "list"),
        ("[id, 1]::INTEGER[2]", "fixed_size_list"),
        ("'a'::ENUM ('a', 'b')", "dictionary"),
        ("TIMESTAMP_NS '2024-02-29'", "timestamp\\[ns\\]"),
        ("TIMETZ '10:00:00+01'", "time_tz"),
        ("'1'::BIT", "bit"),
        ("[TIMESTAMP_S '2024-02-29']", "list"),
        ("[INTERVAL 1 DAY]", "list"),
    ],
)
def test_a_type_that_a_stream_does_not_have_is_refused_before_a_row(expression: str, shown: str) -> None:
    with pytest.raises(ConfigError, match=f"query: column 'x' would be {shown}") as caught:
        run(f"SELECT {expression} AS x FROM stream", numbers(1))
    assert "CAST" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT upper(i, 1) AS x FROM stream", "No function matches"),
        ("SELECT t + 1 AS x FROM stream", "No function matches"),
        ("SELECT w + 1 AS x FROM stream", "column 'w' is type of w, which DuckDB has no type for"),
        ("SELECT nothing FROM stream", "there is no column 'nothing' in the stream, which has: b, s, i"),
    ],
)
def test_a_statement_that_does_not_fit_the_columns_is_refused_before_a_row(query: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        run(query, every_type())
    assert (caught.value.info.stage, caught.value.kind) == (Stage.TRANSFORM, Kind.CONFIG)


def test_values_at_the_ends_of_their_ranges_are_computed_with_as_what_they_are() -> None:
    days = pa.array([-(2**31), 2**31 - 1, 0, None], pa.int32()).cast(pa.date32())
    instants = pa.array([MINUS_INFINITY, INFINITY, 0, None], pa.int64()).cast(pa.timestamp("us", "UTC"))
    given = pa.record_batch({"day": days, "t": instants})
    query = "SELECT day::VARCHAR AS day, t < '2024-01-01' AS past, t AS kept, coalesce(t, t) AS t FROM stream"
    made = run(query, given).table
    assert made["day"].to_pylist() == ["-infinity", "infinity", "1970-01-01", None]
    assert made["past"].to_pylist() == [True, False, True, None]
    assert made["kept"].cast(pa.int64()).to_pylist() == [MINUS_INFINITY, INFINITY, 0, None]
    assert made["t"].cast(pa.int64()).to_pylist() == [MINUS_INFINITY, INFINITY, 0, None]
    minus = run("SELECT '-infinity'::DATE AS d FROM stream", given).table["d"].cast(pa.int32()).to_pylist()
    assert minus == [-(2**31)] * 4


def test_a_value_that_duckdb_does_not_have_fails_its_row_only_where_it_is_computed_with() -> None:
    given = pa.record_batch(
        {
            "n": decimals(-(2**127), -(2**127) + 1, 2**127 - 1, 150),
            "tz": pa.array([0, WRAPPED, 0, 0], pa.int64()).cast(pa.timestamp("us", "UTC")),
            "days": pa.array([[0], [0], [0], [0, None]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
        }
    )
    assert run("SELECT n FROM stream", given).rows == 4
    ran = run("SELECT n * 2 AS n, tz FROM stream", given, "dlq")
    assert ran.table["n"].to_pylist() == [Decimal("3.00")]
    assert [letter["record"]["n"] for letter in ran.letters] == ["NaN", "-Infinity", "Infinity"]
    assert {letter["category"] for letter in ran.letters} == {"out_of_range"}
    [letter] = run("SELECT n FROM stream WHERE year(tz) > 0", given, "dlq").letters
    assert letter["record"]["tz"] == "294247-01-10 04:00:55.275808+00"
    odd = pa.record_batch({"l": pa.array([[0], [0, -(2**31)], None], pa.list_(pa.int32())).cast(pa.list_(pa.date32()))})
    assert run("SELECT len(l) AS n FROM stream", odd, "dlq").table["n"].to_pylist() == [1, None]


def test_a_timestamp_before_the_first_one_is_no_wrapped_one() -> None:
    ran = run("SELECT (TIMESTAMP '2024-01-01' - to_years(id)) AS at FROM stream", numbers(1, 7000, 2), "dlq")
    assert [str(each)[:4] for each in ran.table["at"].to_pylist()] == ["2023", "2022"]
    [letter] = ran.letters
    assert (letter["record"], letter["category"], letter["column"]) == ({"id": 7000}, "out_of_range", "at")


FAILING = "SELECT id, t::INTEGER AS n, 10 // (id - 3) AS q FROM stream WHERE t <> 'gone'"
ROWS = texts("1", "x", "gone", "4", None, "y", "0")
REASON = "column n: CAST(t AS INTEGER) fails"


def test_rows_on_which_the_statement_fails_are_dead_letters_with_all_their_reasons() -> None:
    both = texts("1", "x", "gone", "z", None, "y", "0")
    ran = run(FAILING, both, "dlq")
    assert ran.table.to_pydict() == {"id": [0, 6], "n": [1, 0], "q": [-3, 3]}
    assert ran.counts == {"rejected": 3, "filtered": 2}
    found = [
        (letter["record"]["id"], letter["message"], letter["category"], letter["column"]) for letter in ran.letters
    ]
    assert found == [
        (1, REASON, "cast", "n"),
        (3, f"{REASON}; column q: (10 // (id - 3)) fails", "other", None),
        (5, REASON, "cast", "n"),
    ]
    assert ran.letters[0] == {
        "record": {"id": 1, "t": "x"},
        "types": {"id": "bigint", "t": "text"},
        "message": REASON,
        "category": "cast",
        "sqlstate": None,
        "constraint": None,
        "column": "n",
    }


def test_the_first_row_that_fails_is_told_by_its_number_and_none_of_its_values() -> None:
    with pytest.raises(RapidbyteError) as caught:
        run(FAILING, [texts("1", "2"), texts("4", "secret", "x")])
    assert (caught.value.kind, caught.value.info.stage) == (Kind.DATA, Stage.TRANSFORM)
    assert caught.value.info.message == f"row 4 of the run: {REASON}"
    assert "secret" not in str(caught.value)


def test_rows_that_are_skipped_are_counted_and_told_of_once() -> None:
    ran = run(FAILING, [ROWS, ROWS], "skip")
    assert ran.counts == {"rejected": 6, "filtered": 4}
    assert ran.host.lines == [(LogLevel.WARNING, f"6 rows were left out; the first: {REASON}")]
    assert ran.letters == []


def test_conditions_are_asked_from_left_to_right() -> None:
    """Whether a row fails is not for DuckDB's plan to say."""
    guarded = "t ~ '^[0-9]+$' AND t::INTEGER > 0"
    for condition, rejected in (
        (guarded, 0),
        (f"({guarded}) OR false", 0),
        ("NOT t ~ '^[0-9]+$' OR t::INTEGER > 0", 0),
        ("t::INTEGER > 0 AND t ~ '^[0-9]+$'", 2),
        ("id < 100 AND t::INTEGER > 0", 2),
    ):
        ran = run(f"SELECT id FROM stream WHERE {condition}", texts("1", "x", "0", "y"), "skip")
        assert ran.counts["rejected"] == rejected, condition
    [one, _] = run("SELECT id FROM stream WHERE t::INTEGER > 0", texts("x", "1", "y"), "dlq").letters
    assert (one["message"], one["category"], one["column"]) == ("WHERE: the condition fails", "other", None)


@pytest.mark.parametrize(
    ("expression", "fails"),
    [
        ("id + 2147483647", [1, 2, 3]),
        ("1 // id", [0]),
        ("1 / id", [0]),
        ("ln(id)", [0]),
        ("sqrt(id - 1)", [0]),
        ("make_date(2024, id, 30)", [0, 2]),
        ("id::DECIMAL(1, 0) * 4", []),
        ("(id * 100)::UTINYINT", [3]),
        ("chr(id * 1000000)", [2, 3]),
        ("strptime('2024-0' || id, '%Y-%m')", [0]),
        ("timezone('zone ' || id, TIMESTAMP '2024-01-01')", [0, 1, 2, 3]),
        ("INTERVAL 1 HOUR * (id * 1000000)", [3]),
        ("list_transform(['1', 'x'][1:id], lambda t: t::INTEGER)", [2, 3]),
    ],
)
def test_every_row_that_fails_is_found_and_no_other(expression: str, fails: list[int]) -> None:
    ran = run(f"SELECT id, {expression} AS x FROM stream", numbers(0, 1, 2, 3), "dlq")
    assert [letter["record"]["id"] for letter in ran.letters] == fails
    assert ran.table["id"].to_pylist() == [each for each in range(4) if each not in fails]


def test_many_rows_that_fail_are_found_at_once() -> None:
    values = ["x" if each % 3 else str(each) for each in range(30_000)]
    started = time.monotonic()
    ran = run("SELECT t::INTEGER AS n FROM stream", texts(*values), "dlq")
    assert (ran.rows, len(ran.letters)) == (10_000, 20_000)
    assert ran.table["n"].to_pylist() == list(range(0, 30_000, 3))
    assert time.monotonic() - started < 30, "a statement for each of them would take minutes"


def test_letters_come_a_few_megabytes_at_a_time_before_their_barrier() -> None:
    ran = run("SELECT t::INTEGER AS n FROM stream", texts(*["x" * MEGABYTE] * 10), "dlq")
    told = [len(payload["letters"]) for name, payload in ran.host.calls if name == "emit_dlq_batch"]
    assert sum(told) == 10
    assert max(told) <= 4
    assert ran.host.calls[-1] == ("barrier", {"sequence": 1, "rejected": 10, "filtered": 0})


def test_batches_that_have_grown_are_emitted_in_pieces() -> None:
    ran = run("SELECT id, repeat(t, 1000) AS t FROM stream", texts(*["x"] * 1000), max_batch_bytes=100_000)
    assert ran.table["id"].to_pylist() == list(range(1000))
    assert max(len(each) for each in ran.messages) < 120_000


def test_new_columns_are_held_against_the_statement_again() -> None:
    host = Recorder(items=[*items(numbers(1).schema, numbers(1), texts("a").schema, texts("a", "b")), End()])
    with transform(host) as worker:
        worker.call("rb_open", {"config": {"query": "SELECT *, id + 1 AS next FROM stream"}})
        assert worker.call("rb_transform", argument()) == {"rows": 3}
    shown = [pa.ipc.read_message(pa.py_buffer(each)).type for each in host.emitted]
    assert shown == ["schema", "record batch", "schema", "record batch", "record batch"]


def test_only_the_columns_can_be_asked_for() -> None:
    host = Recorder(items=[*items(texts("a").schema), End()])
    with transform(host) as worker:
        worker.call("rb_open", {"config": {"query": "SELECT id FROM stream"}})
        assert worker.call("rb_check", {"streams": [{"name": "users"}]}) == {"findings": []}
        assert worker.call("rb_transform", argument()) == {"rows": 0}
    [schema] = host.emitted
    assert pa.ipc.read_schema(pa.py_buffer(schema)).names == ["id"]


SLOW = "SELECT levenshtein(repeat(t, 3000), repeat(t, 2999)) AS x FROM stream"
"""A second for a row, and more: too long to wait for its end."""


def test_a_statement_that_computes_is_stopped_within_half_a_second() -> None:
    host = Recorder(items=[*items(texts("a").schema, texts(*["abcdefgh"] * 40))])
    with transform(host) as worker:
        worker.call("rb_open", {"config": {"query": SLOW}})
        stopped_at: list[float] = []

        def stop() -> None:
            stopped_at.append(time.monotonic())
            worker.cancel()

        timer = threading.Timer(0.5, stop)
        timer.start()
        with pytest.raises(RunCancelled):
            worker.call("rb_transform", argument())
        assert time.monotonic() - stopped_at[0] < 0.6
        with pytest.raises(RunCancelled):
            worker.call("rb_check", {"streams": []})


def test_a_time_limit_names_the_key_that_sets_it() -> None:
    host = Recorder(items=[*items(texts("a").schema, texts(*["abcdefgh"] * 40))])
    with transform(host, timeout_seconds=0.5) as worker:
        worker.call("rb_open", {"config": {"query": SLOW}})
        with pytest.raises(RapidbyteError, match=r"ran past its limit of 0\.5 s") as caught:
            worker.call("rb_transform", argument())
    assert caught.value.kind is Kind.TIMEOUT
    assert "transforms[0].limits.timeout_seconds" in str(caught.value.hint)


def test_a_statement_that_needs_more_memory_than_it_may_have_fails_as_that() -> None:
    for limit, times in ((16, 4_000_000), (1, 100_000)):
        with pytest.raises(RapidbyteError, match=f"used up its memory limit of {limit}mb") as caught:
            run(f"SELECT repeat(t, {times}) AS x FROM stream", texts("abcdefgh"), max_memory=limit * MEGABYTE)
        assert caught.value.kind is Kind.RESOURCE
        assert "resources.max_memory" in str(caught.value.hint)


def test_a_statement_that_makes_much_of_little_gets_few_rows_at_once() -> None:
    ran = run("SELECT id, repeat(t, 500000) AS x FROM stream", texts(*["abcdefgh"] * 40), max_memory=32 * MEGABYTE)
    assert ran.table["id"].to_pylist() == list(range(40))
    assert max(len(each) for each in ran.messages) < 20 * MEGABYTE


UTC = dt.timezone.utc
REPLAYED: dict[str, tuple[str, Any]] = {
    "boolean": ("true", True),
    "smallint": ("-7", -7),
    "bigint": ("9223372036854775807", 2**63 - 1),
    "double precision": ("1e+20", 1e20),
    "numeric(12,4)": ("12.5000", Decimal("12.5000")),
    "numeric": ("1.50", "1.50"),
    "text": ("a", "a"),
    "date": ("2024-02-29", dt.date(2024, 2, 29)),
    "timestamp(3) without time zone": ("2024-02-29 01:02:03.004", dt.datetime(2024, 2, 29, 1, 2, 3, 4000)),
    "timestamp with time zone": ("2024-02-29 01:02:03+00", dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC)),
    "time without time zone": ("01:02:03.4", dt.time(1, 2, 3, 400_000)),
    "uuid": (str(uuid.UUID(int=7)), uuid.UUID(int=7)),
    "jsonb": ('{"a": 1}', '{"a": 1}'),
}  # fmt: skip
"""A type, a text of it, and its value."""


def replayed(type_name: str, *values: str | None) -> pa.RecordBatch:
    field = pa.field("v", pa.string(), nullable=False, metadata={PG_TYPE: type_name.encode()})
    return pa.RecordBatch.from_arrays([pa.array(values, pa.string())], schema=pa.schema([field]))


@pytest.mark.parametrize("type_name", REPLAYED)
def test_texts_of_a_replay_are_computed_with_as_values_of_their_types(type_name: str) -> None:
    text, value = REPLAYED[type_name]
    ran = run("SELECT v, coalesce(v, v) AS c FROM stream", replayed(type_name, text, None), "dlq", replay=True)
    assert ran.table["v"].to_pylist() == [text, None]
    assert ran.table["c"].to_pylist() == [value, None]
    assert not any(field.nullable for field in ran.schema), "no destination is to drop a NOT NULL for it"


def test_a_text_of_a_replay_that_is_no_value_of_its_type_stays_a_dead_letter() -> None:
    [letter] = run("SELECT v + 1 AS n FROM stream", replayed("integer", "1", "x"), "dlq", replay=True).letters
    assert (letter["message"], letter["category"]) == ("column n: CAST(v AS INTEGER) fails", "cast")


@pytest.mark.parametrize("type_name", ["interval", "bytea", "text[]", "numeric(70,2)"])
def test_texts_that_duckdb_would_read_otherwise_are_not_computed_with_in_a_replay(type_name: str) -> None:
    assert run("SELECT v FROM stream", replayed(type_name, "x"), replay=True).rows == 1
    with pytest.raises(RapidbyteError, match="is not read from the text that a dead letter has") as caught:
        run("SELECT v IS NULL AS n FROM stream", replayed(type_name, "x"), replay=True)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_without_duckdb_or_with_another_one_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened() -> str:
        with transform(Recorder()) as worker, pytest.raises(ConfigError) as caught:
            worker.call("rb_open", {"config": {"query": "SELECT id FROM stream"}})
        assert caught.value.info.stage is Stage.TRANSFORM
        return str(caught.value)

    monkeypatch.setattr(duckdb_engine, "VERSION", "1.0.0")
    assert "needs DuckDB 1.0.0, and 2." in opened()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    text = opened()
    assert "transform-sql needs DuckDB, which is not installed" in text
    assert "pip install 'rapidbyte-dagster[sql]'" in text
