"""Changes that fail on their data: which they are, what becomes of them, and that the others are applied."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.runtime import Item
from tests.integration.destination.changes import (
    Table,
    apply,
    apply_changes,
    delete,
    insert,
    position,
    update,
)
from tests.integration.destination.feed import Destination, column
from tests.postgres_server import Database

USERS = Table("users", [column("id", pa.int64(), "bigint", nullable=False), column("age", pa.int32(), "integer")])
ORDERS = Table("orders", [column("id", pa.int64(), "bigint", nullable=False), column("user_id", pa.int64(), "bigint")])


@pytest.fixture
def tables(destination_db: Database) -> Database:
    """Users have ages of at least 0; user 1 is there."""
    destination_db.execute("create table users (id bigint primary key, age integer check (age >= 0))")
    destination_db.execute("create table orders (id bigint primary key, user_id bigint)")
    destination_db.execute("insert into users values (1, 1)")
    return destination_db


def both(database: Database) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    return (
        database.fetch("select id, age from users order by id"),
        database.fetch("select id, user_id from orders order by id"),
    )


def test_a_stream_with_a_bad_change_stops_and_the_others_go_on(destination: Destination, tables: Database) -> None:
    items: list[Item] = [
        *USERS.messages(100, update(1, 2)),
        *ORDERS.messages(100, insert(7, 1), seq=2),
        position(1, "users", "orders", lsn=108),
        *USERS.messages(200, insert(2, 5), insert(3, -1), insert(4, 6)),
        *ORDERS.messages(200, insert(8, 3), seq=4),
        position(2, "users", "orders", lsn=208),
        *USERS.messages(300, insert(5, 5)),
        *ORDERS.messages(300, insert(9, 5), seq=2),
        position(3, "orders", lsn=308, final=True),
    ]
    applied = apply(destination, items, "users", "orders")
    assert both(tables) == ([(1, 2)], [(7, 1), (8, 3), (9, 5)])
    stop = applied.stopped["users"]
    assert stop["kind"] == "data"
    assert 'violates check constraint "users_age_check"' in stop["message"]
    assert stop["sqlstate"] == "23514"
    # What comes of it is counted all the same: it was taken.
    assert [prepared["streams"]["users"]["rows"] for prepared in applied.prepared] == [1, 3, 1]
    assert [set(prepared["stopped"]) for prepared in applied.prepared] == [set(), {"users"}, {"users"}]
    marks = dict(tables.fetch("select stream, cursor ->> 'lsn' from _rapidbyte_watermarks"))
    assert marks == {"users": "0/6C", "orders": "0/134"}
    assert applied.result["streams"]["users"]["inserted"] == 0
    assert applied.result["streams"]["orders"]["inserted"] == 3


def test_bad_changes_are_left_out_and_kept(destination: Destination, tables: Database) -> None:
    changes = [insert(n, -1 if n % 7 == 0 else n) for n in range(2, 50)]
    applied = apply_changes(destination, USERS, *changes, update(1, -5), delete(3), on_data_error="dlq")
    assert both(tables)[0] == [(1, 1), *((n, n) for n in range(2, 50) if n % 7 and n != 3)]
    assert applied.stopped == {}
    assert applied.prepared[0]["streams"] == {"users": {"rows": 50, "rejected": 8}}
    assert [letter["record"] for letter in applied.feed.letters] == [
        *({"_rb_op": "insert", "id": n, "age": -1} for n in range(7, 50, 7)),
        {"_rb_op": "update", "id": 1, "age": -5},
    ]
    assert applied.feed.letters[0] == {
        "record": {"_rb_op": "insert", "id": 7, "age": -1},
        "types": {"_rb_op": "text", "id": "bigint", "age": "integer"},
        "message": 'new row for relation "users" violates check constraint "users_age_check"',
        "category": "check",
        "sqlstate": "23514",
        "constraint": "users_age_check",
        "column": None,
    }


def test_a_delete_that_the_table_refuses_is_a_dead_letter_too(destination: Destination, tables: Database) -> None:
    tables.execute("create table notes (user_id bigint references users)")
    tables.execute("insert into notes values (1)")
    applied = apply_changes(destination, USERS, insert(2, 2), delete(1), insert(3, 3), on_data_error="dlq")
    assert both(tables)[0] == [(1, 1), (2, 2), (3, 3)]
    [letter] = applied.feed.letters
    assert letter["record"] == {"_rb_op": "delete", "id": 1, "age": None}
    assert letter["category"] == "foreign_key"


def test_changes_that_are_skipped_are_told_of_once(destination: Destination, tables: Database) -> None:
    applied = apply_changes(destination, USERS, insert(2, -1), insert(3, 3), insert(4, -1), on_data_error="skip")
    assert both(tables)[0] == [(1, 1), (3, 3)]
    assert applied.prepared[0]["streams"] == {"users": {"rows": 3, "rejected": 2}}
    assert applied.feed.letters == []
    assert applied.feed.heard("2 changes were not written into public.users, and are not kept")


def test_a_bad_row_that_a_later_change_mends_is_none(destination: Destination, tables: Database) -> None:
    applied = apply_changes(destination, USERS, insert(2, -1), update(2, 2), on_data_error="dlq")
    assert both(tables)[0] == [(1, 1), (2, 2)]
    assert applied.feed.letters == []


def test_one_stream_leaves_rows_out_while_another_stops(destination: Destination, tables: Database) -> None:
    tables.execute("alter table orders add check (user_id > 0)")
    items: list[Item] = [
        *USERS.messages(100, insert(2, -1), insert(3, 3)),
        *ORDERS.messages(100, insert(7, 1), insert(8, 0), seq=3),
        *USERS.messages(200, insert(4, 4), insert(5, -1)),
        position(1, "users", "orders", final=True),
    ]
    applied = apply(destination, items, {"name": "users", "on_data_error": "dlq"}, "orders")
    assert both(tables) == ([(1, 1), (3, 3), (4, 4)], [])
    assert set(applied.stopped) == {"orders"}
    # Each of them once, although all began anew without the other stream.
    assert [letter["record"]["id"] for letter in applied.feed.letters] == [2, 5]
    assert applied.prepared[0]["streams"]["users"] == {"rows": 4, "rejected": 2}


def test_constraints_that_wait_are_checked_before_the_commit(destination: Destination, tables: Database) -> None:
    tables.execute("alter table orders add foreign key (user_id) references users deferrable initially deferred")
    good = [insert(7, 2), insert(8, 9), insert(9, 1)]
    items: list[Item] = [
        *ORDERS.messages(100, *good),
        *USERS.messages(100, insert(2, 2), seq=4),
        position(1, "users", "orders", final=True),
    ]
    applied = apply(destination, items, {"name": "orders", "on_data_error": "dlq"}, "users")
    assert both(tables) == ([(1, 1), (2, 2)], [(7, 2), (9, 1)])
    assert [letter["record"]["id"] for letter in applied.feed.letters] == [8]


def test_a_key_without_a_value_is_refused(destination: Destination, tables: Database) -> None:
    table = Table(
        "users",
        [column("id", pa.int64(), "bigint"), column("age", pa.int32(), "integer")],
        key=(),
        replica_identity="full",
    )
    applied = apply_changes(destination, table, insert(None, 1), insert(2, 2), primary_key=["id"], on_data_error="dlq")
    assert both(tables)[0] == [(1, 1), (2, 2)]
    assert [letter["category"] for letter in applied.feed.letters] == ["null_key"]


def test_a_stream_whose_earlier_changes_are_written_already_ends_the_run(
    destination: Destination, tables: Database
) -> None:
    """A transaction that is larger than memory is written in parts, and no part can be taken back alone."""
    big = Table("orders", [*ORDERS.columns, column("note", pa.string(), "text")])
    tables.execute("alter table orders add note text")
    items: list[Item] = list(USERS.messages(100, insert(2, 2)))
    for part in range(4):
        changes = [insert(part * 10 + n, n, "x" * 1_000_000) for n in range(10)]
        items += big.messages(100, *changes, seq=2 + part * 10)
    items += [*USERS.messages(100, insert(3, -1), seq=60), position(1, "users", "orders", final=True)]
    with pytest.raises(RapidbyteError, match="users_age_check") as failure:
        apply(destination, items, "users", "orders")
    assert (failure.value.kind, failure.value.info.stream) == (Kind.DATA, "users")
    assert both(tables)[0] == [(1, 1)]
    assert tables.fetch("select count(*) from orders") == [(0,)]


def test_a_table_that_is_gone_stops_its_stream(destination: Destination, tables: Database) -> None:
    tables.execute("drop table users")
    items: list[Item] = [
        *USERS.messages(100, insert(2, 2)),
        *ORDERS.messages(100, insert(7, 1), seq=2),
        position(1, "users", "orders", final=True),
    ]
    applied = apply(destination, items, "users", "orders")
    assert applied.stopped["users"]["kind"] == "schema"
    assert "users is gone" in applied.stopped["users"]["message"]
    assert tables.fetch("select id from orders") == [(7,)]


def test_a_change_larger_than_the_memory_is_blamed_on_its_stream(destination: Destination, tables: Database) -> None:
    tables.execute("create table notes (id bigint primary key, body text)")
    notes = Table("notes", [USERS.columns[0], column("body", pa.string(), "text")])
    items: list[Item] = [
        *ORDERS.messages(100, insert(7, 1)),
        *notes.messages(100, insert(1, "x" * 150_000_000), seq=2),
        position(1, "orders", "notes", final=True),
    ]
    with pytest.raises(RapidbyteError, match=r"stream notes: .* takes 150,?000,?[0-9]{3} bytes") as caught:
        apply(destination, items, "orders", "notes")
    assert caught.value.info.stream == "notes"
    assert caught.value.kind is Kind.RESOURCE
    assert both(tables)[1] == []
