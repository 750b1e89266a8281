"""Rows that the table refuses: left out, counted, and told with their reason, while all others are written."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError
from rapidbyte_dagster.runtime import End, Item, LogLevel
from tests.integration.destination.feed import (
    Destination,
    Written,
    barrier,
    batch_item,
    column,
    schema_item,
)
from tests.postgres_server import Database

ROWS = 10_000
BAD = 7_777
MODES = ("append", "replace", "upsert")

SCHEMA = pa.schema(
    [
        column("id", pa.int64(), "bigint"),
        column("name", pa.string(), "text"),
        column("amount", pa.decimal128(20, 4), "numeric(20,4)"),
        column("parent", pa.int32(), "integer"),
    ],
    metadata={"rapidbyte:primary_key": '["id"]'},
)
TABLE = """
create table users (id bigint primary key, name {name}, amount numeric(20,4) {amount}, parent integer {parent})
"""


@dataclass(frozen=True)
class Fault:
    """One way in which a row is refused: how the table is made, and what is in the row."""

    columns: Mapping[str, str]
    value: Mapping[str, Any]
    category: str
    sqlstate: str | None
    setup: str = "select"
    after: str = "select"
    constraint: str | None = None
    column: str | None = None
    field: pa.Field[Any] | None = None
    """In the place of the stream's own one of that name."""


def fault(
    category: str, sqlstate: str | None, value: Mapping[str, Any], columns: Mapping[str, str], **more: Any
) -> Fault:
    return Fault(columns, value, category, sqlstate, **more)


FAULTS = {
    "not null": fault(
        "not_null",
        "23502",
        {"parent": None},
        {"parent": "not null"},
        column="parent",
        # A source that keeps its promise has no such row.
        field=column("parent", pa.int32(), "integer", nullable=False),
    ),
    "check": fault(
        "check", "23514", {"amount": "-1.5"}, {"amount": "check (amount >= 0)"}, constraint="users_amount_check"
    ),
    "unique": fault(
        "unique",
        "23505",
        {"parent": 5},
        {"parent": ""},
        after="create unique index users_parent on users (parent) where parent > 0",
        constraint="users_parent",
    ),
    "foreign key": fault(
        "foreign_key",
        "23503",
        {"parent": 77},
        {"parent": "references parents"},
        setup="create table parents (id integer primary key); insert into parents values (0), (5)",
        constraint="users_parent_fkey",
    ),
    "deferred foreign key": fault(
        "foreign_key",
        "23503",
        {"parent": 77},
        {"parent": "references parents deferrable initially deferred"},
        setup="create table parents (id integer primary key); insert into parents values (0), (5)",
        constraint="users_parent_fkey",
    ),
    "exclusion": fault(
        "exclusion",
        "23P01",
        {"parent": 5},
        {"parent": ""},
        after="alter table users add constraint apart exclude using btree (parent with =) where (parent > 0)",
        constraint="apart",
    ),
    "too long": fault(
        "too_long", "22001", {"name": "nine long"}, {"name": "varchar(8)"}, field=column("name", pa.string())
    ),
    "a domain's check": fault(
        "check",
        "23514",
        {"name": "nine long"},
        {"name": "short"},
        setup="create domain short as text check (length(value) < 9)",
        constraint="short_check",
        field=column("name", pa.string(), "public.short", kind="domain"),
    ),
    "no label of the enum": fault(
        "invalid_text",
        "22P02",
        {"name": "nine long"},
        {"name": "mood"},
        setup="create type mood as enum ('n')",
        field=column("name", pa.string()),
    ),
    "a value that does not fit the kept type": fault(
        "cast", None, {"amount": "1e+30"}, {}, column="amount", field=column("amount", pa.float64(), "double precision")
    ),
    "trigger": fault(
        "trigger",
        "P0001",
        {"parent": 77},
        {},
        setup="create function no() returns trigger language plpgsql as "
        "$$ begin if new.parent = 77 then raise 'no %', new.parent; end if; return new; end $$",
        after="create trigger no before insert on users for each row execute function no()",
    ),
    "trigger after the row": fault(
        "trigger",
        "P0001",
        {"parent": 77},
        {},
        setup="create function no() returns trigger language plpgsql as "
        "$$ begin if new.parent = 77 then raise 'no %', new.parent; end if; return new; end $$",
        after="create trigger no after insert on users for each row execute function no()",
    ),
}


# Each fault in every mode; in the quick selection in one mode after the other.
EACH_FAULT = pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(name, mode, marks=[] if turn % len(MODES) == number else [pytest.mark.full])
        for turn, name in enumerate(FAULTS)
        for number, mode in enumerate(MODES)
    ],
)


def rows(kind: Fault, *, at: int = BAD, count: int = ROWS) -> pa.Table:
    """`count` rows, of which number `at` has other values; row 10 has parent 5."""
    made = [{"id": i, "name": "n", "amount": "1.5000", "parent": 5 if i == 10 else 0} for i in range(count)]
    made[at] |= kind.value
    return table_of(made, kind.field)


def table_of(made: Sequence[Mapping[str, Any]], field: pa.Field[Any] | None = None) -> pa.Table:
    schema = SCHEMA if field is None else SCHEMA.set(SCHEMA.get_field_index(field.name), field)
    columns = {
        "id": [row["id"] for row in made],
        "name": [row["name"] for row in made],
        "amount": pa.array([row["amount"] for row in made], pa.string()).cast(schema.field("amount").type),
        "parent": [row["parent"] for row in made],
    }
    return pa.table(columns, schema=schema)


def make(database: Database, kind: Fault) -> None:
    definitions = {"name": "text", "amount": "", "parent": "", **kind.columns}
    with database.connect(superuser=True) as connection:
        connection.execute("set role etl")
        connection.execute(kind.setup)
        connection.execute(TABLE.format(**definitions))
        connection.execute(kind.after)


def write(destination: Destination, data: Any, mode: str, policy: str, **more: Any) -> Written:
    return destination.write(data, mode, on_data_error=policy, schema_evolution={"type_change": "coerce"}, **more)


def ids(database: Database) -> list[int]:
    return [row[0] for row in database.fetch("select id from users order by id")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAULTS)
def test_one_bad_row_among_many_is_told_and_the_others_are_there(
    destination: Destination, destination_db: Database, name: str, mode: str
) -> None:
    kind = FAULTS[name]
    make(destination_db, kind)
    written = write(destination, rows(kind), mode, "dlq")
    assert destination_db.fetch("select count(*), count(*) filter (where id = 7777) from users") == [(ROWS - 1, 0)]
    assert written.rejected == 1
    assert written.result["rows"] == ROWS
    [letter] = written.feed.letters
    expected: dict[str, Any] = {"id": BAD, "name": "n", "amount": "1.5000", "parent": 0, **kind.value}
    if kind.category == "check" and "amount" in kind.value:
        expected["amount"] = "-1.5000"
    assert letter["record"] == expected
    assert letter["types"]["id"] == "bigint"
    assert letter["message"]
    assert (letter["category"], letter["sqlstate"]) == (kind.category, kind.sqlstate)
    assert letter["constraint"] == kind.constraint
    if kind.column:
        assert letter["column"] == kind.column


@EACH_FAULT
def test_with_skip_the_row_is_counted_and_one_warning_says_why(
    destination: Destination, destination_db: Database, name: str, mode: str
) -> None:
    make(destination_db, FAULTS[name])
    written = write(destination, rows(FAULTS[name], at=15, count=20), mode, "skip")
    assert ids(destination_db) == [number for number in range(20) if number != 15]
    assert written.rejected == 1
    assert written.feed.letters == []
    [warning] = [line for level, line in written.feed.lines if level is LogLevel.WARNING and "not written" in line]
    assert warning.startswith("1 rows were not written into public.users, and are not kept")


@EACH_FAULT
def test_with_fail_nothing_is_written(destination: Destination, destination_db: Database, name: str, mode: str) -> None:
    make(destination_db, FAULTS[name])
    with pytest.raises(DestinationError) as raised:
        write(destination, rows(FAULTS[name], at=15, count=20), mode, "fail")
    assert raised.value.info.kind is Kind.DATA
    assert ids(destination_db) == []


@pytest.mark.parametrize("mode", MODES)
def test_every_second_row_is_bad(destination: Destination, destination_db: Database, mode: str) -> None:
    make(destination_db, FAULTS["check"])
    data = table_of([{"id": i, "name": "n", "amount": str(-(i % 2)), "parent": 0} for i in range(3_000)])
    written = write(destination, data, mode, "dlq")
    assert ids(destination_db) == list(range(0, 3_000, 2))
    assert written.rejected == 1_500
    assert [letter["record"]["id"] for letter in written.feed.letters] == list(range(1, 3_000, 2))


@pytest.mark.parametrize("mode", MODES)
def test_every_row_is_bad_for_a_reason_that_only_halving_finds(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    make(destination_db, FAULTS["trigger after the row"])
    data = table_of([{"id": i, "name": "n", "amount": "0", "parent": 77} for i in range(300)])
    written = write(destination, data, mode, "dlq")
    assert ids(destination_db) == []
    assert [letter["record"]["id"] for letter in written.feed.letters] == list(range(300))
    assert {letter["message"] for letter in written.feed.letters} == {"no 77"}


@pytest.mark.parametrize("mode", MODES)
def test_faults_of_several_kinds_are_told_apart(destination: Destination, destination_db: Database, mode: str) -> None:
    make(
        destination_db,
        Fault(
            {"name": "varchar(8)", "amount": "check (amount >= 0)", "parent": "references parents"},
            *({}, "", None),
            setup="create table parents (id integer primary key); insert into parents values (0)",
            after="create unique index users_name on users (name) where name like 'u%'",
        ),
    )
    good = {"name": "n", "amount": "0", "parent": 0}
    data = table_of(
        [
            {"id": 0, **good, "parent": 9},
            {"id": 1, **good, "name": "nine long"},
            {"id": 2, **good, "name": "u"},
            {"id": 3, **good, "amount": "-1"},
            {"id": 4, **good},
            {"id": 5, **good, "name": "u"},
        ],
        column("name", pa.string()),
    )
    written = write(destination, data, mode, "dlq")
    assert ids(destination_db) == [2, 4]
    told = {letter["record"]["id"]: letter["category"] for letter in written.feed.letters}
    assert told == {0: "foreign_key", 1: "too_long", 3: "check", 5: "unique"}
    [unique] = [letter for letter in written.feed.letters if letter["category"] == "unique"]
    assert "Key (name)=(u) already exists." in unique["message"]


def test_a_row_without_its_key_is_no_upsert(destination: Destination, destination_db: Database) -> None:
    make(destination_db, FAULTS["check"])
    good = {"name": "n", "amount": "0", "parent": 0}
    data = table_of([{"id": 1, **good}, {"id": None, **good}, {"id": 3, **good}, {"id": None, **good}])
    written = write(destination, data, "upsert", "dlq")
    assert ids(destination_db) == [1, 3]
    assert [(letter["category"], letter["column"]) for letter in written.feed.letters] == [("null_key", "id")] * 2
    assert written.feed.letters[0]["message"] == "column id of row 2 is NULL, and it is part of the key"


def test_rows_that_a_later_one_supersedes_are_loaded_and_no_dead_letters(
    destination: Destination, destination_db: Database
) -> None:
    make(destination_db, FAULTS["check"])
    good = {"name": "n", "parent": 0}
    data = table_of([{"id": 1, "amount": amount, **good} for amount in ("-1", "1", "2")])
    written = write(destination, data, "upsert", "dlq")
    assert destination_db.fetch("select id, amount::int from users") == [(1, 2)]
    assert written.rejected == 0


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_table_that_is_made_has_its_key_from_the_first_row_on(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    good = {"name": "n", "amount": "0", "parent": 0}
    data = table_of([{"id": i % 7, **good} for i in range(10)])
    written = write(destination, data, mode, "dlq", primary_key=["id"])
    assert ids(destination_db) == list(range(7))
    assert [letter["category"] for letter in written.feed.letters] == ["unique"] * 3
    assert written.result["primary_key"] == ["id"]


def test_rows_that_point_to_rows_of_the_same_load_are_good(destination: Destination, destination_db: Database) -> None:
    """Also where another one is bad, and whichever of the two comes first."""
    destination_db.execute(
        "create table users (id bigint primary key, name text, amount numeric(20,4), parent bigint references users)"
    )
    good = {"name": "n", "amount": "0"}
    parents = {0: 9, 1: 0, 2: 1, 3: 99, 9: 8, 8: None}
    data = table_of(
        [{"id": i, **good, "parent": parent} for i, parent in parents.items()], column("parent", pa.int64(), "bigint")
    )
    written = write(destination, data, "upsert", "dlq")
    assert ids(destination_db) == [0, 1, 2, 8, 9]
    assert [letter["record"]["id"] for letter in written.feed.letters] == [3]


def test_each_commit_tells_its_own_rows(destination: Destination, destination_db: Database) -> None:
    make(destination_db, FAULTS["check"])
    data = rows(FAULTS["check"], at=3, count=10)
    items = [
        schema_item(data.schema),
        *(item for n in range(5) for item in (batch_item(part(data, n)), barrier(n + 1, cursor=n, final=n == 4))),
        End(),
    ]
    for mode in ("append", "upsert"):
        destination_db.execute("truncate users")
        written = destination.write(items, mode, stream=mode, table="users", on_data_error="dlq")
        prepared = [payload for what, payload in written.feed.said if what == "prepare"]
        assert [payload["rejected"] for payload in prepared] == [0, 1, 0, 0, 0]
        assert [payload["rows"] for payload in prepared] == [2] * 5
        assert ids(destination_db) == [number for number in range(10) if number != 3]


def part(data: pa.Table, number: int) -> pa.RecordBatch:
    [batch] = data.slice(number * 2, 2).combine_chunks().to_batches()
    return batch


def test_a_replaced_table_keeps_its_rows_until_the_good_ones_are_there(
    destination: Destination, destination_db: Database
) -> None:
    make(destination_db, FAULTS["check"])
    write(destination, rows(FAULTS["check"], at=0, count=3), "replace", "dlq")
    before: list[list[int]] = []
    written = write(
        destination,
        rows(FAULTS["check"], at=5, count=9),
        "replace",
        "dlq",
        sequence=2,
        on_prepare=lambda payload: before.append(ids(destination_db)),
    )
    assert before == [[1, 2]]
    assert ids(destination_db) == [0, 1, 2, 3, 4, 6, 7, 8]
    assert written.rejected == 1


def test_a_table_that_foreign_keys_point_to_is_not_replaced_in_part(
    destination: Destination, destination_db: Database
) -> None:
    make(destination_db, FAULTS["check"])
    destination_db.execute("create table children (of bigint references users)")
    with pytest.raises(RapidbyteError, match="leaving rows out is not supported yet there") as raised:
        write(destination, rows(FAULTS["check"], count=8_000), "replace", "dlq")
    assert raised.value.info.kind is Kind.UNSUPPORTED


def test_check_says_so_before_a_run(destination: Destination, destination_db: Database) -> None:
    make(destination_db, FAULTS["check"])
    stream = {"name": "users", "table": "users", "write_mode": "replace", "on_data_error": "dlq"}
    [finding] = [found for found in destination.check(stream) if found["check"] == "table"]
    assert finding["message"] == "the rows of public.users will be replaced in place: those that fail are left out"
    destination_db.execute("create table children (of bigint references users)")
    [finding] = [found for found in destination.check(stream) if found["check"] == "table"]
    assert finding["level"] == "error"
    assert "leaving rows out is not supported yet there" in finding["message"]


def test_rows_that_come_in_text_forms_are_told_like_others(destination: Destination, destination_db: Database) -> None:
    """They do when they are written again, and may fail again."""
    make(destination_db, FAULTS["check"])
    texts = {"id": ("7", "bigint"), "amount": ("-1.5", "numeric(20,4)"), "parent": ("5", "integer")}
    schema = pa.schema([column(name, pa.string(), type) for name, (_, type) in texts.items()])
    data = pa.table({name: [value] for name, (value, _) in texts.items()}, schema=schema)
    for mode in MODES:
        key = ["id"] if mode == "upsert" else None
        written = destination.write(data, mode, table="users", stream=mode, primary_key=key, on_data_error="dlq")
        [letter] = written.feed.letters
        assert letter["record"]["id"] == 7
        assert float(letter["record"]["amount"]) == -1.5
        assert letter["types"] == {name: type for name, (_, type) in texts.items()}


def test_what_is_not_the_row_s_fault_is_never_a_dead_letter(destination: Destination, destination_db: Database) -> None:
    make(destination_db, FAULTS["check"])
    with destination_db.connect(superuser=True) as connection:
        connection.execute(
            "create function fails() returns trigger language plpgsql as "
            "$$ begin perform 1 from nowhere; return new; end $$;"
            "create trigger fails before insert on users for each row execute function fails()"
        )
    for mode in MODES:
        with pytest.raises(DestinationError) as raised:
            write(destination, rows(FAULTS["check"], count=8_000), mode, "dlq")
        assert raised.value.info.kind is Kind.NOT_FOUND
    assert ids(destination_db) == []


EVERYTHING = pa.table(
    {
        "id": pa.array([1, 2], pa.int64()),
        "small": pa.array([-7, None], pa.int16()),
        "flag": pa.array([True, None]),
        "real": pa.array([0.1, None], pa.float32()),
        "double": pa.array([1e300, None], pa.float64()),
        "price": pa.array(["-12.50", None]).cast(pa.decimal128(12, 2)),
        "huge": pa.array(["123456789012345678901234567890123456789012.5", None]).cast(pa.decimal256(60, 3)),
        "name": pa.array(['a"b\\é\n\u2028', None]),
        "photo": pa.array([b"\x00\xff", None], pa.binary()),
        "day": pa.array([-3_000_000 // 1000, None], pa.int32()).cast(pa.date32()),
        "clock": pa.array([86_399_999_999, None], pa.int64()).cast(pa.time64("us")),
        "at": pa.array([1_700_000_000_123_456, None], pa.int64()).cast(pa.timestamp("us")),
        "instant": pa.array([-1, None], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "span": pa.array([(14, 3, 1_500_000_000), None], pa.month_day_nano_interval()),
        "tags": pa.array([["a,b", None, "{"], None], pa.list_(pa.string())),
        "prices": pa.array([["1.50"], None], pa.list_(pa.string())).cast(pa.list_(pa.decimal128(12, 2))),
    }
)


@pytest.mark.parametrize("mode", MODES)
def test_values_of_every_arrow_type_are_told_as_postgresql_prints_them(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    """And printed values are the ones that a load without the constraint writes."""
    destination.write(EVERYTHING, "append", table="loaded")
    printed = destination_db.fetch_value("select jsonb_agg(to_jsonb(loaded) order by id) from loaded")
    assert printed[0]["name"] == 'a"b\\é\n\u2028'
    names = EVERYTHING.schema.names
    texts = destination_db.fetch(
        "select " + ", ".join(f'"{name}"::text' for name in names) + " from loaded order by id"
    )
    destination_db.execute("create table refusing (like loaded, primary key (id), check (id < 0))")
    written = destination.write(
        EVERYTHING, mode, table="refusing", primary_key=["id"] if mode == "upsert" else None, on_data_error="dlq"
    )
    assert written.rejected == 2
    for letter, row in zip(written.feed.letters, texts, strict=True):
        assert {name: as_text(value) for name, value in letter["record"].items()} == dict(zip(names, row, strict=True))
    assert written.feed.letters[0]["record"]["id"] == 1
    assert written.feed.letters[0]["record"]["flag"] is True
    assert written.feed.letters[0]["record"]["small"] == -7


def as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


def test_a_value_that_postgresql_does_not_have_is_told_by_its_number(
    destination: Destination, destination_db: Database
) -> None:
    schema = pa.schema([column("id", pa.int64(), "bigint"), column("day", pa.date32(), "date")])
    days = pa.array([0, 2**31 - 2, 1], pa.int32()).cast(pa.date32())
    data = pa.table([pa.array([1, 2, 3], pa.int64()), days], schema=schema)
    for mode in MODES:
        key = ["id"] if mode == "upsert" else None
        written = destination.write(data, mode, table=mode, primary_key=key, on_data_error="dlq")
        assert destination_db.fetch(f"select id from {mode} order by id") == [(1,), (3,)]
        [letter] = written.feed.letters
        assert letter["record"] == {"id": 2, "day": "2147483646 days since 1970-01-01"}
        assert (letter["category"], letter["column"]) == ("out_of_range", "day")


def test_a_text_that_is_no_utf_8_is_told_by_its_bytes(destination: Destination, destination_db: Database) -> None:
    schema = pa.schema([column("id", pa.int64(), "bigint"), column("name", pa.string(), "text")])
    names = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff\x41"], pa.binary()).buffers())
    data = pa.table([pa.array([1, 2], pa.int64()), names], schema=schema)
    written = destination.write(data, table="users", on_data_error="dlq")
    assert ids(destination_db) == [1]
    [letter] = written.feed.letters
    assert letter["record"] == {"id": 2, "name": "\\xff41"}
    assert letter["types"] == {"id": "bigint", "name": "bytea"}
    assert letter["category"] == "invalid_text"


def test_a_row_that_no_index_takes_is_oversized(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table users (id bigint, name text); create index on users (name)")
    schema = pa.schema([column("id", pa.int64(), "bigint"), column("name", pa.string(), "text")])
    noise = random.Random(0).randbytes(9_000).hex()
    data = pa.table([pa.array([1, 2], pa.int64()), pa.array(["n", noise])], schema=schema)
    written = destination.write(data, table="users", on_data_error="dlq")
    assert ids(destination_db) == [1]
    [letter] = written.feed.letters
    assert letter["record"]["name"] == noise
    assert (letter["category"], letter["sqlstate"]) == ("oversized", "54000")


def test_a_row_that_is_too_large_for_a_dead_letter_is_a_clear_error(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint check (id < 0), name text)")
    schema = pa.schema([column("id", pa.int64(), "bigint"), column("name", pa.string(), "text")])
    data = pa.table([pa.array([1], pa.int64()), pa.array(["x" * 60_000_000])], schema=schema)
    with pytest.raises(DestinationError, match="a row that was refused does not fit") as raised:
        destination.write(data, table="users", on_data_error="dlq")
    assert raised.value.info.kind is Kind.RESOURCE
    assert "max_memory" in str(raised.value)


def test_a_schema_change_in_the_middle_goes_on_leaving_rows_out(
    destination: Destination, destination_db: Database
) -> None:
    make(destination_db, FAULTS["check"])
    wider = SCHEMA.append(column("more", pa.int64(), "bigint"))
    first = rows(FAULTS["check"], at=1, count=3)
    second = rows(FAULTS["check"], at=1, count=3)
    second = second.set_column(0, SCHEMA.field("id"), pa.array([10, 11, 12], pa.int64()))
    second = second.append_column(wider.field("more"), pa.array([7, 8, 9], pa.int64()))
    for mode in ("append", "upsert"):
        destination_db.execute("truncate users; alter table users drop column if exists more")
        items: list[Item] = [
            *(schema_item(SCHEMA), *map(batch_item, first.to_batches())),
            *(schema_item(wider), *map(batch_item, second.to_batches())),
            *(barrier(), End()),
        ]
        written = destination.write(items, mode, stream=mode, table="users", on_data_error="dlq")
        assert ids(destination_db) == [0, 2, 10, 12]
        assert written.rejected == 2
        assert [letter["record"].get("more") for letter in written.feed.letters] == [None, 8]


def test_shards_do_not_leave_rows_out(destination: Destination) -> None:
    with destination.staging(SCHEMA, "replace") as staging:
        staging.described["on_data_error"] = "dlq"
        with pytest.raises(RapidbyteError, match="written in one piece"):
            staging.shard(0, rows(FAULTS["check"], at=1, count=3))
