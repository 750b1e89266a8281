"""Every type, with its special values, NULL, and as an array: PostgreSQL itself says what should have arrived."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, SchemaError
from rapidbyte_dagster.runtime import Connector
from tests.integration.destination.feed import Destination, column
from tests.postgres_server import Database, unique_name

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
INT32_MIN, INT64_MIN = -(2**31), -(2**63)
EPOCH_MICROS = 946_684_800_000_000


def raw(arrow_type: pa.DataType, values: list[bytes | None]) -> pa.Array[Any]:
    """An array from the bytes of its values: for what pyarrow's own constructors refuse."""
    width = next(len(value) for value in values if value is not None)
    bits = bytearray((len(values) + 7) // 8)
    for i, value in enumerate(values):
        if value is not None:
            bits[i // 8] |= 1 << (i % 8)
    data = b"".join(value if value is not None else bytes(width) for value in values)
    nulls = sum(value is None for value in values)
    validity = pa.py_buffer(bytes(bits)) if nulls else None
    return pa.Array.from_buffers(arrow_type, len(values), [validity, pa.py_buffer(data)], nulls)


def decimals(bits: int, precision: int, scale: int, values: list[int | None]) -> pa.Array[Any]:
    kind = pa.decimal128(precision, scale) if bits == 128 else pa.decimal256(precision, scale)
    return raw(kind, [None if v is None else v.to_bytes(bits // 8, "little", signed=True) for v in values])


def intervals(values: list[tuple[int, int, int] | None]) -> pa.Array[Any]:
    return raw(pa.month_day_nano_interval(), [None if v is None else struct.pack("<iiq", *v) for v in values])


def wrapped(micros: int) -> int:
    """`micros` since 2000 as they travel: since 1970, wrapped to 64 bits."""
    shifted = micros + EPOCH_MICROS
    return (shifted + 2**63) % 2**64 - 2**63


@dataclass(frozen=True)
class Case:
    pg_type: str
    array: pa.Array[Any]
    literals: list[str | None]
    """What PostgreSQL reads as the same values."""
    kind: str = "base"


CASES = [
    Case("boolean", pa.array([True, False, None]), ["t", "f", None]),
    Case("smallint", pa.array([0, -32768, 32767, None], pa.int16()), ["0", "-32768", "32767", None]),
    Case("integer", pa.array([0, INT32_MIN, INT32_MAX, None], pa.int32()), ["0", str(INT32_MIN), str(INT32_MAX), None]),
    Case("bigint", pa.array([1, INT64_MIN, INT64_MAX, None]), ["1", str(INT64_MIN), str(INT64_MAX), None]),
    Case(
        "real",
        pa.array([1.5, float("inf"), float("-inf"), float("nan"), -0.0, 1e-45], pa.float32()),
        ["1.5", "Infinity", "-Infinity", "NaN", "-0", "1e-45"],
    ),
    Case(
        "double precision",
        pa.array([0.1, float("inf"), float("nan"), 5e-324, None]),
        ["0.1", "Infinity", "NaN", "5e-324", None],
    ),
    Case(
        "numeric(12,4)",
        decimals(128, 12, 4, [15000, -1, 0, 10**12 - 1, None, -(2**127), -(2**127) + 1, 2**127 - 1][:6]),
        ["1.5", "-0.0001", "0", "99999999.9999", None, "NaN"],
    ),
    Case(
        "numeric(38,0)",
        decimals(128, 38, 0, [10**38 - 1, -(10**38) + 1, 10**20, 2**64, 10**4]),
        [str(10**38 - 1), str(-(10**38) + 1), str(10**20), str(2**64), "10000"],
    ),
    Case("numeric(38,38)", decimals(128, 38, 38, [1, 10**37]), ["0." + "0" * 37 + "1", "0.1"]),
    Case(
        "numeric(76,10)",
        decimals(256, 76, 10, [10**76 - 1, -1, -(2**255), None]),
        ["9" * 66 + "." + "9" * 10, "-0.0000000001", "NaN", None],
    ),
    Case(
        "text",
        pa.array(["", "a", "ünïcödé 🐘", "x" * 300, "\\N\t\n", None]),
        ["", "a", "ünïcödé 🐘", "x" * 300, "\\N\t\n", None],
    ),
    Case("character varying(5)", pa.array(["", "abcde"]), ["", "abcde"]),
    Case("character(5)", pa.array(["ab   ", "abcde"]), ["ab", "abcde"]),
    Case("name", pa.array(["some_name"]), ["some_name"]),
    Case("public.mood", pa.array(["happy", "sad 'n' blue", None]), ["happy", "sad 'n' blue", None], kind="enum"),
    Case("bytea", pa.array([b"", b"\x00\xff\x5c", None], pa.binary()), ["", "\\x00ff5c", None]),
    Case(
        "date",
        pa.array([0, 19782, -10957 - 2451507 + 10957 + 10957, INT32_MAX, INT32_MIN], pa.int32()).cast(pa.date32()),
        ["1970-01-01", "2024-02-29", None, "infinity", "-infinity"],
    ),
    Case(
        "timestamp without time zone",
        pa.array([0, 1709210096789012, INT64_MAX, INT64_MIN, wrapped(-211_813_488_000_000_000)]).cast(
            pa.timestamp("us")
        ),
        ["1970-01-01", "2024-02-29 12:34:56.789012", "infinity", "-infinity", "4714-11-24 00:00:00 BC"],
    ),
    Case(
        "timestamp with time zone",
        pa.array([0, wrapped(0x7FFFFF5BB3B29FFF), None]).cast(pa.timestamp("us", "UTC")),
        ["1970-01-01Z", "294276-12-31 23:59:59.999999Z", None],
    ),
    Case(
        "time without time zone",
        pa.array([0, 86_399_999_999, 86_400_000_000]).cast(pa.time64("us")),
        ["00:00", "23:59:59.999999", "24:00:00"],
    ),
    Case(
        "interval",
        intervals(
            [
                (14, -3, 14_706_000_007_000),
                (0, 0, -1000),
                None,
                (INT32_MAX, INT32_MAX, INT64_MAX),
                (INT32_MIN, INT32_MIN, INT64_MIN),
            ]
        ),
        ["1 year 2 mons -3 days 04:05:06.000007", "-00:00:00.000001", None, "infinity", "-infinity"],
    ),
    Case("uuid", pa.array([bytes(range(16)), None], pa.binary(16)), ["00010203-0405-0607-0809-0a0b0c0d0e0f", None]),
    Case("json", pa.array(['{"a" : 1}', None]), ['{"a" : 1}', None]),
    Case("jsonb", pa.array(['{"b": [1, 2.50]}', "null"]), ['{"b": [1, 2.50]}', "null"]),
    Case(
        "numeric",
        pa.array(["1.50", "NaN", "-Infinity", "1e-30", "1" * 200, "9" * 131072 + "." + "1" * 16383, None]),
        ["1.50", "NaN", "-Infinity", "1e-30", "1" * 200, "9" * 131072 + "." + "1" * 16383, None],
    ),
    # Text forms: the server turns them into values.
    Case("time with time zone", pa.array(["12:00:00+05:30"]), ["12:00:00+05:30"]),
    Case("inet", pa.array(["10.0.0.1/8", "::1", None]), ["10.0.0.1/8", "::1", None]),
    Case("int4range", pa.array(["[1,5)", "empty"]), ["[1,5)", "empty"], kind="range"),
    Case("int4multirange", pa.array(["{[1,5),[7,9)}"]), ["{[1,5),[7,9)}"], kind="multirange"),
    Case("tsvector", pa.array(["'a':1 'b':2"]), ["'a':1 'b':2"]),
    Case("point", pa.array(["(1.5,-2)"]), ["(1.5,-2)"]),
    Case("bit(3)", pa.array(["101"]), ["101"]),
    Case("bit varying(5)", pa.array(["101", ""]), ["101", ""]),
    Case("money", pa.array(["$1,234.50"]), ["1234.50"]),
    Case("cidr", pa.array(["10.0.0.0/8"]), ["10.0.0.0/8"]),
    Case('"char"', pa.array(["x"]), ["x"]),
    Case("pg_lsn", pa.array(["1/ABCDEF"]), ["1/ABCDEF"]),
    Case("public.pair", pa.array(['(1,"a b")', "(,)"]), ['(1,"a b")', "(,)"], kind="composite"),
    Case("public.positive", pa.array(["7", None]), ["7", None], kind="domain"),
    Case("integer[]", pa.array(["[0:1]={1,2}", "{{1,2},{3,4}}"]), ["[0:1]={1,2}", "{{1,2},{3,4}}"]),
]

ARRAYS = [
    Case("boolean[]", pa.array([[True, None], [], None]), ["{t,NULL}", "{}", None]),
    Case("smallint[]", pa.array([[1, -1]], pa.list_(pa.int16())), ["{1,-1}"]),
    Case("integer[]", pa.array([[1, None, -2], [], None], pa.list_(pa.int32())), ["{1,NULL,-2}", "{}", None]),
    Case("bigint[]", pa.array([[INT64_MIN]]), [f"{{{INT64_MIN}}}"]),
    Case("double precision[]", pa.array([[0.1, float("nan")]]), ["{0.1,NaN}"]),
    Case("text[]", pa.array([["a", "", None, 'q"\\,{}', "NULL"]]), ['{a,"",NULL,"q\\"\\\\,{}","NULL"}']),
    Case("character varying(3)[]", pa.array([["abc"]]), ["{abc}"]),
    Case("bytea[]", pa.array([[b"\x00", None]], pa.list_(pa.binary())), ['{"\\\\x00",NULL}']),
    Case("date[]", pa.array([[0, None]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())), ["{1970-01-01,NULL}"]),
    Case("jsonb[]", pa.array([['{"a": 1}', None]]), ['{"{\\"a\\": 1}",NULL}']),
    Case("uuid[]", pa.array([[bytes(16)]], pa.list_(pa.binary(16))), ["{00000000-0000-0000-0000-000000000000}"]),
    Case(
        "numeric(12,4)[]",
        pa.ListArray.from_arrays(pa.array([0, 2, 2], pa.int32()), decimals(128, 12, 4, [15000, None])),
        ["{1.5,NULL}", "{}"],
    ),
    Case(
        "interval[]",
        pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), intervals([(1, 2, 3000), None])),
        ['{"1 mon 2 days 00:00:00.000003",NULL}'],
    ),
]

TYPES = """
    create type public.mood as enum ('happy', 'sad ''n'' blue');
    create type public.pair as (n int, t text);
    create domain public.positive as int check (value > 0);
"""


def field_of(case: Case) -> pa.Field[Any]:
    return column("v", case.array.type, case.pg_type, kind=case.kind)


def expected_of(database: Database, case: Case) -> list[str | None]:
    rows = database.fetch(f"select v::{case.pg_type}::text from unnest(%s::text[]) as v", [case.literals])
    return [row[0] for row in rows]


def arrived(database: Database, table: str = "t") -> list[str | None]:
    return [row[0] for row in database.fetch(f"select v::text from {table} order by n")]


def table_of(case: Case) -> pa.Table:
    schema = pa.schema([column("n", pa.int64(), "bigint"), field_of(case)])
    return pa.table([pa.array(range(len(case.array))), case.array], schema=schema)


@pytest.fixture(scope="module")
def types_db(postgres: EmbeddedPostgres) -> Iterator[Database]:
    """One database for all types: each case has a table of its own."""
    name = unique_name("types")
    postgres.create_database(name)
    database = Database(postgres, name)
    database.execute(TYPES)
    yield database
    postgres.drop_database(name)


@pytest.mark.parametrize("case", [*CASES, *ARRAYS], ids=lambda case: f"{case.pg_type} as {case.array.type}")
def test_values_arrive_unchanged_in_a_column_of_the_same_type(
    dest_postgres: Connector, types_db: Database, case: Case
) -> None:
    destination = Destination(dest_postgres, types_db)
    table = unique_name("t")
    expected = expected_of(types_db, case)
    # The first day that PostgreSQL has is easier computed than written.
    if case.pg_type == "date":
        expected[2] = types_db.fetch_value("select (date '1970-01-01' - 2440550)::text")
    written = destination.write(table_of(case), table=table)
    assert written.result["columns"][1]["type"] == case.pg_type
    assert arrived(types_db, table) == expected
    destination.write(table_of(case), "append", table=table, sequence=2)
    assert arrived(types_db, table) == [value for value in expected for _ in range(2)]
    destination.write(table_of(case), "replace", table=table, sequence=3)
    assert arrived(types_db, table) == expected


def test_infinite_numerics_arrive_in_a_column_that_takes_them(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table t (n bigint, v numeric)")
    array = decimals(128, 12, 4, [2**127 - 1, -(2**127) + 1, -(2**127)])
    schema = pa.schema([column("n", pa.int64(), "bigint"), column("v", array.type, "numeric(12,4)")])
    destination.write(pa.table([pa.array([1, 2, 3]), array], schema=schema), table="t")
    assert arrived(destination_db) == ["Infinity", "-Infinity", "NaN"]


def test_random_numerics_arrive_as_the_server_reads_them(destination: Destination, destination_db: Database) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when it fails
    generator = random.Random(seed)

    def number() -> str:
        integer = "".join(generator.choices("0123456789", [5, *[1] * 9], k=generator.randrange(1, 40)))
        fraction = "".join(generator.choices("0123456789", [5, *[1] * 9], k=generator.randrange(0, 40)))
        sign = generator.choice(["", "-"])
        exponent = f"e{generator.randrange(-50, 50)}" if generator.random() < 0.2 else ""
        return sign + integer + ("." + fraction if fraction else "") + exponent

    numbers = [number() for _ in range(5000)]
    schema = pa.schema([column("v", pa.string(), "numeric"), column("raw", pa.string(), "text")])
    destination.write(pa.table([pa.array(numbers), pa.array(numbers)], schema=schema), table="t")
    assert destination_db.fetch("select raw, v::text from t where v::text <> (raw::numeric)::text") == []
    # Stored alike too: the same digits, neither more nor fewer.
    different = "select raw from t where numeric_send(v) <> numeric_send(raw::numeric)"
    assert destination_db.fetch(different) == []


@pytest.mark.parametrize(
    ("array", "metadata", "expected"),
    [
        (pa.array([True]), {}, "boolean"),
        (pa.array([1], pa.int16()), {}, "smallint"),
        (pa.array([1], pa.int32()), {}, "integer"),
        (pa.array([1]), {}, "bigint"),
        (pa.array([1.5], pa.float32()), {}, "real"),
        (pa.array([1.5]), {}, "double precision"),
        (decimals(128, 12, 4, [1]), {}, "numeric(12,4)"),
        (decimals(256, 70, 4, [1]), {}, "numeric(70,4)"),
        (pa.array(["a"]), {}, "text"),
        (pa.array(["{}"]), {"ARROW:extension:name": "arrow.json"}, "jsonb"),
        (pa.array([b"a"], pa.binary()), {}, "bytea"),
        (pa.array([1], pa.int32()).cast(pa.date32()), {}, "date"),
        (pa.array([1]).cast(pa.timestamp("us")), {}, "timestamp without time zone"),
        (pa.array([1]).cast(pa.timestamp("us", "UTC")), {}, "timestamp with time zone"),
        (pa.array([1]).cast(pa.time64("us")), {}, "time without time zone"),
        (intervals([(1, 1, 1000)]), {}, "interval"),
        (pa.array([bytes(16)], pa.binary(16)), {"ARROW:extension:name": "arrow.uuid"}, "uuid"),
        (pa.array([bytes(16)], pa.binary(16)), {}, "bytea"),
        (pa.array([bytes(3)], pa.binary(3)), {}, "bytea"),
        (pa.array([[1]], pa.list_(pa.int32())), {}, "integer[]"),
        (pa.array([["a"]]), {}, "text[]"),
    ],
    ids=str,
)
def test_a_column_without_a_postgresql_type_gets_the_arrow_type_s_own(
    destination: Destination, array: pa.Array[Any], metadata: dict[str | bytes, str | bytes], expected: str
) -> None:
    schema = pa.schema([pa.field("v", array.type, metadata=metadata or None)])
    table = pa.table([array], schema=schema)
    for mode in ("append", "replace", "append"):
        written = destination.write(table, mode, table="t")
        assert written.result["columns"] == [{"name": "v", "type": expected, "nullable": True}]


def test_a_missing_enum_becomes_text_and_the_log_says_so(destination: Destination, destination_db: Database) -> None:
    schema = pa.schema(
        [
            column("n", pa.int64(), "bigint"),
            column("v", pa.string(), "public.mood", kind="enum"),
            column("many", pa.list_(column("item", pa.string(), "public.mood", kind="enum")), "public.mood[]"),
        ]
    )
    table = pa.table([pa.array([1]), pa.array(["happy"]), pa.array([["sad", None]])], schema=schema)
    for mode in ("append", "append", "replace"):
        written = destination.write(table, mode, table="t")
        assert [c["type"] for c in written.result["columns"]] == ["bigint", "text", "text[]"]
        assert written.feed.heard("there is no enum type public.mood here") == written.result["created"]
    assert destination_db.fetch("select v, many from t") == [("happy", ["sad", None])]


def test_any_other_missing_type_is_an_error_that_says_what_to_do(
    destination: Destination, destination_db: Database
) -> None:
    schema = pa.schema([column("place", pa.string(), "public.geometry(Point,4326)")])
    with pytest.raises(SchemaError) as raised:
        destination.write(schema.empty_table(), table="t")
    message = str(raised.value)
    assert "place" in message
    assert "geometry" in message
    assert "create the type" in message
    assert destination_db.fetch_value("select to_regclass('t') is null") is True


@pytest.mark.parametrize(
    "pg_type", ["integer); drop table precious; --", "integer --", "text; select 1", "no such", ""]
)
def test_what_is_not_a_type_s_name_does_not_get_into_sql(
    destination: Destination, destination_db: Database, pg_type: str
) -> None:
    destination_db.execute("create table precious ()")
    schema = pa.schema([column("v", pa.int32(), pg_type), column("w", pa.int32(), "integer", nullable=False)])
    try:
        written = destination.write(schema.empty_table(), table="t")
    except SchemaError:
        pass
    else:
        assert [c["nullable"] for c in written.result["columns"]] == [True, False]
    assert destination_db.fetch_value("select count(*) from precious") == 0


@pytest.mark.parametrize(
    ("pg_type", "array", "what"),
    [
        ("timestamp without time zone", pa.array([wrapped(INT64_MAX)]).cast(pa.timestamp("us")), "range"),
        ("date", pa.array([INT32_MIN + 10957], pa.int32()).cast(pa.date32()), "range"),
        ("interval", intervals([(0, 0, 1)]), "microsecond"),
        ("text", pa.array(["a\0b"]), "0x00"),
        ("numeric", pa.array(["1x"]), "no number"),
        ("numeric", pa.array(["1e200000"]), "no number"),
        ("numeric(12,4)", decimals(128, 38, 4, [10**30]), "overflow"),
        ("numeric(12,4)", decimals(128, 12, 4, [2**127 - 1]), "infinite"),
        ("character varying(2)", pa.array(["abc"]), "too long"),
    ],
)
def test_a_value_that_the_type_does_not_hold_is_a_data_error(
    destination: Destination, destination_db: Database, pg_type: str, array: pa.Array[Any], what: str
) -> None:
    schema = pa.schema([column("fine", pa.int32(), "integer"), column("v", array.type, pg_type)])
    table = pa.table([pa.array([1], pa.int32()), array], schema=schema)
    with pytest.raises(DestinationError, match=what) as raised:
        destination.write(table, table="t")
    assert raised.value.kind is Kind.DATA
    assert "v" in str(raised.value)
    assert destination_db.fetch_value("select to_regclass('t') is null") is True


def test_batches_may_be_slices_and_have_nulls_anywhere(destination: Destination, destination_db: Database) -> None:
    schema = pa.schema(
        [
            column("n", pa.int64(), "bigint"),
            column("t", pa.string(), "text"),
            column("l", pa.list_(pa.int64()), "bigint[]"),
        ]
    )
    numbers = [None if i % 7 == 0 else i for i in range(1000)]
    whole = pa.table(
        [
            pa.array(numbers),
            pa.array([None if n is None else f"text {n}" for n in numbers]),
            pa.array([None if n is None else list(range(n % 5)) for n in numbers]),
        ],
        schema=schema,
    )
    pieces = [whole.slice(3, 10), whole.slice(500, 300), whole.slice(999, 1), whole.slice(7, 1), whole.slice(0, 0)]
    expected = [tuple(row.values()) for piece in pieces for row in piece.to_pylist()]
    destination.write(pa.concat_tables(pieces), table="t")
    assert sorted(destination_db.fetch("select * from t"), key=str) == sorted(expected, key=str)


def test_values_larger_than_a_frame_arrive(destination: Destination, destination_db: Database) -> None:
    sizes = [0, 1, 262_139, 262_144, 1_000_000, 5_000_000, 3]
    schema = pa.schema(
        [column("n", pa.int64(), "bigint"), column("v", pa.string(), "jsonb"), column("w", pa.binary(), "bytea")]
    )
    table = pa.table(
        [
            pa.array(sizes),
            pa.array([f'"{"x" * size}"' for size in sizes]),
            pa.array([b"\xab" * size for size in sizes], pa.binary()),
        ],
        schema=schema,
    )
    destination.write(table, table="t")
    rows = destination_db.fetch(
        "select n, length(v #>> '{}'), length(w), md5(w) = md5(decode(repeat('ab', n::int), 'hex')) from t"
    )
    assert rows == [(size, size, size, True) for size in sizes]


def test_text_forms_go_through_the_staging_table_in_chunks(destination: Destination, destination_db: Database) -> None:
    rows, size = 20_000, 10_000
    schema = pa.schema(
        [column("n", pa.int64(), "bigint"), column("v", pa.string(), "inet"), column("t", pa.string(), "text")]
    )
    batch = pa.table(
        [
            pa.array(range(500)),
            pa.array([f"10.0.{i // 256}.{i % 256}" for i in range(500)]),
            pa.array(["y" * size] * 500),
        ],
        schema=schema,
    )
    written = destination.write(pa.concat_tables([batch] * (rows // 500)), table="t")
    assert written.result["bytes"] > 2 * 64 * 1024 * 1024
    assert destination_db.fetch("select count(*), count(distinct v), min(length(t)) from t") == [(rows, 500, size)]


def test_a_list_of_lists_is_refused(destination: Destination) -> None:
    schema = pa.schema([pa.field("v", pa.list_(pa.list_(pa.int32())))])
    with pytest.raises(RapidbyteError, match="v") as raised:
        destination.write(schema.empty_table(), table="t")
    assert raised.value.kind is Kind.UNSUPPORTED
