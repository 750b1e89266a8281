"""Servers before PostgreSQL 16 have no pg_input_is_valid: which values fit is found out otherwise there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evolution.effects import WRITE_MODES
from tests.evolution.scenarios import Cell, Scenario, Way, of_one, together
from tests.evolution.table import FOLLOWING, SCENARIOS, assert_holds
from tests.evolution.trial import Side, Trial
from tests.evolution.type_changes import FITTING, LOSSLESS, MORE_LOSSLESS, NOT_NULL_TYPE, UNFITTING
from tests.postgres_server import TlsServer, unique_name

NULL = {"type_change": "null"}


@pytest.fixture(scope="module")
def old_sides(tls_postgres: TlsServer) -> Iterator[tuple[Side, Side]]:
    """Two databases of the system's server."""
    names = unique_name("old_source"), unique_name("old_destination")
    for name in names:
        tls_postgres.server.create_database(name)
    source, destination = (Side(tls_postgres.database(name)) for name in names)
    with source, destination:
        yield source, destination
    for name in names:
        tls_postgres.server.drop_database(name)


@pytest.mark.full
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("write_mode", WRITE_MODES)
@pytest.mark.parametrize(
    "scenario",
    [
        together("values that do not fit", (*LOSSLESS, *MORE_LOSSLESS, *FITTING, *UNFITTING)),
        of_one(NOT_NULL_TYPE, "another type of a column that is NOT NULL"),
    ],
    ids=["types", "not null"],
)
def test_values_that_do_not_fit_become_null_on_an_older_server(
    tmp_path: Path, old_sides: tuple[Side, Side], scenario: Scenario, write_mode: str, shards: int
) -> None:
    trial = Trial(tmp_path, *old_sides, unique_name("trial"), write_mode, shards)
    assert_holds(trial, Cell(scenario, NULL, Way(write_mode, shards)))


@pytest.mark.full
@pytest.mark.parametrize("write_mode", WRITE_MODES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_is_followed_on_an_older_server(
    tmp_path: Path, old_sides: tuple[Side, Side], scenario: Scenario, write_mode: str
) -> None:
    trial = Trial(tmp_path, *old_sides, unique_name("trial"), write_mode)
    assert_holds(trial, Cell(scenario, {str(kind): FOLLOWING[kind] for kind in scenario.kinds}, Way(write_mode)))
