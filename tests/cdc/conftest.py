"""Two databases for all tests, empty for each, and pipelines of `cdc` streams between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.cdc.interruption import Interrupted
from tests.cdc.replication import Replication
from tests.postgres_server import Database, unique_name
from tests.recovery.proxy import Proxy

# Making a database takes longer than most of these tests.
EMPTIED = """
    DO $$
    DECLARE one record;
    BEGIN
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND backend_type IN ('client backend', 'walsender');
        PERFORM pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
        WHERE database = current_database() AND active;
        PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE database = current_database() AND NOT temporary;
        FOR one IN SELECT pubname FROM pg_publication LOOP
            EXECUTE format('DROP PUBLICATION %I', one.pubname);
        END LOOP;
        FOR one IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$' LOOP
            EXECUTE format('DROP SCHEMA %I CASCADE', one.nspname);
        END LOOP;
    END $$;
    CREATE SCHEMA public AUTHORIZATION etl;
"""


class Replicate(Protocol):
    def __call__(self, *streams: str | Mapping[str, Any], **options: Any) -> Replication: ...


@pytest.fixture(scope="session")
def replicated_databases(postgres: EmbeddedPostgres) -> Iterator[tuple[Database, Database]]:
    names = unique_name("replicated"), unique_name("replica")
    for name in names:
        postgres.create_database(name)
        # What was not flushed cannot be captured. The session's server would flush some time later.
        Database(postgres, name).execute(f"ALTER DATABASE {name} SET synchronous_commit = on", superuser=True)
    yield Database(postgres, names[0]), Database(postgres, names[1])
    for name in names:
        postgres.drop_database(name)


@pytest.fixture
def source(replicated_databases: tuple[Database, Database]) -> Database:
    """Empty: no tables, slots or publications."""
    replicated_databases[0].execute(EMPTIED, superuser=True)
    return replicated_databases[0]


@pytest.fixture
def destination(replicated_databases: tuple[Database, Database]) -> Database:
    replicated_databases[1].execute(EMPTIED, superuser=True)
    return replicated_databases[1]


@pytest.fixture
def replicate(tmp_path: Path, source: Database, destination: Database) -> Replicate:
    """A pipeline of these streams, which did not run yet; further arguments are those of `Replication`."""

    def make(*streams: str | Mapping[str, Any], **options: Any) -> Replication:
        return Replication(tmp_path, source, destination, streams, **options)

    return make


class Follow(Protocol):
    def __call__(
        self, definition: str, *transactions: str, streams: Sequence[str | Mapping[str, Any]] = ..., **options: Any
    ) -> Replication: ...


@pytest.fixture(params=["in one run", pytest.param("run by run", marks=pytest.mark.full)])
def follow(request: pytest.FixtureRequest, replicate: Replicate) -> Follow:
    """Makes tables at the source, takes their snapshot, then runs `transactions` there and catches up with them.

    Each of `transactions` is one; all arrive in one run, or each in a run of its own. Nothing is held against the
    source yet. `streams`: the table `items`, unless told otherwise; further arguments are those of `Replication`.
    """

    def make(
        definition: str, *transactions: str, streams: Sequence[str | Mapping[str, Any]] = ("items",), **options: Any
    ) -> Replication:
        replication = replicate(*streams, **options)
        replication.source.execute(definition)
        replication.catch_up()
        for number, transaction in enumerate(transactions, 1):
            replication.source.execute(transaction)
            if request.param == "run by run" or number == len(transactions):
                replication.catch_up()
        return replication

    return make


class Interrupt(Protocol):
    def __call__(self, **resources: Any) -> Interrupted: ...


@pytest.fixture
def interrupt(tmp_path: Path, source: Database, destination: Database) -> Iterator[Interrupt]:
    """A pipeline that did not run yet, through proxies; arguments are `resources` of its file."""
    with Proxy(source) as source_proxy, Proxy(destination) as destination_proxy:

        def make(**resources: Any) -> Interrupted:
            return Interrupted.make(tmp_path, source, destination, source_proxy, destination_proxy, **resources)

        yield make
