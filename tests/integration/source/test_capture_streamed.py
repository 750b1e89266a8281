"""Transactions that the server sends before they are committed: `logical_decoding_work_mem` decides which do.

Whatever it is set to, the same changes come, with the same numbers.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from demo.embedded_postgres import EmbeddedPostgres, Installation
from tests.integration.source.capturing import (
    INSERT,
    TRUNCATE,
    Captured,
    Capturing,
    CapturingHost,
    capturing,
    lsn_number,
)
from tests.postgres_server import Database

TABLES = ("users", "orders")


@pytest.fixture
def slot(source_db: Database) -> Iterator[Capturing]:
    create_tables(source_db)
    with capturing(source_db, TABLES) as slot:
        yield slot


def create_tables(database: Database) -> None:
    database.execute("CREATE TABLE users (id int PRIMARY KEY, name text, n bigint)")
    database.execute("CREATE TABLE orders (id int PRIMARY KEY, note text); ALTER TABLE orders REPLICA IDENTITY FULL")


@contextlib.contextmanager
def streaming(database: Database) -> Iterator[None]:
    """Everything that is larger than 64 kB is sent as it is made."""
    database.execute(f"ALTER DATABASE {database.name} SET logical_decoding_work_mem = '64kB'", superuser=True)
    try:
        yield
    finally:
        database.execute(f"ALTER DATABASE {database.name} RESET logical_decoding_work_mem", superuser=True)


def both_ways(slot: Capturing, **options: Any) -> Captured:
    """What comes as it is made, which is what comes when it is committed."""
    position = slot.position
    at_commit = slot.catch_up(*TABLES, host=CapturingHost(commits=False), confirm=False, **options)
    slot.position = position
    with streaming(slot.database):
        streamed = slot.catch_up(*TABLES, host=CapturingHost(commits=False), **options)
        assert streams_sent(slot) > 0
    assert streamed.changes == at_commit.changes
    assert streamed.answer["transactions"] == at_commit.answer["transactions"]
    return streamed


def streams_sent(slot: Capturing) -> int:
    [[count]] = slot.database.fetch(
        "SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = %s", [slot.slot]
    )
    return int(count)


def fill(connection: psycopg.Connection[Any], first: int, count: int = 3000) -> None:
    connection.execute(
        "INSERT INTO users SELECT g, 'name ' || g, g FROM generate_series(%s::int, %s) g", [first, first + count - 1]
    )


def ids(captured: Captured) -> list[int]:
    return [change.values["id"] for change in captured.of("users") if change.op == INSERT]


def test_a_large_transaction_comes_once_and_whole(slot: Capturing) -> None:
    with slot.database.connect() as connection:
        connection.execute("BEGIN")
        fill(connection, 1)
        connection.execute("UPDATE users SET id = -id WHERE id <= 10; DELETE FROM users WHERE id > 2990; COMMIT")
    got = both_ways(slot)
    assert ids(got) == list(range(1, 3001))
    assert [change.seq for change in got.changes] == list(range(1, len(got.changes) + 1))
    assert len({change.commit_ts for change in got.changes}) == 1


def test_large_transactions_that_are_made_side_by_side_come_one_after_the_other(slot: Capturing) -> None:
    with slot.database.connect() as first, slot.database.connect() as second:
        first.execute("BEGIN")
        second.execute("BEGIN")
        for i in range(5):
            fill(first, 10_000 + 1000 * i, 1000)
            fill(second, 20_000 + 1000 * i, 1000)
            slot.database.execute("INSERT INTO users VALUES (%s)", [i])
        second.execute("COMMIT")
        first.execute("COMMIT")
    got = both_ways(slot)
    assert ids(got) == [*range(5), *range(20_000, 25_000), *range(10_000, 15_000)]


def test_what_is_undone_does_not_come(slot: Capturing) -> None:
    with slot.database.connect() as connection:
        connection.execute("BEGIN")
        fill(connection, 1)
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        fill(connection, 10_000)
        connection.execute("SAVEPOINT a")
        fill(connection, 20_000)
        connection.execute("SAVEPOINT b")
        fill(connection, 30_000)
        connection.execute("RELEASE b; ROLLBACK TO a")
        fill(connection, 40_000)
        connection.execute("SAVEPOINT c")
        fill(connection, 50_000)
        connection.execute("RELEASE c; COMMIT")
    got = both_ways(slot)
    assert ids(got) == [*range(10_000, 13_000), *range(40_000, 43_000), *range(50_000, 53_000)]


def test_a_table_that_changes_in_a_large_transaction_is_told_as_it_was_at_each_row(slot: Capturing) -> None:
    with slot.database.connect() as connection:
        connection.execute("BEGIN")
        fill(connection, 1)
        connection.execute("ALTER TABLE users ADD born date DEFAULT '2000-01-01'")
        fill(connection, 10_000)
        connection.execute("SAVEPOINT a; ALTER TABLE users DROP born, ADD gone inet")
        fill(connection, 20_000)
        connection.execute("ROLLBACK TO a")
        fill(connection, 30_000)
        connection.execute("INSERT INTO orders SELECT g FROM generate_series(1, 3000) g; TRUNCATE orders; COMMIT")
    fill_after = "INSERT INTO users VALUES (7777777)"
    slot.database.execute(fill_after)
    got = both_ways(slot)
    assert ids(got) == [*range(1, 3001), *range(10_000, 13_000), *range(30_000, 33_000), 7777777]
    assert [schema.names[5:] for schema in got.schemas("users")] == [["id", "name", "n"], ["id", "name", "n", "born"]]
    assert got.told("orders")[-1] == (TRUNCATE, {"id": None, "note": None})


def test_a_relation_that_only_an_undone_part_told_of_is_known_to_what_follows(slot: Capturing) -> None:
    """The server tells of a table once in a transaction, and does not tell again what was undone."""
    with slot.database.connect() as connection:
        connection.execute("BEGIN; SAVEPOINT a")
        fill(connection, 1)
        connection.execute("ROLLBACK TO a")
        fill(connection, 10_000)
        connection.execute("COMMIT")
    got = both_ways(slot)
    assert ids(got) == list(range(10_000, 13_000))


def test_a_large_transaction_needs_little_memory(slot: Capturing) -> None:
    """Neither here nor there: it lies on disk until it is committed, and goes on in parts."""
    with slot.database.connect() as connection:
        fill(connection, 1, 300_000)

    class Counting(CapturingHost):
        rows = 0

        def emit(self, message: bytes | bytearray) -> None:
            super().emit(message)
            if len(self.batches) > 0:
                self.rows += sum(batch.num_rows for _, _, batch in self.batches)
                self.messages.clear()

    host = Counting()
    with streaming(slot.database), slot.instance(host) as instance:
        answer = instance.call("rb_capture", slot.argument(*TABLES))
        assert instance.peak_memory < 24 * 1024 * 1024
    assert (host.rows, answer["rows"], answer["transactions"]) == (300_000, 300_000, 1)


def test_a_transaction_that_is_open_at_the_end_comes_with_the_next_capture(slot: Capturing) -> None:
    with streaming(slot.database), slot.database.connect() as connection:
        connection.execute("BEGIN")
        fill(connection, 1)
        slot.database.execute("INSERT INTO users VALUES (-1)")
        assert ids(slot.catch_up(*TABLES)) == [-1]
        fill(connection, 10_000)
        assert ids(slot.catch_up(*TABLES)) == []
        connection.execute("COMMIT")
        assert ids(slot.catch_up(*TABLES)) == [*range(1, 3001), *range(10_000, 13_000)]


def test_a_column_without_a_known_binary_form_appears_in_a_large_transaction(slot: Capturing) -> None:
    with slot.database.connect() as connection:
        connection.execute("INSERT INTO orders VALUES (1, 'a'); BEGIN")
        fill(connection, 1)
        connection.execute("ALTER TABLE orders ADD host inet; INSERT INTO orders VALUES (2, 'b', '::1')")
        fill(connection, 10_000)
        connection.execute("COMMIT; ALTER TABLE orders DROP host; INSERT INTO orders VALUES (3, 'c')")
    got = both_ways(slot)
    assert ids(got) == [*range(1, 3001), *range(10_000, 13_000)]
    assert [change.values for change in got.of("orders")] == [
        {"id": 1, "note": "a"},
        {"id": 2, "note": "b", "host": "::1"},
        {"id": 3, "note": "c"},
    ]


def history(slot: Capturing, seed: int) -> None:
    """Three sessions at once, each with transactions of any size, parts of which are undone."""
    chance = random.Random(seed)
    numbers = iter(range(1, 10_000_000, 1000))
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(slot.database.connect()) for _ in range(3)]
        depth = [0, 0, 0]
        for _ in range(120):
            which = chance.randrange(3)
            session = sessions[which]
            if session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                session.execute("BEGIN")
                depth[which] = 0
            match chance.randrange(10):
                case 0 | 1 | 2 | 3:
                    fill(session, next(numbers), chance.choice([1, 10, 900]))
                case 4:
                    n = next(numbers)
                    session.execute(
                        "INSERT INTO orders SELECT g, repeat('x', 50) FROM generate_series(%s::int, %s) g", [n, n + 500]
                    )
                    session.execute("UPDATE orders SET id = -id WHERE id BETWEEN %s AND %s", [n, n + 100])
                    session.execute("DELETE FROM orders WHERE id BETWEEN %s AND %s", [n + 400, n + 500])
                case 5 | 6:
                    depth[which] += 1
                    session.execute(f"SAVEPOINT s{depth[which]}")
                case 7 if depth[which] > 0:
                    session.execute(f"ROLLBACK TO s{depth[which]}")
                case 8 if depth[which] > 0:
                    session.execute(f"RELEASE s{depth[which]}")
                    depth[which] -= 1
                case 9:
                    session.execute(chance.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
        for session in sessions:
            session.execute("COMMIT")


@pytest.fixture(params=["15", "16"])
def older_slot(request: pytest.FixtureRequest) -> Iterator[Capturing]:
    """On a server of the system's, or of the one that `make roundtrip` puts beside the other packages."""
    if request.param == "15":
        installation = Installation.from_system()
    else:
        programs = Path(sys.prefix) / "postgresql-16" / "pgserver" / "pginstall" / "bin"
        installation = Installation(programs) if (programs / "postgres").exists() else None
    if installation is None:
        pytest.skip(f"PostgreSQL {request.param} is not installed")
    with EmbeddedPostgres(durable=False, installation=installation) as server:
        server.create_database("older")
        database = Database(server, "older")
        create_tables(database)
        with capturing(database, TABLES) as slot:
            yield slot


@pytest.mark.full
def test_an_older_server_brings_the_same(older_slot: Capturing) -> None:
    history(older_slot, 11)
    assert_holds(older_slot, both_ways(older_slot, max_batch_bytes=64 * 1024))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 8))])
def test_a_random_history_comes_the_same_way(slot: Capturing, seed: int) -> None:
    history(slot, seed)
    begin = slot.position
    got = both_ways(slot, max_batch_bytes=64 * 1024)
    assert len(got.changes) > 1000
    assert lsn_number(got.lsn) > lsn_number(begin)
    assert_holds(slot, got)


def assert_holds(slot: Capturing, got: Captured) -> None:
    """Applied in order, the changes are what the tables hold."""
    held: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in TABLES}
    before: dict[str, int] = {}
    for change in got.changes:
        rows = held[change.stream]
        match change.op:
            case 1:
                assert change.values["id"] not in rows
                rows[change.values["id"]] = change.values
            case 5:
                before[change.stream] = change.values["id"]
            case 2:
                del rows[before.pop(change.stream, change.values["id"])]
                rows[change.values["id"]] = change.values
            case 3:
                del rows[change.values["id"]]
    for name in TABLES:
        columns = "id, name, n" if name == "users" else "id, note"
        stored = slot.database.fetch(f"SELECT {columns} FROM {name} ORDER BY id")
        assert [tuple(rows.values()) for _, rows in sorted(held[name].items())] == stored
