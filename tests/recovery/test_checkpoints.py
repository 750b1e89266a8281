"""`checkpoint_interval_*`: how often an incremental run commits on its way, counted in the state store."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rapidbyte_dagster.state import Checkpoint
from tests.recovery import cells
from tests.recovery.cells import Cell
from tests.recovery.conftest import MakeTrial
from tests.recovery.trial import Trial

ROWS = cells.FIRST_ROWS + cells.LATER_ROWS
OFF = {"checkpoint_interval_rows": 0, "checkpoint_interval_bytes": 0, "checkpoint_interval_seconds": 0}
BATCH_BYTES = 64 * 1024

MODES = pytest.mark.parametrize("write_mode", ["append", pytest.param("upsert", marks=pytest.mark.full)])


def commits(
    make_trial: MakeTrial, write_mode: str, *, seconds_per_row: float = 0.0, **resources: Any
) -> list[Checkpoint]:
    """The checkpoints of one run over all rows, oldest first."""
    cell = Cell("checkpoints", "incremental", write_mode, cells.INCREMENTAL_APPEND_NEW.source, runs_before=False)
    trial = make_trial(cell, resources={**OFF, **resources})
    trial.prepare()
    trial.source_proxy.seconds_per_row = seconds_per_row
    assert trial.run_interrupted().rows == ROWS
    found = trial.checkpoints()[::-1]
    assert sum(checkpoint.rows for checkpoint in found) == ROWS
    return found


@MODES
def test_a_checkpoint_is_made_after_so_many_rows(make_trial: MakeTrial, write_mode: str) -> None:
    *whole, last = commits(make_trial, write_mode, checkpoint_interval_rows=300)
    assert len(whole) >= 4
    # Due as soon as a batch has brought so many, and a batch has less than 200.
    assert all(300 <= checkpoint.rows < 500 for checkpoint in whole)
    assert last.rows < 500


@MODES
def test_a_checkpoint_is_made_after_so_many_bytes(make_trial: MakeTrial, write_mode: str) -> None:
    *whole, last = commits(make_trial, write_mode, checkpoint_interval_bytes=200 * 1024)
    assert len(whole) >= 3
    assert all(200 * 1024 <= checkpoint.bytes <= 200 * 1024 + BATCH_BYTES for checkpoint in whole)
    assert last.bytes <= 200 * 1024 + BATCH_BYTES


@MODES
def test_a_checkpoint_is_made_after_so_many_seconds(make_trial: MakeTrial, write_mode: str) -> None:
    started = time.monotonic()
    *whole, _ = commits(make_trial, write_mode, seconds_per_row=0.0015, checkpoint_interval_seconds=1)
    assert 2 <= len(whole) <= time.monotonic() - started


@MODES
def test_without_an_interval_a_run_is_one_commit(make_trial: MakeTrial, write_mode: str) -> None:
    assert len(commits(make_trial, write_mode)) == 1


@pytest.mark.full
def test_the_first_interval_that_is_over_counts(make_trial: MakeTrial) -> None:
    found = commits(make_trial, "append", checkpoint_interval_rows=1_000_000, checkpoint_interval_bytes="200kb")
    assert len(found) >= 4


@pytest.mark.parametrize(
    "cell",
    [
        cells.FULL_APPEND,
        *(pytest.param(cell, marks=pytest.mark.full) for cell in (cells.FULL_REPLACE_SWAP, cells.FULL_UPSERT)),
    ],
    ids=str,
)
def test_a_full_refresh_is_one_commit_whatever_the_interval(make_trial: MakeTrial, cell: Cell) -> None:
    """It has nothing to resume from: a part of it must not be seen."""
    trial: Trial = make_trial(cell, resources={**OFF, "checkpoint_interval_rows": 1})
    trial.prepare()
    before = len(trial.checkpoints())
    trial.run_interrupted()
    assert len(trial.checkpoints()) == before + 1
