"""Changes that keep deleted rows, that are kept as a history, and of tables without a key."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.runtime import Item
from tests.integration.destination.changes import (
    FIRST_COMMIT,
    Applied,
    Change,
    Table,
    apply,
    apply_changes,
    delete,
    insert,
    old,
    position,
    truncate,
    update,
)
from tests.integration.destination.feed import Destination, column
from tests.postgres_server import Database

COLUMNS = [
    column("id", pa.int64(), "bigint", nullable=False),
    column("email", pa.string(), "text"),
    column("photo", pa.binary(), "bytea"),
]
USERS = Table("users", COLUMNS)
KEYLESS = Table("users", COLUMNS, key=(), replica_identity="full")
Row = tuple[Any, ...]


def committed(lsn: int) -> datetime:
    """When the transaction with that LSN was."""
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=FIRST_COMMIT, seconds=lsn)


# Deleted rows that are kept


@pytest.fixture
def marked(destination_db: Database) -> Database:
    """Rows 1 to 3 are there, and none is deleted."""
    destination_db.execute(
        "create table users (id bigint primary key, email text, photo bytea, _rb_deleted_at timestamptz)"
    )
    destination_db.execute(r"insert into users values (1, 'a', '\x01'), (2, 'b', '\x02'), (3, 'c', '\x03')")
    return destination_db


def soft(destination: Destination, *changes: Change, lsn: int = 100, **stream: Any) -> Applied:
    return apply_changes(destination, USERS, *changes, lsn=lsn, deletes="soft", **stream)


def rows(database: Database) -> list[Row]:
    return [
        (i, e, p and bytes(p), d)
        for i, e, p, d in database.fetch("select id, email, photo, _rb_deleted_at from users order by id")
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([delete(1)], [(1, "a", b"\1", committed(100))]),
        # As in two transactions: what it was last, and that it was deleted.
        ([update(1, "x", b"\5"), delete(1)], [(1, "x", b"\5", committed(100))]),
        ([update(1, "x", None, unchanged=["photo"]), delete(1)], [(1, "x", b"\1", committed(100))]),
        ([insert(4, "d"), delete(4)], [(1, "a", b"\1", None), (4, "d", None, committed(100))]),
        ([delete(1), insert(1, "again")], [(1, "again", None, None)]),
        ([insert(4, "d"), delete(4), insert(4, "e")], [(1, "a", b"\1", None), (4, "e", None, None)]),
        # A key that changes is a row that goes and one that comes, with what the old one had.
        ([old(1), update(9, "x", b"\7")], [(1, "a", b"\1", committed(100)), (9, "x", b"\7", None)]),
        (
            [old(1), update(9, "x", None, unchanged=["photo"])],
            [(1, "a", b"\1", committed(100)), (9, "x", b"\1", None)],
        ),
        (
            [
                update(1, "w", None, unchanged=["photo"]),
                old(1),
                update(8, "x", None, unchanged=["photo"]),
                old(8),
                update(9, "y", None, unchanged=["photo"]),
            ],
            [(1, "w", b"\1", committed(100)), (8, "x", b"\1", committed(100)), (9, "y", b"\1", None)],
        ),
        (
            [old(1), update(9, "x", None, unchanged=["photo"]), insert(1, "new", b"\6"), delete(9)],
            [(1, "new", b"\6", None), (9, "x", b"\1", committed(100))],
        ),
    ],
)
def test_a_deleted_row_stays_and_says_when(
    destination: Destination, marked: Database, changes: list[Change], expected: list[Row]
) -> None:
    soft(destination, *changes)
    assert rows(marked) == sorted([*expected, (2, "b", b"\2", None), (3, "c", b"\3", None)])


def test_a_row_that_comes_back_is_no_deleted_one(destination: Destination, marked: Database) -> None:
    soft(destination, delete(1), delete(2))
    soft(destination, insert(1, "again"), insert(4, "d"), lsn=200)
    assert rows(marked) == [
        (1, "again", None, None),
        (2, "b", b"\2", committed(100)),
        (3, "c", b"\3", None),
        (4, "d", None, None),
    ]


def test_a_truncation_deletes_what_is_there(destination: Destination, marked: Database) -> None:
    soft(destination, delete(1))
    applied = soft(destination, update(2, "x", b"\2"), insert(4, "d"), truncate(), insert(3, "again"), lsn=200)
    assert rows(marked) == [
        (1, "a", b"\1", committed(100)),
        (2, "x", b"\2", committed(200)),
        (3, "again", None, None),
        (4, "d", None, committed(200)),
    ]
    assert applied.result["streams"]["users"]["truncated"] == 1


def test_deleted_rows_need_a_column_that_says_so(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table users (id bigint primary key, email text, photo bytea)")
    refused = soft(destination, delete(1), schema_evolution={"new_column": "ignore"})
    assert "public.users lacks the column _rb_deleted_at" in refused.stopped["users"]["message"]
    soft(destination, insert(1, "a"), delete(1))
    assert rows(destination_db) == [(1, "a", None, committed(100))]


def test_deleted_rows_without_a_key_are_refused(destination: Destination, marked: Database) -> None:
    applied = apply_changes(destination, KEYLESS, delete(1, "a", b"\1"), deletes="soft")
    assert applied.stopped["users"]["kind"] == "schema"
    assert "soft deletes need one" in applied.stopped["users"]["message"]


# Every change as a row

HISTORY = (
    "create table users (_rb_op text not null, _rb_lsn pg_lsn not null, _rb_seq bigint not null,"
    " _rb_commit_ts timestamptz not null, _rb_unchanged text[], id bigint, email text, photo bytea)"
)


def test_a_history_has_every_change_in_its_order(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(HISTORY)
    changes = [
        insert(1, "a", b"\1"),
        update(1, "b", None, unchanged=["photo"]),
        old(1),
        update(2, None, b"\2", unchanged=["email", "photo"]),
        delete(2),
        truncate(),
    ]
    applied = apply_changes(destination, USERS, *changes, lsn=0x16B3748, write_mode="append")
    told = destination_db.fetch("select *, ctid from users order by _rb_lsn, _rb_seq")
    when = committed(0x16B3748)
    assert [row[:-1] for row in told] == [
        ("insert", "0/16B3748", 1, when, None, 1, "a", b"\1"),
        ("update", "0/16B3748", 2, when, ["photo"], 1, "b", None),
        ("delete", "0/16B3748", 3, when, None, 1, None, None),
        ("update", "0/16B3748", 4, when, ["email", "photo"], 2, None, b"\2"),
        ("delete", "0/16B3748", 5, when, None, 2, None, None),
        ("truncate", "0/16B3748", 6, when, None, None, None, None),
    ]
    assert told == sorted(told, key=lambda row: row[-1]), "in the order in which they were made"
    assert applied.feed.changes == []
    assert applied.result["streams"]["users"]["rows"] == 6


def test_a_history_is_of_tables_of_every_identity(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(HISTORY)
    apply_changes(destination, KEYLESS, old(1, "a"), update(1, "b"), delete(1, "b"), write_mode="append")
    nothing = Table("users", COLUMNS, key=(), replica_identity="nothing")
    apply_changes(destination, nothing, insert(1, "a"), lsn=200, write_mode="append")
    assert destination_db.fetch("select _rb_op, id, email from users order by _rb_lsn, _rb_seq") == [
        ("delete", 1, "a"),
        ("update", 1, "b"),
        ("delete", 1, "b"),
        ("insert", 1, "a"),
    ]


def test_a_change_that_the_history_refuses_is_kept(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(HISTORY.replace("email text", "email text check (email <> 'bad')"))
    changes = [insert(1, "a"), insert(2, "bad"), insert(3, "c"), update(1, "bad"), update(1, "d")]
    applied = apply_changes(destination, USERS, *changes, write_mode="append", on_data_error="dlq")
    assert destination_db.fetch("select _rb_seq, email from users order by 1") == [(1, "a"), (3, "c"), (5, "d")]
    assert applied.prepared[0]["streams"]["users"] == {"rows": 5, "rejected": 2}
    records = [letter["record"] for letter in applied.feed.letters]
    assert [(told["_rb_op"], told["_rb_seq"], told["_rb_lsn"]) for told in records] == [
        ("insert", 2, "0/64"),
        ("update", 4, "0/64"),
    ]


# Tables without a key


@pytest.fixture
def bag(destination_db: Database) -> Database:
    """Row 1 twice, row 2 once, and one that is all NULL but for its number."""
    destination_db.execute("create table users (id bigint, email text, photo bytea)")
    destination_db.execute(
        r"insert into users values (1, 'a', '\x01'), (1, 'a', '\x01'), (2, 'b', '\x02'), (3, null, null)"
    )
    return destination_db


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([delete(1, "a", b"\1")], [(1, "a"), (2, "b"), (3, None)]),
        ([delete(1, "a", b"\1"), delete(1, "a", b"\1")], [(2, "b"), (3, None)]),
        ([delete(3, None, None)], [(1, "a"), (1, "a"), (2, "b")]),
        ([insert(2, "b", b"\2"), insert(2, "b", b"\2")], [(1, "a"), (1, "a"), (2, "b"), (2, "b"), (2, "b"), (3, None)]),
        ([old(1, "a", b"\1"), update(1, "x", b"\1")], [(1, "a"), (1, "x"), (2, "b"), (3, None)]),
        # What comes and goes leaves nothing, and no row that was there goes instead.
        ([insert(2, "b", b"\2"), delete(2, "b", b"\2")], [(1, "a"), (1, "a"), (2, "b"), (3, None)]),
        ([truncate(), insert(7, "g")], [(7, "g")]),
    ],
)
def test_rows_without_a_key_are_found_by_all_that_they_hold(
    destination: Destination, bag: Database, changes: list[Change], expected: list[Row]
) -> None:
    apply_changes(destination, KEYLESS, *changes)
    assert bag.fetch("select id, email from users order by id, email") == expected


def test_values_without_equality_are_compared_all_the_same(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table things (place point, doc json, n numeric)")
    destination_db.execute("""insert into things values ('(1,2)', '{"a": 1}', 1.0), ('(1,2)', '{"a": 1}', 1.00)""")
    things = Table(
        "things",
        [
            column("place", pa.string(), "point"),
            column("doc", pa.string(), "json"),
            column("n", pa.string(), "numeric"),
        ],
        key=(),
        replica_identity="full",
    )
    applied = apply_changes(destination, things, delete("(1,2)", '{"a": 1}', "1.00"), insert("(3,4)", "[]", "2.5"))
    assert applied.stopped == {}
    assert destination_db.fetch("select place::text, doc::text, n::text from things order by n") == [
        ("(1,2)", '{"a": 1}', "1.0"),
        ("(3,4)", "[]", "2.5"),
    ]


def test_a_table_with_nothing_to_tell_its_rows_by_is_refused(destination: Destination, bag: Database) -> None:
    table = Table("users", COLUMNS, key=(), replica_identity="default")
    stop = apply_changes(destination, table, insert(5, "e")).stopped["users"]
    assert stop["kind"] == "schema"
    assert "REPLICA IDENTITY FULL" in stop["hint"]
    named = apply_changes(destination, USERS, insert(5, "e"), primary_key=["email"]).stopped["users"]
    assert named["message"] == "public.users: the source tells changed rows by (id), and `primary_key` is (email)"


def test_a_key_that_the_pipeline_names_is_the_rows_where_all_of_them_is_told(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint, email text, photo bytea)")
    apply_changes(destination, KEYLESS, insert(1, "a"), insert(2, "b"), primary_key=["email"])
    items: list[Item] = [
        *KEYLESS.messages(200, old(1, "a"), update(5, "a"), delete(2, "b"), insert(3, "c")),
        position(1, "users", final=True),
    ]
    apply(destination, items, {"name": "users", "primary_key": ["email"]})
    assert destination_db.fetch("select id, email from users order by 1") == [(3, "c"), (5, "a")]


def test_keys_that_meet_until_a_deferred_constraint_is_checked_are_told_apart(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint primary key, email text, photo bytea)")
    destination_db.execute("insert into users select i, i::text from generate_series(1, 20) i")
    moved: list[Change] = []
    for number in range(1, 21):
        moved += [old(number, str(number)), update(number + 1, str(number))]
    applied = apply_changes(destination, KEYLESS, *moved, primary_key=["id"])
    assert applied.stopped == {}
    expected = [(number + 1, str(number)) for number in range(1, 21)]
    assert destination_db.fetch("select id, email from users order by id") == expected
