"""Each test that takes a store runs with every database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidbyte_dagster.state import StateStore
from tests.postgres_server import MakeDatabase
from tests.unit.state.backends import Backend, PostgresBackend, SqliteBackend


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """A store that nobody opened yet."""
    if request.param == "sqlite":
        return SqliteBackend(str(tmp_path / "deep" / "state.db"))
    make_database: MakeDatabase = request.getfixturevalue("make_database")
    return PostgresBackend(make_database("state").dsn)


@pytest.fixture
def store(backend: Backend) -> Iterator[StateStore]:
    with backend.open() as store:
        yield store
