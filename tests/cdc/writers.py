"""Sessions that change the tables of `tables.py` at once, as applications do, in random transactions.

Some roll back, as a whole or to a savepoint; some stay open for a while; those that meet a deadlock, a key that is
taken or a lock that does not come roll back too. What was committed is what the database has.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from tests.cdc.tables import LONG, TABLES
from tests.postgres_server import Database

SOME = "abs(hashint8(id) # %(salt)s) %% 40 = 0"
"""One row in forty, others each time."""

STATEMENTS: dict[str, tuple[str, ...]] = {
    "accounts": (
        "INSERT INTO accounts SELECT nextval('ids'), 'new', %(salt)s / 100.0 FROM generate_series(1, %(few)s)",
        f"UPDATE accounts SET balance = balance + 1, version = version + 1 WHERE {SOME}",
        f"UPDATE accounts SET owner = NULL, seen = now(), version = version + 1 WHERE {SOME}",
        # One row several times in one transaction.
        "UPDATE accounts SET owner = owner || '.', version = version + 1 WHERE id = %(salt)s %% 1000;"
        "UPDATE accounts SET balance = -balance, version = version + 1 WHERE id = %(salt)s %% 1000",
        # Keys that move: away, back into the gap, and into one that was just deleted.
        f"UPDATE accounts SET id = nextval('ids'), version = version + 1 WHERE {SOME}",
        "DELETE FROM accounts WHERE id = %(salt)s %% 1000; INSERT INTO accounts VALUES (%(salt)s %% 1000, 'again')",
        "DELETE FROM accounts WHERE id = 7; UPDATE accounts SET id = 7, version = version + 1"
        " WHERE id = (SELECT max(id) FROM accounts)",
        f"DELETE FROM accounts WHERE {SOME}",
    ),
    "documents": (
        f"INSERT INTO documents SELECT nextval('ids'), 'new', {LONG.format('%(salt)s')} FROM generate_series(1, 2)",
        # What is stored out of line is not told again: unchanged, changed, gone, and with a new key.
        f"UPDATE documents SET title = title || '.', version = version + 1 WHERE {SOME}",
        f"UPDATE documents SET extra = {LONG.format('%(salt)s + id')}, version = version + 1 WHERE {SOME}",
        f"UPDATE documents SET body = NULL, version = version + 1 WHERE {SOME}",
        f"UPDATE documents SET id = nextval('ids'), version = version + 1 WHERE {SOME}",
        f"UPDATE documents SET body = extra, extra = body, version = version + 1 WHERE {SOME}",
        f"DELETE FROM documents WHERE {SOME}",
    ),
    "tags": (
        "INSERT INTO tags SELECT 'new', nextval('ids') FROM generate_series(1, %(few)s)",
        f"UPDATE tags SET label = coalesce(label, '') || 'x', version = version + 1 WHERE {SOME}",
        f"UPDATE tags SET id = nextval('ids'), label = NULL, version = version + 1 WHERE {SOME}",
        f"DELETE FROM tags WHERE {SOME}",
    ),
    "notes": (
        "INSERT INTO notes SELECT %(salt)s %% 40, 'note' FROM generate_series(1, %(few)s)",
        "UPDATE notes SET version = version + 1 WHERE id = %(salt)s %% 40",
        "UPDATE notes SET body = NULL, version = version + 1"
        " WHERE ctid = (SELECT min(ctid) FROM notes WHERE id = %(salt)s %% 40)",
        "DELETE FROM notes WHERE ctid = (SELECT max(ctid) FROM notes WHERE id = %(salt)s %% 40)",
    ),
    "readings": (
        "INSERT INTO readings SELECT nextval('ids'), random() FROM generate_series(1, %(few)s)",
        f"UPDATE readings SET value = random(), version = version + 1 WHERE {SOME}",
        # From one partition to another.
        f"UPDATE readings SET id = nextval('ids'), version = version + 1 WHERE {SOME}",
        "DELETE FROM readings WHERE id = %(salt)s %% 1000; INSERT INTO readings VALUES (%(salt)s %% 1000, 'NaN')",
        f"DELETE FROM readings WHERE {SOME}",
    ),
}
TRUNCATIONS = ("TRUNCATE tags", "TRUNCATE notes, readings", "TRUNCATE accounts")

COLLISIONS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,
)
LONGEST_PAUSE = 0.1
JOIN_SECONDS = 60.0


class Writers:
    """`sessions` threads, each of `transactions` random transactions, or until the end of the `with`.

    `committed` counts the transactions that came through.
    """

    def __init__(
        self,
        database: Database,
        seed: str,
        *,
        tables: Sequence[str] = TABLES,
        sessions: int = 3,
        transactions: int | None = None,
        truncates: bool = True,
        pause: float = LONGEST_PAUSE,
    ) -> None:
        self._database = database
        self._tables = tables
        self._transactions = transactions
        self._truncates = truncates
        self._pause = pause
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []
        self.committed = 0
        self._threads = [
            threading.Thread(target=self._write, args=(random.Random(f"{seed}/{number}"),), name=f"writer {number}")
            for number in range(sessions)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._transactions is None:
            self._stopping.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self._stopping.set()
        assert not any(thread.is_alive() for thread in self._threads), "a writer does not end"
        if self._failures:
            raise self._failures[0]

    def wait_for(self, count: int) -> None:
        """Until so many transactions were committed."""
        deadline = time.monotonic() + JOIN_SECONDS
        while self.committed < count and not self._failures:
            assert time.monotonic() < deadline, f"only {self.committed} transactions"
            time.sleep(0.01)

    def _write(self, chosen: random.Random) -> None:
        try:
            # Autocommit: the transactions' borders are their own statements.
            with self._database.connect() as connection:
                connection.execute("SET lock_timeout = '100ms'")
                done = 0
                while not self._stopping.is_set() and done != self._transactions:
                    try:
                        self._transact(connection, chosen)
                    except COLLISIONS:
                        connection.execute("ROLLBACK")
                    done += 1
        except BaseException as failure:  # noqa: BLE001  a thread's edge
            self._failures.append(failure)

    def _transact(self, connection: psycopg.Connection[Any], chosen: random.Random) -> None:
        connection.execute("BEGIN")
        for _ in range(chosen.choice((1, 1, 2, 3, 8))):
            way = chosen.random()
            if way < 0.2:
                connection.execute("SAVEPOINT maybe")
            self._change(connection, chosen)
            if way < 0.05:
                # A savepoint within another, of which the inner stays.
                connection.execute("SAVEPOINT inner_one")
                self._change(connection, chosen)
                connection.execute("RELEASE inner_one")
            if way < 0.1:
                connection.execute("ROLLBACK TO maybe")
            elif way < 0.2:
                connection.execute("RELEASE maybe")
            if chosen.random() < 0.05:
                time.sleep(chosen.random() * self._pause)
        if chosen.random() < 0.1:
            connection.execute("ROLLBACK")
            return
        connection.execute("COMMIT")
        with self._lock:
            self.committed += 1

    def _change(self, connection: psycopg.Connection[Any], chosen: random.Random) -> None:
        if self._truncates and chosen.random() < 0.004:
            statement = chosen.choice([s for s in TRUNCATIONS if all(t in self._tables for t in tables_of(s))] or [""])
            connection.execute(statement.encode())
            return
        statement = chosen.choice(STATEMENTS[chosen.choice(self._tables)])
        numbers = {"salt": chosen.randrange(2**20), "few": chosen.choice((1, 1, 5, 50))}
        for part in statement.split(";"):
            connection.execute(part.encode(), numbers)


def tables_of(truncation: str) -> list[str]:
    return truncation.removeprefix("TRUNCATE ").split(", ")
