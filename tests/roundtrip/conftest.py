"""Pairs of databases for round trips."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.postgres_server import Database, unique_name
from tests.roundtrip.movement import Pair


@pytest.fixture(scope="module")
def pair(postgres: EmbeddedPostgres) -> Iterator[Pair]:
    """Two databases for all tests of a module: each test has tables of its own."""
    names = [unique_name("roundtrip_source"), unique_name("roundtrip_destination")]
    for name in names:
        postgres.create_database(name)
    yield Pair(*(Database(postgres, name) for name in names))
    for name in names:
        postgres.drop_database(name)
