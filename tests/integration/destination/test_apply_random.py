"""Random changes in random commits: the tables are what the changes made of them one by one."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.runtime import Item
from tests.integration.destination.changes import Change, Table, apply, delete, insert, old, position, truncate, update
from tests.integration.destination.feed import Destination, batch_item, column, schema_item
from tests.postgres_server import Database

COLUMNS = [
    column("id", pa.int64(), "bigint", nullable=False),
    column("name", pa.string(), "text"),
    column("body", pa.string(), "text"),
]
KEYS = 12
Row = tuple[str | None, str | None]


class Source:
    """A table that is changed at random, and remembers what it was told to do."""

    def __init__(self, name: str, randomness: random.Random, identity: str) -> None:
        self.table = Table(name, COLUMNS, replica_identity=identity)
        self.rows: dict[int, Row] = {}
        self.gone: dict[int, Row] = {}
        """By key, what a row was last that is there no more."""
        self._random = randomness
        self._full = identity == "full"
        self._told = 0

    def change(self) -> list[Change]:
        """One of a few kinds; an update with its old row is two."""
        key = self._random.randrange(-KEYS, KEYS)
        self._told += 1
        name = f"name {self._told}"
        if key not in self.rows:
            return self._insert(key, name)
        kind = self._random.choice(["update", "update", "body", "delete", "move", "move", "truncate"])
        if kind == "truncate" and self._random.random() < 0.9:
            kind = "update"
        if kind == "move" and len(self.rows) == 2 * KEYS:
            kind = "delete"
        before = self.rows[key]
        if kind == "delete":
            self._leave(key)
            return [delete(key, *before) if self._full else delete(key)]
        if kind == "truncate":
            for each in list(self.rows):
                self._leave(each)
            return [truncate()]
        if kind == "body":
            self.rows[key] = (before[0], f"body {self._told}")
            return [update(key, *self.rows[key])]
        # The body stays, and is not told unless the whole old row is.
        row: Row = (name, before[1])
        unchanged = [] if self._full else ["body"]
        told = row if self._full else (name, None)
        if kind == "move":
            target = self._random.choice([k for k in range(-KEYS, KEYS) if k not in self.rows])
            self._leave(key)
            self.rows[target] = row
            self.gone.pop(target, None)
            previous = old(key, *before) if self._full else old(key)
            return [previous, update(target, *told, unchanged=unchanged)]
        self.rows[key] = row
        return [update(key, *told, unchanged=unchanged)]

    def _insert(self, key: int, name: str) -> list[Change]:
        self.rows[key] = (name, f"body {self._told}")
        self.gone.pop(key, None)
        return [insert(key, *self.rows[key])]

    def _leave(self, key: int) -> None:
        self.gone[key] = self.rows.pop(key)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tables_are_what_their_changes_made_of_them(
    destination: Destination, destination_db: Database, seed: int
) -> None:
    check(destination, destination_db, seed, changes=400)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 130))
def test_tables_are_what_many_changes_made_of_them(
    destination: Destination, destination_db: Database, seed: int
) -> None:
    check(destination, destination_db, seed, changes=1500)


def check(destination: Destination, database: Database, seed: int, *, changes: int) -> None:
    randomness = random.Random(seed)
    database.execute(
        "create table plain (id bigint primary key, name text unique, body text not null);"
        "create table whole (id bigint primary key, name text, body text);"
        "create table kept (id bigint primary key, name text, body text, _rb_deleted_at timestamptz)"
    )
    sources = {
        "plain": Source("plain", randomness, "default"),
        "whole": Source("whole", randomness, "full"),
        "kept": Source("kept", randomness, "default"),
    }
    streams: list[dict[str, Any]] = [{"name": "plain"}, {"name": "whole"}, {"name": "kept", "deletes": "soft"}]
    waiting: dict[str, list[tuple[int, int, Change]]] = {name: [] for name in sources}
    items: list[Item] = []
    number = lsn = seq = 0
    for _ in range(changes):
        if randomness.random() < 0.2:
            lsn, seq = lsn + 100, 0
        name = randomness.choice(list(sources))
        for change in sources[name].change():
            seq += 1
            waiting[name].append((lsn, seq, change))
        if randomness.random() < 0.1:
            items += flushed(sources, waiting)
        # Commits of every size, in the middle of transactions too: what was told is never of two of them.
        if randomness.random() < 0.03:
            number += 1
            items += [*flushed(sources, waiting), position(number, *sources)]
    items += [*flushed(sources, waiting), position(number + 1, *sources, final=True)]
    applied = apply(destination, items, *streams)
    assert applied.stopped == {}
    for name, source in sources.items():
        living = " where _rb_deleted_at is null" if name == "kept" else ""
        told = database.fetch(f"select id, name, body from {name}{living} order by id")
        assert told == [(key, *row) for key, row in sorted(source.rows.items())], name
    gone = database.fetch("select id, name, body from kept where _rb_deleted_at is not null order by id")
    assert gone == [(key, *row) for key, row in sorted(sources["kept"].gone.items())]


def flushed(sources: dict[str, Source], waiting: dict[str, list[tuple[int, int, Change]]]) -> list[Item]:
    """The messages of what waits, and nothing waits any more."""
    items: list[Item] = []
    for name, changes in waiting.items():
        if changes:
            table = sources[name].table
            items += [schema_item(table.schema), batch_item(table.batch_of(changes))]
            changes.clear()
    return items
