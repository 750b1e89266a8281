"""Pairs of databases for streams whose tables change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.evolution.trial import Side, Trial
from tests.postgres_server import Database, unique_name

pytest.register_assert_rewrite("tests.evolution.table")


class MakeTrial(Protocol):
    def __call__(self, write_mode: str, **options: Any) -> Trial: ...


@pytest.fixture(scope="session")
def evolution_sides(postgres: EmbeddedPostgres) -> Iterator[tuple[Side, Side]]:
    """The same two databases for all: each trial has schemas of its own."""
    names = unique_name("evolution_source"), unique_name("evolution_destination")
    for name in names:
        postgres.create_database(name)
    source, destination = (Side(Database(postgres, name)) for name in names)
    with source, destination:
        yield source, destination
    for name in names:
        postgres.drop_database(name)


@pytest.fixture
def make_trial(tmp_path: Path, evolution_sides: tuple[Side, Side]) -> MakeTrial:
    """A trial that has not begun; further arguments are those of `Trial`."""

    def make(write_mode: str, **options: Any) -> Trial:
        return Trial(tmp_path, *evolution_sides, unique_name("trial"), write_mode, **options)

    return make
