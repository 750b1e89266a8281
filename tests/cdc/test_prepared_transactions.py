"""Transactions in two phases: they arrive when COMMIT PREPARED has made them one, however long that takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.cdc.replication import Replication
from tests.postgres_server import Database

SETTINGS = {"max_prepared_transactions": "5", "logical_decoding_work_mem": "64kB", "synchronous_commit": "on"}

pytestmark = pytest.mark.full


@pytest.fixture
def replication(tmp_path: Path) -> Iterator[Replication]:
    """Of an empty table `items`."""
    with EmbeddedPostgres(settings=SETTINGS, durable=False) as server:
        for name in ("source", "destination"):
            server.create_database(name)
        replication = Replication(tmp_path, Database(server, "source"), Database(server, "destination"), ("items",))
        replication.source.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
        replication.catch_up()
        yield replication


@pytest.mark.parametrize("rows", [3, pytest.param(3000, id="more than the server keeps in memory")])
def test_a_prepared_transaction_arrives_when_it_is_committed(replication: Replication, rows: int) -> None:
    source = replication.source

    def prepare(name: str, first: int) -> None:
        source.execute(
            f"BEGIN; INSERT INTO items SELECT i, repeat('x', 100) FROM generate_series({first}, {first + rows}) i; "
            f"PREPARE TRANSACTION '{name}'"
        )

    prepare("undone", 10_000)
    prepare("early", 20_000)
    prepare("late", 30_000)
    source.execute("INSERT INTO items VALUES (1, 'between')")
    replication.catch_up()
    replication.assert_mirrors()
    source.execute("COMMIT PREPARED 'early'")
    source.execute("ROLLBACK PREPARED 'undone'")
    source.execute("INSERT INTO items VALUES (2, 'behind')")
    replication.catch_up()
    replication.assert_mirrors()
    source.execute("COMMIT PREPARED 'late'")
    prepare("at once", 40_000)
    source.execute("COMMIT PREPARED 'at once'")
    replication.catch_up()
    replication.assert_mirrors()
