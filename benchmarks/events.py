"""The table that everybody moves: 12 columns of common types, about 145 bytes a row as COPY binary."""

from __future__ import annotations

from typing import Any

import psycopg
from typing_extensions import LiteralString

NAME = "events"

COLUMNS: tuple[tuple[LiteralString, LiteralString], ...] = (
    ("id", "bigint"),
    ("kind", "integer"),
    ("visitor", "bigint"),
    ("score", "double precision"),
    ("amount", "numeric(12,4)"),
    ("title", "text"),
    ("code", "character varying(16)"),
    ("active", "boolean"),
    ("happened_at", "timestamp with time zone"),
    ("day", "date"),
    ("token", "uuid"),
    ("remark", "text"),
)
"""Name and type; `remark` is NULL in every tenth row."""

DEFINITION: LiteralString = ", ".join(f"{name} {kind}" for name, kind in COLUMNS)

# Every value follows from the row's number: the same rows in every session. `%%` is `%` for psycopg.
ROWS: LiteralString = """
    select i,
           (hashint8(i) & 2147483647) %% 1000,
           hashint8extended(i, 1),
           (hashint8(i) & 2147483647) / 1000.0::float8,
           ((hashint8(i) & 2147483647) %% 100000000) / 10000.0,
           'event number ' || i || ' of kind ' || (hashint8(i) & 2147483647) %% 1000,
           'code-' || (hashint8(i) & 2147483647) %% 100000,
           i %% 3 = 0,
           timestamptz '2024-01-01 00:00:00+00' + i * interval '1.000001 second',
           date '2020-01-01' + (i %% 2000)::int,
           md5(i::text)::uuid,
           case when i %% 10 <> 0 then 'remark ' || (hashint8(i) & 2147483647) %% 10000 end
    from generate_series(%(first)s::bigint, %(last)s::bigint) as i
"""

SEED_CHUNK_ROWS = 1_000_000


def create(
    connection: psycopg.Connection[Any], table: LiteralString, *, primary_key: bool, fits: LiteralString | None = None
) -> None:
    """Creates `table` (written as SQL), empty; it takes no rows but those of which `fits` is true."""
    key: LiteralString = ", primary key (id)" if primary_key else ""
    check: LiteralString = f", check ({fits})" if fits else ""
    connection.execute(f"create table {table} ({DEFINITION}{key}{check})")


def seed(connection: psycopg.Connection[Any], rows: int, *, after: int = 0) -> None:
    """Fills `events` with the rows above number `after` up to `rows`, and leaves nothing for a reader to tidy up."""
    for first in range(after + 1, rows + 1, SEED_CHUNK_ROWS):
        last = min(first + SEED_CHUNK_ROWS - 1, rows)
        connection.execute(f"insert into {NAME} {ROWS}", {"first": first, "last": last})
    connection.execute(f"vacuum (freeze, analyze) {NAME}")


def change_every_second(connection: psycopg.Connection[Any]) -> None:
    """Changes a number, a text and a NULL or not in every second row of `events`; its rows stay in the key's order."""
    connection.execute(
        f"update {NAME} set amount = 99999999 - amount, title = title || ', changed',"
        " remark = case when remark is null then 'changed' end where id % 2 = 0"
    )
    connection.execute(f"cluster {NAME} using {NAME}_pkey")
    connection.execute(f"vacuum (freeze, analyze) {NAME}")


def content(
    connection: psycopg.Connection[Any], *tables: LiteralString, fits: LiteralString | None = None
) -> tuple[int, str]:
    """The number of rows and a hash of all values, whatever their order; only of the rows of which `fits` is true.
    Several tables count as one.

    A column of another type counts as equal when its values read the same: some peers land a uuid as text.
    """
    columns: LiteralString = ", ".join(f"{name}::{kind}" for name, kind in COLUMNS)
    rows: LiteralString = " union all ".join(f"select * from {table}" for table in tables)
    row = connection.execute(
        f"select count(*), sum(hashtextextended(row({columns})::text, 0)::numeric)::text from ({rows}) as moved"
        f" where {fits or 'true'}"
    ).fetchone()
    assert row is not None
    return int(row[0]), str(row[1])
