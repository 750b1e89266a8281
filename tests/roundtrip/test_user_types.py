"""Types of the users' own: enums, domains, composites, ranges, and arrays of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.errors import DestinationError, Kind, SchemaError
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database, unique_name
from tests.roundtrip.builtin_types import Case
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.movement import Pair, assert_moves
from tests.roundtrip.tables import SHEETS
from tests.roundtrip.ways import assert_is_followed

TYPES = """
    CREATE SCHEMA "Odd ""Schema"", it's -- no %s";
    CREATE SCHEMA shop;
    CREATE TYPE mood AS ENUM ('sad', 'it''s "ok", {fine}\\', 'NULL', '', '世界🌍');
    CREATE TYPE "Odd ""Schema"", it's -- no %s"."My [] Type" AS ENUM ('a', 'b');
    CREATE TYPE shop."integer" AS ENUM ('one', 'two');
    CREATE DOMAIN positive AS integer CHECK (value > 0);
    CREATE DOMAIN very_positive AS positive CHECK (value > 10);
    CREATE DOMAIN code AS character(4);
    CREATE DOMAIN short AS character varying(5);
    CREATE DOMAIN any_text AS text;
    CREATE DOMAIN price AS numeric(12,2);
    CREATE DOMAIN amount AS numeric;
    CREATE DOMAIN flags AS bit(3);
    CREATE DOMAIN letter AS "char";
    CREATE DOMAIN relation AS regclass;
    CREATE DOMAIN moods AS mood[];
    CREATE DOMAIN codes AS character(3)[] CHECK (array_length(value, 1) < 10);
    CREATE DOMAIN document AS jsonb;
    CREATE DOMAIN moment AS timestamptz(3);
    CREATE DOMAIN span AS interval;
    CREATE DOMAIN shop."domain's "" domain" AS code;
    CREATE TYPE pair AS (n integer, t text);
    CREATE TYPE nested AS (p pair, ps pair[], m mood, c character(3), f float8, at timestamptz, b bytea, r int4range);
    CREATE TYPE wide AS ("odd "" column" any_text, amount numeric(10,4), doc document);
    CREATE TYPE nothing AS ();
    CREATE DOMAIN pair_domain AS pair CHECK ((value).n IS DISTINCT FROM 0);
    CREATE TYPE float_span AS RANGE (subtype = float8, subtype_diff = float8mi);
    CREATE TYPE text_span AS RANGE (subtype = text, collation = "C", multirange_type_name = text_spans);
    CREATE TYPE pair_span AS RANGE (subtype = pair);
    CREATE TABLE row_type (a integer, gone integer, b mood);
    ALTER TABLE row_type DROP COLUMN gone;
"""
ODD = """"Odd ""Schema"", it's -- no %s"."My [] Type" """.strip()

CASES = (
    Case("mood", ("sad", 'it\'s "ok", {fine}\\', "NULL", "", "世界🌍")),
    Case(ODD, ("a", "b")),
    Case('shop."integer"', ("one", "two")),
    Case("positive", ("1", "2147483647")),
    Case("very_positive", ("11",)),
    Case("code", ("", "a", "ab  ", "äöü🌍")),
    Case("short", ("", "a    ", "12345")),
    Case("any_text", ("", "NULL", " x ", "it's \\ \"", "line\nbreak", "x" * 3000)),
    Case("price", ("0", "-0.01", "9999999999.99", "NaN")),
    Case("amount", ("NaN", "Infinity", "-Infinity", "1.500", "1e50", "0.00")),
    Case("flags", ("101", "000")),
    Case("letter", ("", "a", "\\377")),
    Case("relation", ("-", "pg_catalog.pg_class", "4294967290")),
    Case("moods", ("{}", "{sad,NULL}", '[0:1]={"世界🌍","NULL"}', "{{sad},{sad}}")),
    Case("codes", ("{}", '{ab,"",NULL}')),
    Case("document", ("null", '{"a": "\\n"}', '"NULL"')),
    Case("moment", ("infinity", "-infinity", "4714-11-24 00:00:00 BC", "2024-01-01 12:00:00.123+05")),
    Case("span", ("1 mon -2 days 00:00:00.000001", "infinity", "9223372036 seconds")),
    Case("""shop."domain's "" domain" """.strip(), ("a", "", "'\"")),
    Case("pair", ("(,)", '(1,"x, ""y"" \\\\ (z)")', '(-1,"")', "(0,NULL)", '(2147483647," \n")')),
    Case(
        "nested",
        (
            "(,,,,,,,)",
            '("(1,""a b"")","{""(1,\\\\""x\\\\"")"",NULL,""(,)""}",sad,a,-0,infinity,"\\\\x00ff","[1,5)")',
            '("(,)",{},"世界🌍","",NaN,"294276-12-31 23:59:59.999999+00","\\\\x",empty)',
        ),
    ),
    Case("wide", ("(,,)", '("a ""b""",1.5000,"{""a"": 1}")', '("",NaN,null)')),
    Case("nothing", ("()",)),
    Case("pair_domain", ("(,)", "(1,a)")),
    Case("float_span", ("empty", "[-Infinity,NaN]", "[5e-324,0.1)", "(,)")),
    Case("text_span", ("empty", '["",a)', '["a, ""b"" [(","世界🌍"]', "(,)")),
    Case("pair_span", ("empty", '["(1,a)","(2,""b c"")")')),
    Case("text_spans", ("{}", '{["",a),[b,"c, {d}"]}', "{(,)}")),
    Case("row_type", ("(,)", "(1,sad)", '(2,"it\'s ""ok"", {fine}\\\\")')),
)


@pytest.fixture(scope="module")
def typed_pair(pair: Pair) -> Pair:
    """Both know the types; under other numbers, because the destination has seen more before."""
    pair.destination.execute(
        "".join(f"CREATE TYPE earlier{i} AS (a integer); CREATE DOMAIN d{i} AS text;" for i in range(5))
    )
    for database in (pair.source, pair.destination):
        database.execute(TYPES)
    return pair


@pytest.mark.parametrize("sheet", SHEETS)
def test_every_value_of_every_type_arrives(tmp_path: Path, typed_pair: Pair, sheet: str) -> None:
    table = f"users' {sheet}"
    SHEETS[sheet](CASES).create(typed_pair.source, table)
    assert_moves(tmp_path, typed_pair, table)


@pytest.mark.parametrize(
    "sheet", ["scalars", *(pytest.param(n, marks=pytest.mark.full) for n in SHEETS if n != "scalars")]
)
def test_every_value_of_every_type_is_followed(tmp_path: Path, typed_pair: Pair, sheet: str) -> None:
    table = f"users' {sheet}, followed"
    SHEETS[sheet](CASES).create(typed_pair.source, table)
    assert_is_followed(tmp_path, typed_pair, table)


def test_the_two_databases_number_their_types_differently(typed_pair: Pair) -> None:
    """Else this module would prove less than it says."""
    numbers = [
        database.fetch_value("SELECT 'mood'::regtype::oid") for database in (typed_pair.source, typed_pair.destination)
    ]
    assert numbers[0] != numbers[1]


KEYS = {
    "enum": ("mood", ["sad", "NULL"]),
    "uuid": ("uuid", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
    "inet": ("inet", ["::1", "10.0.0.1/8"]),
    "range": ("int4range", ["empty", "[1,2)"]),
    "domain": ("code", ["a", "b"]),
    "composite": ("pair", ["(1,a)", "(,)"]),
    "numeric": ("numeric", ["NaN", "1.50"]),
    "array": ("text[]", ["{}", "{a,NULL}"]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_primary_key_of_such_a_type_arrives_in_its_order(tmp_path: Path, typed_pair: Pair, kind: str) -> None:
    type_name, literals = KEYS[kind]
    table = f"key of {kind}"
    typed_pair.source.execute(
        f'CREATE TABLE "{table}" (b integer, a {type_name}, "c ""d" text, PRIMARY KEY ("c ""d", a))'
    )
    with typed_pair.source.connect() as connection:
        for literal in literals:
            connection.execute(f"INSERT INTO \"{table}\" VALUES (1, %s::text::{type_name}, 'x')".encode(), [literal])
    result = assert_moves(tmp_path, typed_pair, table)
    assert result.primary_key == ('c "d', "a")


def test_an_enum_that_the_destination_does_not_know_arrives_as_text(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(
        """
        CREATE TYPE mood AS ENUM ('sad', 'o''k');
        CREATE TABLE t (n int PRIMARY KEY, one mood, many mood[]);
        INSERT INTO t VALUES (1, 'sad', '{sad,NULL}'), (2, 'o''k', '{}'), (3, NULL, NULL);
        """
    )
    for mode in ("append", "replace"):
        run(make_pipeline(tmp_path, source_db, destination_db, ["t"], write_mode=mode, name=mode))
        assert destination_db.fetch(
            "SELECT pg_typeof(one)::text, one, pg_typeof(many)::text, many FROM raw.t ORDER BY n"
        ) == [
            ("text", "sad", "text[]", ["sad", None]),
            ("text", "o'k", "text[]", []),
            ("text", None, "text[]", None),
        ]
        destination_db.execute("DROP TABLE raw.t")


@pytest.mark.parametrize(
    "definition",
    ["DOMAIN {} AS integer", "TYPE {} AS (a integer)", "TYPE {} AS RANGE (subtype = float8)"],
)
def test_any_other_type_that_the_destination_does_not_know_is_named(
    tmp_path: Path, pair: Pair, definition: str
) -> None:
    name = unique_name("unknown")
    pair.source.execute(f"CREATE {definition.format(name)}; CREATE TABLE of_{name} (n int, strange {name})")
    with pytest.raises(SchemaError, match=rf"strange.*public\.{name}"):
        run(make_pipeline(tmp_path, pair.source, pair.destination, [f"of_{name}"]))
    assert pair.destination.fetch_value("SELECT to_regclass(%s) IS NULL", [f"raw.of_{name}"])


DIFFERENT_DEFINITIONS = {
    "a domain over a shorter varchar": ("DOMAIN {} AS varchar(5)", "DOMAIN {} AS varchar(3)", "'abcde'"),
    "a domain over fewer bits": ("DOMAIN {} AS bit(5)", "DOMAIN {} AS bit(3)", "'10101'"),
    "a domain over a coarser numeric": ("DOMAIN {} AS numeric(9,4)", "DOMAIN {} AS numeric(9,2)", "1.2345"),
    "a domain over a coarser timestamp": (
        "DOMAIN {} AS timestamp",
        "DOMAIN {} AS timestamp(0)",
        "'2024-01-01 00:00:00.7'",
    ),
    "a domain over shorter elements": ("DOMAIN {} AS varchar(5)[]", "DOMAIN {} AS varchar(3)[]", "'{{abcde}}'"),
    "a composite with a coarser field": (
        "TYPE {} AS (a float8, b int)",
        "TYPE {} AS (a float4, b int)",
        "(0.123456789012, 1)",
    ),
    "a range over a coarser type": (
        "TYPE {} AS RANGE (subtype = numeric)",
        "TYPE {} AS RANGE (subtype = float4)",
        "'[0.123456789012,2)'",
    ),
    "a domain over another type": ("DOMAIN {} AS text", "DOMAIN {} AS integer", "'007'"),
    "a domain that ignores case": ("DOMAIN {} AS text", "DOMAIN {} AS uuid", "'A0EEBC999C0B4EF8BB6D6BB9BD380A11'"),
}


@pytest.mark.parametrize("array", [False, True], ids=["alone", "in an array"])
@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("difference", DIFFERENT_DEFINITIONS)
def test_a_value_that_the_destinations_type_of_that_name_would_change_is_an_error(
    tmp_path: Path, pair: Pair, difference: str, mode: str, array: bool
) -> None:
    there, here, value = DIFFERENT_DEFINITIONS[difference]
    name = unique_name("differs")
    value = f"{value.format()}::{name}"
    pair.source.execute(
        f"CREATE {there.format(name)}; CREATE TABLE of_{name} (n int, odd {name}{'[]' if array else ''})"
    )
    pair.source.execute(f"INSERT INTO of_{name} VALUES (1, {f'ARRAY[{value}]' if array else value}), (2, NULL)")
    pair.destination.execute(f"CREATE {here.format(name)}")
    with pytest.raises(DestinationError) as caught:
        run(make_pipeline(tmp_path, pair.source, pair.destination, [f"of_{name}"], write_mode=mode))
    assert caught.value.kind is Kind.DATA
    assert pair.destination.fetch_value("SELECT to_regclass(%s) IS NULL", [f"raw.of_{name}"])


def test_a_type_that_differs_carries_the_values_that_both_have(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(
        "CREATE DOMAIN d AS varchar(5); CREATE TABLE t (n int PRIMARY KEY, v d); INSERT INTO t VALUES (1, 'abc')"
    )
    destination_db.execute("CREATE DOMAIN d AS varchar(3)")
    run(make_pipeline(tmp_path, source_db, destination_db, ["t"]))
    assert_same(Table(source_db, "public", "t"), Table(destination_db, "raw", "t"), keyed=False)


def test_an_enum_label_that_the_destination_lacks_is_an_error(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(
        "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (m mood, ms mood[]); INSERT INTO t VALUES ('a', '{b}')"
    )
    destination_db.execute("CREATE TYPE mood AS ENUM ('a', 'B')")
    with pytest.raises(DestinationError, match="mood") as caught:
        run(make_pipeline(tmp_path, source_db, destination_db, ["t"]))
    assert caught.value.kind is Kind.DATA
    assert destination_db.fetch_value("SELECT to_regclass('raw.t') IS NULL")
