"""The table that is captured: 5 columns, a primary key, and as many rows before as come during the changes.

Of a million changes 500,000 are inserts, 400,000 updates and 100,000 deletes; no row is touched twice, so that nobody
gains by leaving intermediate states out. Updates and deletes go to and fro in the table.
"""

from __future__ import annotations

from typing import Any

import psycopg
from typing_extensions import LiteralString

NAME = "changes"
TRANSACTIONS = 3_000
"""For a million changes; fewer changes come in fewer transactions of the same size."""

COLUMNS: tuple[tuple[LiteralString, LiteralString], ...] = (
    ("id", "bigint"),
    ("kind", "integer"),
    ("amount", "numeric(12,2)"),
    ("title", "text"),
    ("at", "timestamp with time zone"),
)
DEFINITION: LiteralString = ", ".join(f"{name} {kind}" for name, kind in COLUMNS) + ", primary key (id)"

ROWS: LiteralString = """
    select i, (hashint8(i) & 2147483647) %% 1000, ((hashint8(i) & 2147483647) %% 100000000) / 100.0,
           'change number ' || i, timestamptz '2024-01-01 00:00:00+00' + i * interval '1.000001 second'
    from generate_series(%(first)s::bigint, %(last)s::bigint) as i
"""
INSERT: LiteralString = f"insert into {NAME} {ROWS}"
STRIDE = 7919
"""Coprime to the numbers of rows that are changed: going by it meets each of them once."""

UPDATE: LiteralString = f"""
    update {NAME} set amount = amount + 1, title = title || ', changed'
    where id in (select 1 + k * {STRIDE} %% %(updated)s from generate_series(%(first)s::bigint, %(last)s::bigint) k)
"""
DELETE: LiteralString = f"""
    delete from {NAME} where id in (
        select 1 + %(updated)s + k * {STRIDE} %% %(deleted)s from generate_series(%(first)s::bigint, %(last)s::bigint) k
    )
"""

Connection = psycopg.Connection[Any]


def before(changes: int) -> int:
    """The number of rows before, and of those that are inserted."""
    return changes // 2


def create(connection: Connection, table: LiteralString) -> None:
    connection.execute(f"create table {table} ({DEFINITION})")


def seed(connection: Connection, changes: int) -> None:
    connection.execute(INSERT, {"first": 1, "last": before(changes)})
    connection.execute(f"vacuum (freeze, analyze) {NAME}")


def last_id(changes: int) -> int:
    """Of the row that the last transaction inserts last: once it is there, everything is."""
    return 2 * before(changes)


def make(connection: Connection, changes: int, *, transactions: int | None = None) -> None:
    """Makes `changes` changes, in transactions of equal size."""
    count = transactions or max(1, changes * TRANSACTIONS // 1_000_000)
    inserted, deleted = before(changes), changes // 10
    updated = before(changes) - deleted
    for number in range(count):
        with connection.transaction():
            for statement, total, after in ((UPDATE, updated, -1), (DELETE, deleted, -1), (INSERT, inserted, inserted)):
                first, last = after + 1 + total * number // count, after + total * (number + 1) // count
                if first <= last:
                    numbers = {"first": first, "last": last, "updated": updated, "deleted": deleted}
                    connection.execute(statement, numbers)


def content(connection: Connection, table: LiteralString) -> tuple[int, str]:
    """The number of rows and a hash of all values, whatever their order."""
    columns: LiteralString = ", ".join(name for name, _ in COLUMNS)
    row = connection.execute(
        f"select count(*), sum(hashtextextended(row({columns})::text, 0)::numeric)::text from {table}"
    ).fetchone()
    assert row is not None
    return int(row[0]), str(row[1])
