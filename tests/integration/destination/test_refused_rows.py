"""Rows that the table refuses: left out, counted, and told with their reason, while all others are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest


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
TABLE = "create table users (id bigint primary key, name {name}, amount numeric(20,4) {amount}, parent integer {parent})"


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
