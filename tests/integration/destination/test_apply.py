"""Changes of tables, applied by key."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.runtime import Item
from tests.integration.destination.changes import (
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

USERS = Table(
    "users",
    [
        column("id", pa.int64(), "bigint", nullable=False),
        column("email", pa.string(), "text"),
        column("photo", pa.binary(), "bytea"),
    ],
)
ORDERS = Table(
    "orders",
    [column("id", pa.int64(), "bigint", nullable=False), column("user_id", pa.int64(), "bigint")],
)
Row = tuple[Any, ...]


@pytest.fixture
def users(destination_db: Database) -> Database:
    """Rows 1 to 3 are there."""
    destination_db.execute("create table users (id bigint primary key, email text, photo bytea)")
    destination_db.execute(r"insert into users values (1, 'a', '\x01'), (2, 'b', '\x02'), (3, 'c', '\x03')")
    return destination_db


def content(database: Database) -> list[Row]:
    return [(i, e, p and bytes(p)) for i, e, p in database.fetch("select id, email, photo from users order by id")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((insert(4, "d"),), [(4, "d", None)]),
        ((update(1, "x", b"y"),), [(1, "x", b"y")]),
        ((delete(1),), []),
        # Of several changes of a row the last one counts.
        ((insert(4, "d"), update(4, "e"), update(4, "f")), [(4, "f", None)]),
        ((insert(4, "d"), delete(4)), []),
        ((delete(1), insert(1, "new")), [(1, "new", None)]),
        ((insert(4, "d"), delete(4), insert(4, "again")), [(4, "again", None)]),
        ((update(1, "x", b"y"), delete(1)), []),
        # The key changes.
        ((old(1), update(9, "a", b"\1")), [(9, "a", b"\1")]),
        ((old(1), update(9, "a", b"\1"), update(9, "z", None)), [(9, "z", None)]),
        ((old(1), update(9, "a", b"\1"), delete(9)), []),
        ((old(1), update(9, "a", b"\1"), insert(1, "other")), [(1, "other", None), (9, "a", b"\1")]),
        ((insert(4, "d"), old(4), update(5, "d")), [(5, "d", None)]),
        # Values that are not told stay: those of the table, or of an earlier change.
        ((update(1, "x", None, unchanged=["photo"]),), [(1, "x", b"\1")]),
        ((update(1, None, b"new", unchanged=["email"]), update(1, "x", None, unchanged=["photo"])), [(1, "x", b"new")]),
        ((insert(4, "d", b"\4"), update(4, "e", None, unchanged=["photo"])), [(4, "e", b"\4")]),
        ((update(1, "x", None, unchanged=["photo"]), update(1, "y", None, unchanged=["photo"])), [(1, "y", b"\1")]),
        ((old(1), update(9, "x", None, unchanged=["photo"])), [(9, "x", b"\1")]),
        (
            (old(1), update(8, "x", None, unchanged=["photo"]), old(8), update(9, "y", None, unchanged=["photo"])),
            [(9, "y", b"\1")],
        ),
        ((old(1), update(9, "x", None, unchanged=["photo"]), delete(9)), []),
        ((old(1), update(9, "x", None, unchanged=["photo"]), update(9, "y", b"\5")), [(9, "y", b"\5")]),
        (
            (old(1), update(9, "x", None, unchanged=["photo"]), insert(1, "other", b"\7")),
            [(1, "other", b"\7"), (9, "x", b"\1")],
        ),
        (
            (old(1), update(9, "x", None, unchanged=["photo"]), old(9), update(1, "y", None, unchanged=["photo"])),
            [(1, "y", b"\1")],
        ),
    ],
)
def test_a_row_is_as_its_last_change_leaves_it(
    destination: Destination, users: Database, changes: tuple[Change, ...], expected: list[Row]
) -> None:
    untouched = [(2, "b", b"\2"), (3, "c", b"\3")]
    if not any(change.values[:1] == (1,) for change in changes):
        untouched.insert(0, (1, "a", b"\1"))
    applied = apply_changes(destination, USERS, *changes)
    assert content(users) == sorted([*untouched, *expected])
    assert applied.prepared[0]["streams"] == {"users": {"rows": len(changes), "rejected": 0}}
    assert applied.stopped == {}


def test_it_comes_to_the_same_in_one_commit_and_in_one_for_each_change(
    destination: Destination, users: Database
) -> None:
    changes = [
        insert(4, "d", b"\4"),
        update(4, "e", None, unchanged=["photo"]),
        old(4),
        update(5, "f", None, unchanged=["photo"]),
        delete(1),
        insert(1, "again", b"\1"),
        update(2, None, b"\2\2", unchanged=["email"]),
    ]
    items: list[Item] = []
    number = 0
    for i, change in enumerate(changes):
        if change.op == "old":
            continue
        number += 1
        both = changes[i - 1 : i + 1] if i > 0 and changes[i - 1].op == "old" else [change]
        items += [*USERS.messages(100 + i, *both), position(number, "users", lsn=101 + i)]
    apply(destination, items, "users")
    expected = content(users)
    assert expected == [(1, "again", b"\1"), (2, "b", b"\2\2"), (3, "c", b"\3"), (5, "f", b"\4")]
    users.execute(r"truncate users; insert into users values (1, 'a', '\x01'), (2, 'b', '\x02'), (3, 'c', '\x03')")
    apply_changes(destination, USERS, *changes)
    assert content(users) == expected


def test_several_tables_and_their_positions_are_committed_together(destination: Destination, users: Database) -> None:
    users.execute("create table orders (id bigint primary key, user_id bigint references users)")
    seen: list[list[Row]] = []

    def look(_: dict[str, Any]) -> None:
        seen.append(users.fetch("select * from users full join orders using (id) where id = 7"))

    items: list[Item] = [
        *USERS.messages(100, insert(7, "g")),
        *ORDERS.messages(100, insert(7, 7), seq=2),
        position(5, "users", "orders", final=True, lsn=108),
    ]
    # The child's stream comes first: what it refers to is written before it all the same.
    applied = apply(destination, items, "orders", "users", on_prepare=look)
    assert seen == [[]]
    assert users.fetch("select id, user_id from orders") == [(7, 7)]
    assert applied.opened["watermarks"] == {"orders": None, "users": None}
    assert applied.prepared == [
        {
            "sequence": 5,
            "rows": 2,
            "bytes": applied.prepared[0]["bytes"],
            "streams": {"orders": {"rows": 1, "rejected": 0}, "users": {"rows": 1, "rejected": 0}},
            "stopped": {},
        }
    ]
    cursor = {"lsn": "0/6C", "commit_ts": None}
    marks = apply(destination, [position(6, "users", "orders", final=True)], "users", "orders").opened["watermarks"]
    assert marks["users"] == {"sequence": 5, "cursor": cursor, "run_id": "run", "final": True}
    assert marks["orders"] == {"sequence": 5, "cursor": cursor, "run_id": "run", "final": True}
    # Parents go last.
    items = [
        *ORDERS.messages(200, delete(7)),
        *USERS.messages(200, delete(7), seq=2),
        position(7, "users", "orders", final=True),
    ]
    result = apply(destination, items, "users", "orders").result["streams"]
    assert users.fetch("select * from orders") == []
    assert {name: told["deleted"] for name, told in result.items()} == {"users": 1, "orders": 1}


def test_tables_that_refer_to_each_other_are_truncated_together(destination: Destination, users: Database) -> None:
    users.execute("create table orders (id bigint primary key, user_id bigint references users)")
    users.execute("insert into orders values (1, 1)")
    items: list[Item] = [
        *USERS.messages(100, truncate(), insert(1, "new")),
        *ORDERS.messages(100, truncate(), insert(9, 1), seq=3),
        position(1, "users", "orders", final=True),
    ]
    applied = apply(destination, items, "users", "orders")
    assert applied.stopped == {}
    assert content(users) == [(1, "new", None)]
    assert users.fetch("select id, user_id from orders") == [(9, 1)]
    assert applied.result["streams"]["users"]["truncated"] == 1


def test_a_table_that_others_refer_to_is_emptied_row_by_row(destination: Destination, users: Database) -> None:
    users.execute("create table notes (user_id bigint references users on delete cascade)")
    users.execute("insert into notes values (1)")
    apply_changes(destination, USERS, truncate())
    assert content(users) == []
    assert users.fetch("select * from notes") == []


def test_a_truncation_is_ignored_or_stops_the_stream_where_that_is_asked_for(
    destination: Destination, users: Database
) -> None:
    before = content(users)
    apply_changes(destination, USERS, truncate(), insert(1, "new"), truncate="ignore")
    assert content(users) == [(1, "new", None), *before[1:]]
    applied = apply_changes(destination, USERS, insert(8, "h"), truncate(), truncate="fail")
    assert applied.stopped["users"]["kind"] == "data"
    assert applied.stopped["users"]["message"] == "public.users was truncated at the source (truncate: fail)"
    assert content(users) == [(1, "new", None), *before[1:]]
    assert destination.database.fetch("select sequence, cursor ->> 'lsn' from _rapidbyte_watermarks") == [(1, "0/6C")]


def test_values_that_change_places_within_one_transaction_do(destination: Destination, users: Database) -> None:
    users.execute("create unique index on users (email)")
    apply_changes(destination, USERS, update(1, "tmp"), update(2, "a"), update(1, "b"), delete(3), insert(4, "c"))
    assert content(users) == [(1, "b", None), (2, "a", None), (4, "c", None)]
    # And keys.
    apply_changes(destination, USERS, old(1), update(-1, "b"), old(2), update(1, "a"), old(-1), update(2, "b"))
    assert content(users) == [(1, "a", None), (2, "b", None), (4, "c", None)]
