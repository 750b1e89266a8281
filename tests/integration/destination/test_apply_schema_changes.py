"""Source tables that are altered between their changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.runtime import Item
from tests.integration.destination.changes import Table, apply, delete, insert, old, position, update
from tests.integration.destination.feed import Destination, column
from tests.postgres_server import Database

ID = column("id", pa.int64(), "bigint", nullable=False)
EMAIL = column("email", pa.string(), "text")
AGE = column("age", pa.int32(), "integer")
USERS = Table("users", [ID, EMAIL])
ORDERS = Table("orders", [ID])
KNOWN = [
    {"name": "id", "nullable": False, "stream_nullable": False},
    {"name": "email", "nullable": True, "stream_nullable": True},
]
STREAM = {"name": "users", "known_columns": KNOWN}
Row = tuple[Any, ...]


@pytest.fixture
def users(destination_db: Database) -> Database:
    destination_db.execute("create table users (id bigint primary key, email text)")
    destination_db.execute("create table orders (id bigint primary key)")
    destination_db.execute("insert into users values (1, 'a')")
    return destination_db


def test_a_column_that_comes_in_the_middle_of_a_transaction_is_added_with_it(
    destination: Destination, users: Database
) -> None:
    wider = replace(USERS, columns=[ID, AGE, EMAIL])
    items: list[Item] = [
        *USERS.messages(100, insert(2, "b"), update(1, "x")),
        *wider.messages(100, insert(3, 33, "c"), update(2, 22, "b"), seq=3),
        position(1, "users", final=True),
    ]
    applied = apply(destination, items, STREAM)
    assert users.fetch("select id, email, age from users order by id") == [(1, "x", None), (2, "b", 22), (3, "c", 33)]
    assert applied.stopped == {}
    [change] = applied.feed.changes
    assert (change["kind"], change["column"], change["action"]) == ("new_column", "age", "added")


@pytest.mark.parametrize(
    ("changed", "evolution", "values", "expected"),
    [
        ([ID], {}, (5,), (5, None)),
        ([ID, column("email", pa.int32(), "integer")], {"type_change": "coerce"}, (5, 7), (5, "7")),
        ([ID, EMAIL, AGE], {"new_column": "ignore"}, (5, "e", 7), (5, "e")),
    ],
)
def test_a_change_is_met_as_the_policy_says(
    destination: Destination,
    users: Database,
    changed: list[pa.Field[Any]],
    evolution: dict[str, str],
    values: Row,
    expected: Row,
) -> None:
    items: list[Item] = [
        *USERS.messages(100, insert(2, "b")),
        position(1, "users", lsn=108),
        *replace(USERS, columns=changed).messages(200, insert(*values), delete(2)),
        position(2, "users", final=True, lsn=208),
    ]
    applied = apply(destination, items, {**STREAM, "schema_evolution": evolution})
    assert applied.stopped == {}
    assert users.fetch("select id, email from users order by id") == [(1, "a"), expected]
    assert len(applied.feed.changes) == 1


def test_a_wider_type_is_the_tables_from_then_on(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table users (id bigint primary key, email integer)")
    narrow = Table("users", [ID, column("email", pa.int32(), "integer")])
    wide = Table("users", [ID, column("email", pa.int64(), "bigint")])
    items: list[Item] = [
        *narrow.messages(100, insert(1, 1), insert(2, 2)),
        *wide.messages(100, update(1, 2**40), seq=3),
        position(1, "users"),
        *wide.messages(200, insert(3, 2**41), old(2), update(7, 5)),
        position(2, "users", final=True),
    ]
    applied = apply(destination, items, {"name": "users", "schema_evolution": {"type_change": "coerce"}})
    assert applied.stopped == {}
    assert destination_db.fetch("select * from users order by id") == [(1, 2**40), (3, 2**41), (7, 5)]


def test_a_change_that_is_refused_stops_the_stream_where_it_was(destination: Destination, users: Database) -> None:
    items: list[Item] = [
        *USERS.messages(100, insert(2, "b")),
        position(1, "users", "orders", lsn=108),
        *USERS.messages(200, insert(3, "c")),
        *replace(USERS, columns=[ID, EMAIL, AGE]).messages(200, insert(4, "d", 4), seq=2),
        *ORDERS.messages(200, insert(1), seq=3),
        position(2, "users", "orders", lsn=208),
        *replace(USERS, columns=[ID, EMAIL, AGE]).messages(300, insert(5, "e", 5)),
        *ORDERS.messages(300, insert(2), seq=2),
        position(3, "orders", lsn=308, final=True),
    ]
    applied = apply(destination, items, {**STREAM, "schema_evolution": {"new_column": "fail"}}, "orders")
    assert users.fetch("select * from users order by id") == [(1, "a"), (2, "b")]
    assert users.fetch("select * from orders order by id") == [(1,), (2,)]
    stop = applied.stopped["users"]
    assert stop["kind"] == "schema"
    assert "(schema_evolution.new_column: fail)" in stop["message"]
    assert applied.feed.changes[0]["action"] == "refused"
    marks = dict(users.fetch("select stream, cursor ->> 'lsn' from _rapidbyte_watermarks"))
    assert marks == {"users": "0/6C", "orders": "0/134"}


def test_a_history_gets_the_new_column_too(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(
        "create table users (_rb_op text not null, _rb_lsn pg_lsn not null, _rb_seq bigint not null,"
        " _rb_commit_ts timestamptz not null, _rb_unchanged text[], id bigint, email text)"
    )
    wider = replace(USERS, columns=[ID, AGE, EMAIL])
    items: list[Item] = [
        *USERS.messages(100, insert(2, "b")),
        *wider.messages(100, update(2, 22, None, unchanged=["email"]), seq=2),
        position(1, "users", final=True),
    ]
    apply(destination, items, {"name": "users", "write_mode": "append"})
    assert destination_db.fetch("select _rb_op, id, email, age, _rb_unchanged from users order by _rb_seq") == [
        ("insert", 2, "b", None, None),
        ("update", 2, None, 22, ["email"]),
    ]


def test_values_that_only_the_server_reads_are_applied_like_others(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create type mood as enum ('sad', 'ok')")
    destination_db.execute("create table users (id inet primary key, at mood, net cidr)")
    table = Table(
        "users",
        [
            column("id", pa.string(), "inet", nullable=False),
            column("at", pa.string(), "public.mood", kind="enum"),
            column("net", pa.string(), "cidr"),
        ],
    )
    changes = [
        insert("10.0.0.1", "ok", "10.0.0.0/8"),
        insert("10.0.0.2", "sad", None),
        insert("10.0.0.3", None, None),
        update("10.0.0.1", "sad", None, unchanged=["net"]),
        delete("10.0.0.2"),
    ]
    items: list[Item] = []
    for number, change in enumerate(changes, 1):
        items += [*table.messages(100 * number, change), position(number, "users")]
    later = [old("10.0.0.3"), update("10.0.0.4", None, None, unchanged=["at"]), delete("10.0.0.9")]
    items += [*table.messages(900, *later), position(9, "users", final=True)]
    assert apply(destination, items, "users").stopped == {}
    assert destination_db.fetch("select host(id), at::text, net::text from users order by id") == [
        ("10.0.0.1", "sad", "10.0.0.0/8"),
        ("10.0.0.4", None, None),
    ]


def test_changes_from_before_the_table_was_altered_are_applied_to_it(
    destination: Destination, destination_db: Database
) -> None:
    """A run stopped at the new type; somebody altered the table; the next run begins before it."""
    destination_db.execute("create table users (id bigint primary key, email text)")
    before = Table("users", [ID, column("email", pa.int32(), "integer")])
    items: list[Item] = [
        *before.messages(100, insert(1, 11)),
        *USERS.messages(200, insert(2, "b")),
        position(1, "users", final=True),
    ]
    applied = apply(destination, items, "users")
    assert applied.stopped == {}
    assert destination_db.fetch("select * from users order by id") == [(1, "11"), (2, "b")]
    # Not so where a value may not fit.
    items = [*before.messages(300, insert(3, 33)), position(2, "users", final=True)]
    destination_db.execute("alter table users drop email, add email smallint")
    assert apply(destination, items, "users").stopped["users"]["kind"] == "schema"


def test_a_stream_that_stops_leaves_its_table_as_it_was(destination: Destination, users: Database) -> None:
    users.execute("alter table users add check (email <> 'bad')")
    wider = replace(USERS, columns=[ID, EMAIL, AGE])
    items: list[Item] = [
        *wider.messages(100, insert(2, "b", 2), insert(3, "bad", 3)),
        *ORDERS.messages(100, insert(1), seq=3),
        position(1, "users", "orders", final=True),
    ]
    applied = apply(destination, items, STREAM, "orders")
    assert "users_email_check" in applied.stopped["users"]["message"]
    assert "(3, bad, 3)" in applied.stopped["users"]["detail"]
    assert users.fetch("select * from users") == [(1, "a")]
    assert users.fetch("select * from orders") == [(1,)]
    assert applied.feed.changes == []
