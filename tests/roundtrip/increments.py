"""Incremental streams: a table that grows, and what arrives of it run by run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import sql

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import unique_name
from tests.roundtrip.builtin_types import Case
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.movement import LANDING, Pair
from tests.roundtrip.tables import literal

CURSOR = "the cursor"
ROWS_OF_A_VALUE = 3

USABLE = re.compile("smallint|integer|bigint|numeric.*|text|character.*|bpchar|uuid|date|timestamp.*")
"""The types of columns that can be cursors."""
WITH_INFINITY = re.compile("numeric.*|date|timestamp.*")


@dataclass(frozen=True)
class Way:
    """How the rows arrive, and what tells them apart: the table's key, or all that is in them."""

    write_mode: str
    keyed: bool = True

    def __str__(self) -> str:
        return f"{self.write_mode} {'by key' if self.keyed else 'by whole rows'}"


WAYS = (Way("append"), Way("append", keyed=False), Way("upsert"))

EACH_WAY = pytest.mark.parametrize("way", WAYS, ids=str)


def incremental_pipeline(
    folder: Path, pair: Pair, table: str, target: str, cursor: str, write_mode: str, *, tie_breaker: str | None = None
) -> Pipeline:
    """One that no other test's watermark or state is about."""
    stream = {"name": table, "table": target, "sync_mode": "incremental", "cursor_field": cursor}
    return make_pipeline(
        folder,
        pair.source,
        pair.destination,
        [{**stream, **({"tie_breaker_field": tie_breaker} if tie_breaker else {})}],
        name=unique_name("following"),
        write_mode=write_mode,
    )


def assert_follows(folder: Path, pair: Pair, table: str, way: Way) -> None:
    """Moves a part of the table's rows, the rest, nothing, and what changed, compared after each run.

    The table is one of `Sheet.create`. An integer beside its columns is the cursor: `ROWS_OF_A_VALUE` rows share each
    value, also those that lie on both sides of the end of the first run. Without a key every row is there twice.

    Upserted arrays travel in the form that suits those which are read with them; rows of the last cursor value are sent
    again when that is another.
    """
    growing = Table(pair.source, "public", unique_name("growing"))
    target = Table(pair.destination, LANDING, growing.name)
    like = "INCLUDING INDEXES" if way.keyed else ""
    pair.source.execute(
        f"CREATE TABLE {growing.quoted} (LIKE {Table(pair.source, 'public', table).quoted} {like});"
        f'ALTER TABLE {growing.quoted} OWNER TO etl, ADD "{CURSOR}" integer NOT NULL',
        superuser=True,
    )
    rows = pair.source.fetch_value(f"SELECT count(*) FROM {Table(pair.source, 'public', table).quoted}")
    middle = rows // 2 // ROWS_OF_A_VALUE * ROWS_OF_A_VALUE + 1
    copies = 1 if way.keyed else 2
    with growing.connect() as connection:
        has_arrays = any(column.type.endswith("[]") for column in growing.columns(connection))
    sent_again = ROWS_OF_A_VALUE if has_arrays and way.write_mode == "upsert" else 0

    def grow(condition: str) -> None:
        for _ in range(copies):
            pair.source.execute(
                f"INSERT INTO {growing.quoted} SELECT *, n / {ROWS_OF_A_VALUE}"
                f" FROM {Table(pair.source, 'public', table).quoted} WHERE {condition}",
                superuser=True,
            )

    pipeline = incremental_pipeline(folder, pair, growing.name, target.name, CURSOR, way.write_mode)
    with open_state(pipeline, {}) as state:

        def assert_arrives(expected: int) -> None:
            assert expected <= run(pipeline, state=state).rows <= expected + sent_again
            assert_same(growing, target, keyed=way.write_mode == "upsert")

        grow(f"n < {middle}")
        assert_arrives(copies * middle)
        grow(f"n >= {middle}")
        assert_arrives(copies * (rows - middle))
        assert_arrives(0)
        if way.write_mode == "upsert":
            assert_arrives(change(growing))


def change(growing: Table) -> int:
    """Every second row takes what the one before it has, and a cursor beyond all others. Returns how many did."""
    with growing.connect() as connection:
        others = [c.name for c in growing.columns(connection) if c.name not in ("n", CURSOR)]
        assignments = (sql.SQL("{0} = before.{0}").format(sql.Identifier(name)) for name in others)
        return connection.execute(
            sql.SQL(
                "UPDATE {0} AS changed SET {1}, {2} = changed.{2} + 1000 FROM {0} AS before"
                " WHERE before.n = changed.n - 1 AND changed.n % 2 = 1"
            ).format(growing.identifier, sql.SQL(", ").join(assignments), sql.Identifier(CURSOR))
        ).rowcount


def assert_resumes(folder: Path, pair: Pair, case: Case, write_mode: str) -> int:
    """A column of the case's type is the cursor, and its values appear from the least to the greatest, a run for each.

    With each value comes another row of the one before, and rows that have no place in the order: NULL, not a number,
    infinity. The former arrive in the next run and in no other, the latter never. Returns the number of runs.
    """
    subject = unique_name("resumed")
    source, expected = (Table(pair.source, "public", name) for name in (subject, f"{subject} without"))
    target = Table(pair.destination, LANDING, subject)
    for table in (source, expected):
        pair.source.execute(f"CREATE TABLE {table.quoted} (id integer PRIMARY KEY, v text, k {case.type})")
    steps, left_out = in_order(pair, case)
    pipeline = incremental_pipeline(folder, pair, subject, target.name, "k", write_mode)
    rows = 0

    def insert(texts: Sequence[str | None], tables: Sequence[Table]) -> None:
        nonlocal rows
        for text in texts:
            rows += 1
            for table in tables:
                pair.source.execute(f"INSERT INTO {table.quoted} VALUES ({rows}, 'row {rows}', {literal(text)})")

    previous: list[str] = []
    with open_state(pipeline, {}) as state:
        for step in steps:
            insert([None, *left_out], [source])
            appeared = [*previous, *step, *step[:1]]
            insert(appeared, [source, expected])
            assert run(pipeline, state=state).rows == len(appeared)
            assert_same(expected, target, keyed=write_mode == "upsert")
            previous = step[-1:]
        assert run(pipeline, state=state).rows == 0
        assert_same(expected, target, keyed=write_mode == "upsert")
    return len(steps) + 1


def in_order(pair: Pair, case: Case) -> tuple[list[list[str]], list[str]]:
    """The case's literals as the server orders them, those of equal values together; and those without a place."""
    literals = list(case.literals)
    outside = "false"
    if WITH_INFINITY.fullmatch(case.type):
        outside = "lower(k::text) IN ('nan', 'infinity')"
    values = ", ".join(f"({number}, {literal(text)}::{case.type})" for number, text in enumerate(literals))
    rows = pair.source.fetch(
        f"SELECT n, dense_rank() OVER (ORDER BY k), {outside} FROM (VALUES {values}) AS rows (n, k) ORDER BY 2, 1"
    )
    steps: dict[int, list[str]] = {}
    for number, rank, is_outside in rows:
        if not is_outside:
            steps.setdefault(rank, []).append(literals[number])
    return list(steps.values()), [literals[number] for number, _, is_outside in rows if is_outside]
