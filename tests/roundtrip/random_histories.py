"""Random tables that change between runs of random streams, with what has to have arrived after each.

What a history expects is kept beside its table, in the source database, in a table of the same columns: the database
compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.postgres_server import Database
from tests.roundtrip.comparison import Table
from tests.roundtrip.random_tables import Generator, RandomColumn, create_pool, define, random_fields

# A value for each number `i`, no two the same.
KEYS = {
    "integer": "i",
    "bigint": "i * 1000000007::bigint",
    "numeric": "i / 100.0",
    "numeric(9,2)": "-i",
    "double precision": "i / 3.0",
    "text": "'k' || i",
    "character(12)": "i || 'ß'",
    "bytea": "int4send(i)",
    "uuid": "md5(i::text)::uuid",
    "date": "date '2000-01-01' - i",
    "timestamptz": "timestamptz '1999-12-31 23:59:59.999Z' + i * interval '1 us'",
    "interval": "make_interval(mins => i)",
    "inet": "inet '10.0.0.0' + i",
    "int4range": "int4range(i, i + 1)",
    "integer[]": "ARRAY[i, NULL]",
    "jsonb": "jsonb_build_object('k', i)",
    "word": "'w' || i",
    "pair": "ROW(i, NULL, ARRAY[i])::pair",
}

# A value for each number `tick`, in their order.
CURSORS = {
    "integer": "tick",
    "bigint": "tick * 1000000007::bigint",
    "numeric": "tick / 8.0",
    "numeric(12,3)": "tick / 8.0",
    "text": "lpad(tick::text, 9, '0') || 'ß'",
    "character varying(20)": "'it''s ' || lpad(tick::text, 9, '0')",
    "character(12)": "lpad(tick::text, 9, '0')",
    "uuid": "lpad(to_hex(tick), 32, '0')::uuid",
    "date": "date '0001-12-01 BC' + tick",
    "timestamp": "timestamp '0001-12-31 23:59:59.9 BC' + tick * interval '1 hour'",
    "timestamptz": "timestamptz '1969-12-31 23:59:59.999990Z' + tick * interval '1 us'",
}

INCREMENTAL_MODES = ("append", "upsert")
FULL_MODES = ("append", "replace", "upsert")
ROWS_OF_A_STEP = (0, 1, 10, 100, 1000)
NULL_TICKS = 0.1


@dataclass(frozen=True)
class History:
    """A stream and the table it reads: columns `n` (the row's number), `key`, `at` (the cursor) and random ones."""

    sync_mode: str
    write_mode: str
    key_type: str
    cursor_type: str
    key: tuple[str, ...]
    """Columns that tell rows apart, none for a table without key."""
    declared: bool
    """The key is the table's primary key; else the stream names it."""
    tie_breaker: str | None
    columns: tuple[RandomColumn, ...]
    projection: tuple[str, ...] | None
    stream: dict[str, Any]

    @classmethod
    def generate(cls, generator: Generator) -> History:
        chosen = generator.random
        sync_mode = chosen.choice(["full_refresh", "incremental", "incremental"])
        write_mode = chosen.choice(INCREMENTAL_MODES if sync_mode == "incremental" else FULL_MODES)
        columns = tuple(generator.columns(chosen.randint(1, 9), narrow=False))
        key = chosen.choice([("n",), ("key",), ("key", "n"), ("n", "at", "key")])
        if sync_mode == "incremental" or chosen.random() < 0.5:
            # Changes move rows in the order of `at`, and leave their keys alone.
            key = tuple(name for name in key if name != "at")
        declared = chosen.random() < 0.7
        if write_mode == "append" and (sync_mode == "full_refresh" or chosen.random() < 0.5):
            # Each run brings every row again, or rows that changed: a key would not let them.
            key, declared = (), False
        tie_breaker = None
        if sync_mode == "incremental" and write_mode == "append" and chosen.random() < 0.3:
            tie_breaker = chosen.choice(["n", "key"])
        names = ["n", "key", "at", *(column.name for column in columns)]
        needed = {*key, *([tie_breaker] if tie_breaker else []), *(["at"] if sync_mode == "incremental" else [])}
        projection: tuple[str, ...] | None = None
        if chosen.random() < 0.4:
            others = [name for name in names if name not in needed]
            wanted = sorted([*needed, *chosen.sample(others, chosen.randint(0 if needed else 1, len(others)))])
            projection = tuple(chosen.sample(wanted, len(wanted)))
        stream: dict[str, Any] = {"sync_mode": sync_mode}
        if sync_mode == "incremental":
            stream["cursor_field"] = "at"
        elif chosen.random() < 0.5:
            stream["shards"] = chosen.choice([1, 2, 3])
        if tie_breaker:
            stream["tie_breaker_field"] = tie_breaker
        if projection:
            stream["columns"] = list(projection)
        if key and not declared:
            stream["primary_key"] = list(key)
        return cls(
            sync_mode=sync_mode,
            write_mode=write_mode,
            key_type=chosen.choice(list(KEYS)),
            cursor_type=chosen.choice(list(CURSORS)),
            key=key,
            declared=declared,
            tie_breaker=tie_breaker,
            columns=columns,
            projection=projection,
            stream=stream,
        )

    @property
    def is_incremental(self) -> bool:
        return self.sync_mode == "incremental"

    @property
    def may_change(self) -> bool:
        """Rows that are read again arrive beside those of the same key, where they are appended."""
        return self.write_mode != "append" or not self.key

    @property
    def keeps_key(self) -> bool:
        """A table that is appended to gets the key that its stream names, and not the one that the source declares."""
        return self.write_mode != "append" or not self.declared

    def __str__(self) -> str:
        columns = ", ".join(f"{column.name!r} {column.type}" for column in self.columns)
        return (
            f"{self.sync_mode} {self.write_mode}, {'declared' if self.declared else 'named'} key {self.key},"
            f" key {self.key_type}, at {self.cursor_type}, stream {self.stream}, columns {columns}"
        )


class Past:
    """A history that goes on: `steps` changes the table and yields, then expects what a run has brought."""

    def __init__(self, database: Database, name: str, history: History, generator: Generator) -> None:
        self.history = history
        self.table = Table(database, "public", name)
        self.expected = Table(database, "public", f"{name} expected")
        self._generator = generator
        self._next = 1
        self._tick = 1
        self._salt = 0
        self._alive: list[int] = []

    def steps(self, count: int) -> Iterator[str]:
        """Yields what was done to the table, `count` times; the run that follows has to bring it."""
        with self.table.database.connect() as connection:
            create_pool(connection, self.history.columns)
            self._create(connection)
            for step in range(count):
                done = self._change(connection, first=step == 0)
                yield done

    def _create(self, connection: psycopg.Connection[Any]) -> None:
        history = self.history
        key = sql.SQL(", PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, history.key)))
        for table, is_keyed in (
            (self.table, history.declared),
            (self.expected, bool(history.key)),
        ):
            connection.execute(
                sql.SQL("CREATE TABLE {} (n integer NOT NULL, key {} NOT NULL, at {} {}, {}{})").format(
                    table.identifier,
                    sql.SQL(history.key_type),
                    sql.SQL(history.cursor_type),
                    sql.SQL("NOT NULL" if "at" in history.key else ""),
                    define(history.columns),
                    key if is_keyed else sql.SQL(""),
                )
            )

    def _change(self, connection: psycopg.Connection[Any], *, first: bool) -> str:
        chosen, history = self._generator.random, self.history
        inserted = [self._next + i for i in range(chosen.choice(ROWS_OF_A_STEP))]
        self._next += len(inserted)
        updated: list[int] = []
        deleted: list[int] = []
        if not first and self._alive and history.may_change:
            updated = sorted(chosen.sample(self._alive, chosen.randint(0, len(self._alive))))
        if not first and self._alive and chosen.random() < 0.5:
            deleted = sorted(chosen.sample(self._alive, chosen.randint(0, len(self._alive) // 2)))
            updated = [number for number in updated if number not in set(deleted)]
        # Rows that are appended are told apart by what does not change with them, as long as they share a cursor.
        start = self._tick + (1 if history.write_mode == "append" and updated else 0)
        self._insert(connection, deleted, updated, inserted, start)
        self._alive = [number for number in self._alive if number not in set(deleted)] + inserted
        self._expect(connection, inserted, updated)
        return f"{len(inserted)} inserted, {len(updated)} updated, {len(deleted)} deleted"

    def _insert(
        self,
        connection: psycopg.Connection[Any],
        deleted: list[int],
        updated: list[int],
        inserted: list[int],
        start: int,
    ) -> None:
        """Rows that change are deleted and inserted as they are then. Their cursors lie at `start` and beyond."""
        history, chosen = self.history, self._generator.random
        self._salt += 1000
        picked, joins = random_fields(history.columns, salt=self._salt)
        last = start + chosen.choice([0, 1, 5, 1000])
        ticks = {number: chosen.randint(start, last) for number in (*updated, *inserted)}
        if "at" in history.key:
            ticks.update({number: number for number in ticks})
        else:
            for number in ticks:
                if chosen.random() < NULL_TICKS:
                    ticks[number] = 0
        with connection.transaction():
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE n = ANY({})").format(self.table.identifier, numbers(deleted + updated))
            )
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} SELECT i, {}, CASE WHEN tick > 0 THEN {} END, {}"
                    " FROM unnest({}, {}) AS rows (i, tick) {}"
                ).format(
                    self.table.identifier,
                    sql.SQL(KEYS[history.key_type]),
                    sql.SQL(CURSORS[history.cursor_type]),
                    picked,
                    numbers(list(ticks)),
                    numbers(list(ticks.values())),
                    joins,
                )
            )
        self._tick = max([self._tick, *ticks.values()])

    def _expect(self, connection: psycopg.Connection[Any], inserted: list[int], updated: list[int]) -> None:
        history = self.history
        table, expected = self.table.identifier, self.expected.identifier
        rows = sql.SQL("SELECT * FROM {}").format(table)
        if history.is_incremental:
            rows = sql.SQL("{} WHERE n = ANY({}) AND at IS NOT NULL").format(rows, numbers([*inserted, *updated]))
        if history.write_mode == "replace":
            connection.execute(sql.SQL("TRUNCATE {}").format(expected))
        elif history.write_mode == "upsert":
            connection.execute(sql.SQL("DELETE FROM {} WHERE n IN (SELECT n FROM ({}) AS rows)").format(expected, rows))
        connection.execute(sql.SQL("INSERT INTO {} {}").format(expected, rows))


def numbers(values: Sequence[int]) -> sql.Composable:
    """An array of integers. Names with percent signs leave no room for parameters."""
    return sql.SQL("{}::integer[]").format(sql.Literal(list(values)))
