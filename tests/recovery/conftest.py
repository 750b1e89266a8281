"""The trial that each test of this folder is: two databases, with a proxy before either."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.postgres_server import Database, unique_name
from tests.recovery.cells import Cell
from tests.recovery.proxy import Proxy
from tests.recovery.trial import INTERRUPTED, STATE, UNDISTURBED, Trial

# Making a database takes longer than most of these runs: each test gets the same two, empty.
EMPTIED = f"""
    DO $$ BEGIN
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
    END $$;
    DROP SCHEMA IF EXISTS public, {INTERRUPTED}, {UNDISTURBED}, {STATE} CASCADE; CREATE SCHEMA public AUTHORIZATION etl;
"""


class MakeTrial(Protocol):
    def __call__(self, cell: Cell, *, state_in_postgres: bool = False, **options: Any) -> Trial: ...


@pytest.fixture(scope="session")
def trial_databases(postgres: EmbeddedPostgres) -> Iterator[tuple[Database, Database]]:
    names = unique_name("trial_source"), unique_name("trial_destination")
    for name in names:
        postgres.create_database(name)
    yield Database(postgres, names[0]), Database(postgres, names[1])
    for name in names:
        postgres.drop_database(name)


@pytest.fixture
def make_trial(tmp_path: Path, trial_databases: tuple[Database, Database]) -> Iterator[MakeTrial]:
    """A trial of one cell, not begun yet; further arguments are those of `Trial`."""
    source, destination = trial_databases
    for database in trial_databases:
        database.execute(EMPTIED, superuser=True)
    with contextlib.ExitStack() as proxies:

        def make(cell: Cell, *, state_in_postgres: bool = False, **options: Any) -> Trial:
            if state_in_postgres:
                options["state_proxy"] = proxies.enter_context(Proxy(destination))
            return Trial(
                tmp_path,
                source,
                destination,
                cell,
                proxies.enter_context(Proxy(source)),
                proxies.enter_context(Proxy(destination)),
                **options,
            )

        yield make
