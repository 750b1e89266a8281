"""Every type of docs/types.md, with the ends of its range, against what PostgreSQL says of the same value."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import Kind, SourceError
from tests.integration.source.reading import read_stream
from tests.postgres_server import Database, TlsServer, unique_name

INT32_MAX, INT32_MIN = 2**31 - 1, -(2**31)
INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)
INT128_MAX, INT128_MIN = 2**127 - 1, -(2**127)
INT256_MAX, INT256_MIN = 2**255 - 1, -(2**255)


@dataclass(frozen=True)
class Case:
    """A type, literals of it, and what must lie in the Arrow column."""

    type: str
    arrow: pa.DataType
    values: dict[str, Any]
    extension: str | None = None

    def __str__(self) -> str:
        return self.type


def wrapped(micros: int) -> int:
    """Timestamps behind the year 294246 lie beyond i64 when counted from 1970, and wrap."""
    return (micros - INT64_MIN) % 2**64 + INT64_MIN


NATIVE = [
    Case("boolean", pa.bool_(), {"true": True, "false": False}),
    Case("smallint", pa.int16(), {"-32768": -32768, "0": 0, "32767": 32767}),
    Case("integer", pa.int32(), {str(INT32_MIN): INT32_MIN, "7": 7, str(INT32_MAX): INT32_MAX}),
    Case("bigint", pa.int64(), {str(INT64_MIN): INT64_MIN, "-1": -1, str(INT64_MAX): INT64_MAX}),
    Case(
        "real",
        pa.float32(),
        {
            "1.5": 1.5,
            "-0": -0.0,
            "Infinity": math.inf,
            "-Infinity": -math.inf,
            "NaN": math.nan,
            "3.4028235e38": 3.4028234663852886e38,
        },
    ),
    Case(
        "double precision",
        pa.float64(),
        {
            "1e-323": 1e-323,
            "-0": -0.0,
            "Infinity": math.inf,
            "-Infinity": -math.inf,
            "NaN": math.nan,
            "1.7976931348623157e308": 1.7976931348623157e308,
        },
    ),
    Case(
        "numeric(12,4)",
        pa.decimal128(12, 4),
        {
            "0": 0,
            "1.1234": 11234,
            "-1.001": -10010,
            "0.0001": 1,
            "99999999.9999": 999999999999,
            "-99999999.9999": -999999999999,
            "10000": 100000000,
            "NaN": INT128_MIN,
        },
    ),
    Case("numeric(3,3)", pa.decimal128(3, 3), {"0.001": 1, "-0.999": -999, "0": 0}),
    Case("numeric(5,0)", pa.decimal128(5, 0), {"10000": 10000, "-99999": -99999, "1": 1}),
    Case("numeric(7,1)", pa.decimal128(7, 1), {"123456.7": 1234567, "0.1": 1, "10": 100}),
    Case("numeric(18,2)", pa.decimal128(18, 2), {"9999999999999999.99": 10**18 - 1, "0.01": 1}),
    Case(
        "numeric(19,3)",
        pa.decimal128(19, 3),
        {"9999999999999999.999": 10**19 - 1, "-1234567890123456.789": -1234567890123456789},
    ),
    Case(
        "numeric(38,0)",
        pa.decimal128(38, 0),
        {str(10**38 - 1): 10**38 - 1, str(-(10**38) + 1): -(10**38) + 1, "1": 1, str(10**20): 10**20},
    ),
    Case("numeric(38,38)", pa.decimal128(38, 38), {"0." + "9" * 38: 10**38 - 1, "0." + "0" * 37 + "1": 1}),
    Case(
        "numeric(39,10)",
        pa.decimal256(39, 10),
        {"9" * 29 + "." + "9" * 10: 10**39 - 1, "-1.5": -15000000000, "NaN": INT256_MIN},
    ),
    Case("numeric(76,0)", pa.decimal256(76, 0), {"9" * 76: 10**76 - 1, "-" + "9" * 76: 1 - 10**76, "0": 0}),
    Case("numeric(76,76)", pa.decimal256(76, 76), {"0." + "0" * 75 + "1": 1}),
    Case(
        "text",
        pa.string(),
        {
            "": "",
            "plain": "plain",
            "Grüße, 世界 🌍": "Grüße, 世界 🌍",
            "line\nbreak": "line\nbreak",
            "x" * 5000: "x" * 5000,
            "NULL": "NULL",
        },
    ),
    Case("character varying(20)", pa.string(), {"": "", "trailing  ": "trailing  ", "äöü": "äöü"}),
    Case("character(5)", pa.string(), {"ab": "ab   ", "": "     "}),
    Case("name", pa.string(), {"pg_class": "pg_class", "n" * 63: "n" * 63}),
    Case("bytea", pa.binary(), {"": b"", "\\x00ff10": b"\x00\xff\x10", "\\x" + "61" * 100: b"a" * 100}),
    Case(
        "date",
        pa.date32(),
        {
            "1970-01-01": 0,
            "2000-01-01": 10957,
            "0001-01-01": -719162,
            "4714-11-24 BC": -2440588,
            "5874897-12-31": 2145042905,
            "infinity": INT32_MAX,
            "-infinity": INT32_MIN,
        },
    ),
    Case(
        "time without time zone",
        pa.time64("us"),
        {"00:00": 0, "23:59:59.999999": 86_399_999_999, "24:00:00": 86_400_000_000},
    ),
    Case(
        "timestamp without time zone",
        pa.timestamp("us"),
        {
            "1970-01-01 00:00:00": 0,
            "2000-01-01 00:00:00.000001": 946_684_800_000_001,
            "4714-11-24 00:00:00 BC": -210_866_803_200_000_000,
            "294276-12-31 23:59:59.999999": wrapped(9_223_371_331_199_999_999 + 946_684_800_000_000),
            "infinity": INT64_MAX,
            "-infinity": INT64_MIN,
        },
    ),
    Case(
        "timestamp with time zone",
        pa.timestamp("us", tz="UTC"),
        {
            "1970-01-01 00:00:00+00": 0,
            "2024-02-29 12:00:00.5+02": 1_709_200_800_500_000,
            "infinity": INT64_MAX,
            "-infinity": INT64_MIN,
        },
    ),
    Case(
        "interval",
        pa.month_day_nano_interval(),
        {
            "1 year 2 mons 3 days 04:05:06.000007": (14, 3, 14_706_000_007_000),
            "-1 mon": (-1, 0, 0),
            "-00:00:00.000001": (0, 0, -1000),
            "infinity": (INT32_MAX, INT32_MAX, INT64_MAX),
            "-infinity": (INT32_MIN, INT32_MIN, INT64_MIN),
        },
    ),
    Case(
        "uuid",
        pa.uuid(),
        {"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11": bytes.fromhex("a0eebc999c0b4ef8bb6d6bb9bd380a11")},
        "arrow.uuid",
    ),
    Case(
        "json",
        pa.json_(pa.string()),
        {' {"b": 1,  "a": [null]} ': ' {"b": 1,  "a": [null]} ', "null": "null"},
        "arrow.json",
    ),
    Case(
        "jsonb",
        pa.json_(pa.string()),
        {'{"b": 1, "a": [null, "ü"]}': '{"a": [null, "ü"], "b": 1}', "1.50": "1.50"},
        "arrow.json",
    ),
]

TEXT_FORM = [
    ("numeric", ["0", "1.50", "1e100", "NaN", "Infinity", "-Infinity", "0." + "1" * 200]),
    ("numeric(77,0)", ["7" * 77]),
    ("numeric(5,-2)", ["1234500"]),
    ("numeric(3,5)", ["0.00123"]),
    ("time with time zone", ["04:05:06.789+02", "24:00:00-15:59"]),
    ("inet", ["192.168.0.1", "192.168.0.1/24", "::1"]),
    ("cidr", ["10.0.0.0/8"]),
    ("macaddr", ["08:00:2b:01:02:03"]),
    ("money", ["$1,234.56", "-$0.01"]),
    ("bit(3)", ["101"]),
    ("bit varying", ["", "10101"]),
    ("point", ["(1.5,-2)"]),
    ("polygon", ["((0,0),(1,1),(1,0))"]),
    ("tsvector", ["'fat':2 'rat':3"]),
    ("int4range", ["[1,10)", "empty", "(,5)"]),
    ("tstzmultirange", ['{["2024-01-01 00:00:00+00","2024-01-02 00:00:00+00")}']),
    ("jsonpath", ['$."a"[*]']),
    ('"char"', ["a", ""]),
    ("oid", ["4294967295"]),
    ("pg_lsn", ["16/B374D848"]),
    ("int2vector", ["1 2 3"]),
    ("regclass", ["pg_class"]),
]


def assert_same(got: Any, expected: Any) -> None:
    if isinstance(expected, float):
        # Bit by bit: -0 is not 0, and NaN is itself.
        assert struct.pack("d", got) == struct.pack("d", expected) or (math.isnan(got) and math.isnan(expected))
    else:
        assert got == expected


@pytest.mark.parametrize("case", NATIVE, ids=str)
def test_a_native_type_arrives_with_every_value_in_its_place(source_db: Database, case: Case) -> None:
    source_db.execute(f"create table t (n serial, v {case.type})")
    if (
        "infinity" in case.values
        and case.type == "interval"
        and source_db.fetch("select 1 where current_setting('server_version_num')::int < 170000")
    ):
        pytest.skip("intervals are infinite since PostgreSQL 17")
    for literal in case.values:
        source_db.execute(f"insert into t (v) values (%s::{case.type})", [literal])
    source_db.execute("insert into t (v) values (null)")
    got = read_stream(source_db.config, "t")
    field = got.schema.field("v")
    assert field.type == case.arrow
    assert got.field_metadata("v")["rapidbyte:pg_type"] == case.type
    assert got.field_metadata("v")["rapidbyte:pg_kind"] == "base"
    for value, expected in zip(got.column("v"), [*case.values.values(), None], strict=True):
        assert_same(value, expected)


@pytest.mark.parametrize("case", NATIVE, ids=str)
def test_an_array_of_a_native_type_is_a_list_of_it(source_db: Database, case: Case) -> None:
    literals = [literal for literal in case.values if not (case.type == "interval" and "infinity" in literal)]
    expected = [case.values[literal] for literal in literals]
    source_db.execute(f"create table t (n serial, v {case.type}[])")
    with source_db.connect() as connection:
        for row in (literals, [*literals, None, *literals], [], [None], None):
            connection.execute(f"insert into t (v) values (%s::text[]::{case.type}[])".encode(), [row])
    got = read_stream(source_db.config, "t")
    assert pa.types.is_list(got.schema.field("v").type)
    storage = case.arrow.storage_type if isinstance(case.arrow, pa.BaseExtensionType) else case.arrow
    item = got.schema.field("v").type.value_type
    assert (item.storage_type if isinstance(item, pa.BaseExtensionType) else item) == storage
    for values, wanted in zip(got.column("v"), [expected, [*expected, None, *expected], [], [None], None], strict=True):
        if wanted is None:
            assert values is None
            continue
        for value, one in zip(values, wanted, strict=True):
            assert_same(value, one)


@pytest.mark.parametrize(("kind", "literals"), TEXT_FORM, ids=[kind for kind, _ in TEXT_FORM])
def test_any_other_type_arrives_as_the_text_that_makes_it_again(
    source_db: Database, kind: str, literals: list[str]
) -> None:
    assert_text_makes_it_again(source_db, kind, literals)


def test_xml_arrives_as_the_text_that_makes_it_again(tls_postgres: TlsServer) -> None:
    """On the system's server, an older one: PostgreSQL from pip was built without libxml."""
    name = unique_name("xml")
    tls_postgres.server.create_database(name)
    assert_text_makes_it_again(tls_postgres.database(name), "xml", ["<a>ü</a>", "text", "<!-- c --><a/><b/>"])


def assert_text_makes_it_again(database: Database, kind: str, literals: list[str]) -> None:
    database.execute(f"create table t (n serial, v {kind}, vs {kind}[])")
    with database.connect() as connection:
        for literal in [*literals, None]:
            insert = f"insert into t (v, vs) values (%s::text::{kind}, array[%s::text::{kind}])"
            connection.execute(insert.encode(), [literal, literal])
    got = read_stream(database.config, "t")
    assert got.schema.field("v").type == got.schema.field("vs").type == pa.string()
    assert got.field_metadata("v")["rapidbyte:pg_type"] == kind
    with database.connect() as connection:
        connection.execute(f"create table again (n serial, v {kind}, vs {kind}[])".encode())
        for v, vs in zip(got.column("v"), got.column("vs"), strict=True):
            insert = f"insert into again (v, vs) values (%s::text::{kind}, %s::text::{kind}[])"
            connection.execute(insert.encode(), [v, vs])
        [[differences]] = connection.execute(
            "select count(*) from t full join again using (n)"
            " where t.v::text is distinct from again.v::text or t.vs::text is distinct from again.vs::text"
        ).fetchall()
    assert differences == 0


def test_types_of_the_users_own_are_told_by_kind_and_qualified_name(source_db: Database) -> None:
    source_db.execute(
        """
        create schema shop;
        create type shop.mood as enum ('sad', 'o''k', 'ü');
        create domain shop.positive as integer check (value > 0);
        create domain shop.code as character(4);
        create type shop.pair as (a int, b text);
        create type shop.span as range (subtype = int4);
        create table shop.t (n int, mood shop.mood, moods shop.mood[], positive shop.positive, code shop.code,
                             codes shop.code[], pair shop.pair, span shop.span, spans shop.span_multirange);
        insert into shop.t values
            (1, 'o''k', array['sad', null, 'ü']::shop.mood[], 5, 'ab',
             array['x']::shop.code[], row(1, 'x, "y"'), '[1,3)', '{[1,3)}'),
            (2, null, null, null, null, null, null, null, null),
            (3, 'ü', '{}', 1, '', '{}', row(null, null), 'empty', '{}');
        """
    )
    got = read_stream(source_db.config, "t", schema="shop")
    told = {
        name: tuple(got.field_metadata(name).get(f"rapidbyte:pg_{key}") for key in ("type", "kind"))
        for name in got.schema.names
    }
    assert told == {
        "n": ("integer", "base"),
        "mood": ("shop.mood", "enum"),
        "moods": ("shop.mood[]", "base"),
        "positive": ("shop.positive", "domain"),
        "code": ("shop.code", "domain"),
        "codes": ("shop.code[]", "base"),
        "pair": ("shop.pair", "composite"),
        "span": ("shop.span", "range"),
        "spans": ("shop.span_multirange", "multirange"),
    }
    assert got.column("mood") == ["o'k", None, "ü"]
    assert got.column("moods") == [["sad", None, "ü"], None, []]
    item = got.schema.field("moods").type.value_field
    assert item.metadata[b"rapidbyte:pg_kind"] == b"enum"
    assert got.column("positive") == ["5", None, "1"]
    # A cast to text would lose the blanks, and a row of NULLs is not NULL.
    assert got.column("code") == ["ab  ", None, "    "]
    assert got.column("codes") == ['{"x   "}', None, "{}"]
    assert got.column("pair") == ['(1,"x, ""y""")', None, "(,)"]
    assert got.column("span") == ["[1,3)", None, "empty"]
    assert got.column("spans") == ["{[1,3)}", None, "{}"]


def test_arrays_that_no_list_can_hold_cross_as_text_and_the_others_stay_lists(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (n int, flat int[], deep int[], shifted text[], mixed numeric(4,1)[]);
        insert into t values
            (1, '{1}', '{{1,2},{3,4}}', '[0:1]={a,b}', '{1.5}'),
            (2, '{}', '{1}', null, '{{1.5},{NULL}}');
        """
    )
    got = read_stream(source_db.config, "t")
    assert got.column("flat") == [[1], []]
    assert got.column("deep") == ["{{1,2},{3,4}}", "{1}"]
    assert got.column("shifted") == ["[0:1]={a,b}", None]
    assert got.column("mixed") == ["{1.5}", "{{1.5},{NULL}}"]
    assert got.field_metadata("deep")["rapidbyte:pg_type"] == "integer[]"
    # Only what is read decides.
    got = read_stream(source_db.config, "t", filter="n = 2")
    assert got.column("deep") == [[1]]


@pytest.mark.parametrize(
    ("kind", "literal"),
    [
        ("interval", "3000000 hours"),
        ("interval[]", "{1 day,-3000000 hours}"),
        ("timestamp without time zone", "294247-01-10 04:00:54.775807"),
        ("timestamp with time zone", "294247-01-10 04:00:54.775808+00"),
    ],
)
def test_a_value_that_arrow_cannot_hold_is_a_data_error_that_names_the_column(
    source_db: Database, kind: str, literal: str
) -> None:
    source_db.execute(f"create table t (id int, lasted {kind}); insert into t values (1, '{literal}')")
    with pytest.raises(SourceError) as caught:
        read_stream(source_db.config, "t")
    assert caught.value.kind is Kind.DATA
    assert f"column lasted ({kind})" in caught.value.info.message
    assert "columns" in (caught.value.hint or "")


def test_the_timestamps_around_those_two_cross(source_db: Database) -> None:
    source_db.execute(
        "create table t (v timestamp);"
        "insert into t values ('294247-01-10 04:00:54.775806'), ('294247-01-10 04:00:54.775809')"
    )
    assert read_stream(source_db.config, "t").column("v") == [INT64_MAX - 1, INT64_MIN + 1]


def test_random_values_are_what_postgresql_says_they_are(source_db: Database) -> None:
    source_db.execute(
        """
        select setseed(0.42);
        create table t as select
            n,
            ((random() - 0.5) * 10 ^ (random() * 8))::numeric(12,4) as short,
            ((random()::numeric(20,18) - 0.5) * 10::numeric ^ (random() * 30)::int)::numeric(38,8) as long,
            ((random()::numeric(20,18) - 0.5) * 10::numeric ^ (random() * 55)::int)::numeric(70,12) as wide,
            timestamp '2000-01-01' + (random() - 0.5) * interval '3000 years' as at,
            date '2000-01-01' + ((random() - 0.5) * 1000000)::int as day,
            time '00:00' + random() * interval '24 hours' as clock,
            (random() - 0.5) * 10 ^ ((random() - 0.5) * 600) as wild,
            repeat(chr(32 + (random() * 5000)::int), (random() * 100)::int) as words
        from generate_series(1, 20000) as n
        """
    )
    got = read_stream(source_db.config, "t", max_batch_bytes=1024 * 1024)
    oracle = source_db.fetch(
        """
        select (short * 10^4::int)::numeric(40,0)::text, (long * 10::numeric^8)::numeric(40,0)::text,
               (wide * 10::numeric^12)::numeric(80,0)::text,
               (extract(epoch from at) * 1000000)::numeric(30,0)::text, day - date '1970-01-01',
               (extract(epoch from clock) * 1000000)::int8, wild, words
        from t order by n
        """
    )
    names = ["short", "long", "wide", "at", "day", "clock", "wild", "words"]
    for index, name in enumerate(names):
        expected = [row[index] for row in oracle]
        if index < 4:
            expected = [int(value) for value in expected]
        assert got.column(name) == expected, name
