"""Which keys are the same: the unique index of the target says, by its types, collations and operators."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.runtime import Connector
from tests.integration.destination.feed import Destination, column
from tests.postgres_server import Database, TlsServer, unique_name

ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime.datetime(2024, 1, 2, 12, tzinfo=datetime.timezone.utc)
LOCAL_NOON = NOON.replace(tzinfo=None)
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
ANY_CASE = "create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"


def pairs(kind: pa.Field[Any], *rows: tuple[Any, str]) -> pa.Table:
    schema = pa.schema([kind, column("v", pa.string(), "text")])
    keys = pa.array([key for key, _ in rows], kind.type)
    return pa.Table.from_arrays([keys, pa.array([v for _, v in rows])], schema=schema)


def text_form(pg_type: str, kind: str = "base") -> pa.Field[Any]:
    return column("k", pa.string(), pg_type, kind=kind)


def found(database: Database) -> list[tuple[str, str]]:
    return database.fetch("select k::text, v from t order by k::text, v")


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (column("k", pa.bool_(), "boolean"), True, False),
        (column("k", pa.int16(), "smallint"), 1, -1),
        (column("k", pa.int32(), "integer"), 1, 2**31 - 1),
        (column("k", pa.int64(), "bigint"), 1, -(2**63)),
        (column("k", pa.float64(), "double precision"), 1.5, float("nan")),
        (column("k", pa.decimal128(12, 4), "numeric(12,4)"), decimal.Decimal("1.0000"), decimal.Decimal("-9.5")),
        (text_form("numeric"), "1.5", "NaN"),
        (column("k", pa.string(), "text"), "a", ""),
        (column("k", pa.string(), "character varying(5)"), "a", "A"),
        (column("k", pa.string(), "character(5)"), "a    ", "b    "),
        (column("k", pa.binary(), "bytea"), b"\x00", b""),
        (column("k", pa.date32(), "date"), datetime.date(2024, 1, 2), datetime.date(1, 1, 1)),
        (column("k", pa.time64("us"), "time without time zone"), datetime.time(1, 2, 3), datetime.time(0)),
        (column("k", pa.timestamp("us", "UTC"), "timestamp with time zone"), NOON, EPOCH),
        (column("k", pa.timestamp("us"), "timestamp(3) without time zone"), LOCAL_NOON, datetime.datetime(1970, 1, 1)),
        (column("k", pa.binary(16), "uuid"), ID.bytes, bytes(16)),
        (text_form("inet"), "10.0.0.1", "::1"),
        (text_form("int4range", "range"), "[1,5)", "empty"),
        (column("k", pa.list_(pa.int32()), "integer[]"), [1, 2], []),
        (column("k", pa.string(), "jsonb"), '{"a": 1}', "[]"),
        (text_form("bit(3)"), "101", "000"),
        (text_form("time with time zone"), "01:02:03+00", "01:02:03+01"),
        (column("k", pa.string(), "public.mood", kind="enum"), "sad", "happy"),
        (text_form("public.code", "domain"), "abc", "abd"),
        (text_form("public.pair", "composite"), "(1,x)", "(1,y)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("existing", [False, True], ids=["new table", "existing table"])
def test_a_key_of_any_type_that_has_an_order(
    destination: Destination, destination_db: Database, kind: pa.Field[Any], one: Any, other: Any, existing: bool
) -> None:
    destination_db.execute(
        "create type mood as enum ('sad', 'happy'); create domain code as varchar(5) check (value <> 'bad');"
        "create type pair as (a int, b text)"
    )
    if existing:
        assert kind.metadata is not None
        destination_db.execute(f"create table t (v text, k {kind.metadata[b'rapidbyte:pg_type'].decode()} unique)")
    first = destination.write(pairs(kind, (one, "a"), (other, "b"), (one, "c")), "upsert", table="t", primary_key=["k"])
    assert first.result["created"] is not existing
    assert sorted(v for _, v in found(destination_db)) == ["b", "c"]
    before = dict(destination_db.fetch("select v, xmin::text from t"))
    destination.write(
        pairs(kind, (other, "b"), (one, "d"), (one, "e")), "upsert", table="t", primary_key=["k"], sequence=2
    )
    after = dict(destination_db.fetch("select v, xmin::text from t"))
    assert sorted(after) == ["b", "e"]
    assert after["b"] == before["b"]


@pytest.mark.parametrize("existing", [False, True], ids=["new table", "existing table"])
def test_numbers_that_are_equal_are_one_key_and_the_last_one_s_digits_stay(
    destination: Destination, destination_db: Database, existing: bool
) -> None:
    if existing:
        destination_db.execute("create table t (k numeric unique, v text); insert into t values (1.000, 'old')")
    data = pairs(text_form("numeric"), ("1.0", "a"), ("2", "b"), ("1.00", "c"))
    destination.write(data, "upsert", table="t", primary_key=["k"])
    assert found(destination_db) == [("1.00", "c"), ("2", "b")]
    destination.write(pairs(text_form("numeric"), ("1.0", "c")), "upsert", table="t", primary_key=["k"], sequence=2)
    assert found(destination_db) == [("1.0", "c"), ("2", "b")]


def test_zeros_of_either_sign_are_one_key(destination: Destination, destination_db: Database) -> None:
    kind = column("k", pa.float64(), "double precision")
    destination.write(pairs(kind, (0.0, "a"), (-0.0, "b")), "upsert", table="t", primary_key=["k"])
    assert found(destination_db) == [("-0", "b")]


def test_blanks_at_the_end_of_char_make_no_other_key(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table t (k character(5) primary key, v text)")
    kind = column("k", pa.string(), "character(5)")
    destination.write(pairs(kind, ("a", "a"), ("a    ", "b")), "upsert", table="t", primary_key=["k"])
    assert destination_db.fetch("select v from t") == [("b",)]


def test_a_timestamp_is_one_key_whatever_its_zone(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(
        "create table t (k timestamptz primary key, v text); insert into t values ('2024-01-02 14:00+02', 'old')"
    )
    kind = column("k", pa.timestamp("us", "UTC"), "timestamp with time zone")
    destination.write(pairs(kind, (NOON, "new")), "upsert", table="t", primary_key=["k"])
    assert destination_db.fetch("select v from t") == [("new",)]


@pytest.fixture
def system_db(tls_postgres: TlsServer) -> Iterator[Database]:
    """Of the system's server: the one from pip has neither ICU nor extensions."""
    name = unique_name("destination")
    tls_postgres.server.create_database(name)
    yield tls_postgres.database(name)
    tls_postgres.server.drop_database(name)


@pytest.fixture
def system_destination(dest_postgres: Connector, system_db: Database) -> Destination:
    return Destination(dest_postgres, system_db)


def test_citext_keys_are_the_same_in_any_case_even_where_its_operators_are_not_on_the_search_path(
    system_destination: Destination, system_db: Database
) -> None:
    system_db.execute(
        "create schema ext; create extension citext schema ext; grant usage on schema ext to etl", superuser=True
    )
    system_db.execute("create table t (k ext.citext primary key, v text); insert into t values ('Bob', 'old')")
    data = pairs(text_form("ext.citext"), ("BOB", "a"), ("alice", "b"), ("bob", "c"))
    system_destination.write(data, "upsert", table="t", primary_key=["k"])
    assert found(system_db) == [("alice", "b"), ("bob", "c")]


@pytest.mark.parametrize("where", ["the column", "the index"])
def test_case_counts_as_the_collation_of_the_unique_index_says(
    system_destination: Destination, system_db: Database, where: str
) -> None:
    if where == "the column":
        system_db.execute(ANY_CASE + "create table t (k text collate any_case primary key, v text)")
    else:
        system_db.execute(
            ANY_CASE + 'create table t (k text collate "C", v text); create unique index on t (k collate any_case)'
        )
    system_db.execute("insert into t values ('Bob', 'old')")
    kind = column("k", pa.string(), "text")
    data = pairs(kind, ("BOB", "a"), ("alice", "b"), ("bob", "c"), ("ALICE", "d"))
    system_destination.write(data, "upsert", table="t", primary_key=["k"])
    assert sorted(found(system_db)) == [("ALICE", "d"), ("bob", "c")]
    before = system_db.fetch("select v, xmin::text from t order by 1")
    data = pairs(kind, ("bob", "c"), ("ALICE", "d"))
    system_destination.write(data, "upsert", table="t", primary_key=["k"], sequence=2)
    assert system_db.fetch("select v, xmin::text from t order by 1") == before


def test_case_makes_another_key_where_the_index_tells_it_though_the_column_does_not(
    system_destination: Destination, system_db: Database
) -> None:
    system_db.execute(
        ANY_CASE + 'create table t (k text collate any_case, v text); create unique index on t (k collate "C")'
    )
    kind = column("k", pa.string(), "text")
    system_destination.write(pairs(kind, ("bob", "a"), ("BOB", "b")), "upsert", table="t", primary_key=["k"])
    data = pairs(kind, ("BOB", "c"))
    system_destination.write(data, "upsert", table="t", primary_key=["k"], sequence=2)
    assert sorted(found(system_db)) == [("BOB", "c"), ("bob", "a")]


def test_text_of_another_case_counts_as_changed_where_the_collation_calls_it_equal(
    system_destination: Destination, system_db: Database
) -> None:
    system_db.execute(ANY_CASE + "create table t (k int primary key, v text collate any_case)")
    for sequence, value in enumerate(("a", "A"), start=1):
        data = pairs(column("k", pa.int32(), "integer"), (1, value))
        system_destination.write(data, "upsert", table="t", primary_key=["k"], sequence=sequence)
    assert found(system_db) == [("1", "A")]


def test_a_zero_of_the_other_sign_counts_as_changed(destination: Destination, destination_db: Database) -> None:
    schema = pa.schema([column("k", pa.int32(), "integer"), column("v", pa.float64(), "double precision")])
    for sequence, value in enumerate((0.0, -0.0), start=1):
        data = pa.table({"k": [1], "v": [value]}, schema=schema)
        destination.write(data, "upsert", table="t", primary_key=["k"], sequence=sequence)
    assert destination_db.fetch_value("select v::text from t") == "-0"


@pytest.mark.parametrize("names", [False, True], ids=["staged", "with names"])
def test_columns_in_text_form_are_converted_and_the_last_one_wins(
    destination: Destination, destination_db: Database, names: bool
) -> None:
    destination_db.execute("create table thing (); create table other ()")
    schema = pa.schema(
        [
            column("id", pa.int32(), "integer"),
            column("address", pa.string(), "inet"),
            column("of", pa.string(), "regclass" if names else "money"),
        ]
    )
    values = ("public.thing", "public.other") if names else ("$1.00", "$2.00")
    for sequence, (address, value) in enumerate([("10.0.0.1", values[0]), ("::1", values[1])], start=1):
        data = pa.table(
            {"id": [1, 2, 1], "address": ["1.1.1.1", None, address], "of": [None, value, value]}, schema=schema
        )
        destination.write(data, "upsert", table="t", primary_key=["id"], sequence=sequence)
    assert destination_db.fetch('select id, host(address), "of" from t order by id') == [
        (1, "::1", "other" if names else "$2.00"),
        (2, None, "other" if names else "$2.00"),
    ]
