"""A replay of dead letters that is killed anywhere brings each of their rows home once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rapidbyte_dagster.state import DeadLetter, LetterCategory, LetterChoice, open_state, utc_now
from tests.recovery import cells
from tests.recovery.cells import MERGES, Cell
from tests.recovery.conftest import MakeTrial
from tests.recovery.failpoints import PER_COMMIT, Failpoint
from tests.recovery.proxy import Moment
from tests.recovery.selection import Case, each, half, with_quick_ones
from tests.recovery.trial import INTERRUPTED, Trial
from tests.recovery.worker import StateCrash

TYPES = {"id": "bigint", "updated_at": "timestamp with time zone", "kind": "integer", "body": "text"}

FAILPOINTS = (
    Failpoint("before reconcile", state=StateCrash("reconcile", "before")),
    Failpoint("before the letters are marked", state=StateCrash("mark_dead_letters", "before")),
    Failpoint("after the letters are marked", state=StateCrash("mark_dead_letters", "after")),
    Failpoint("first batch sent", destination=Moment(copied=1)),
    *(replace(failpoint, nth=1) for failpoint in PER_COMMIT),
    Failpoint("before the end is recorded", state=StateCrash("record_run", "before", nth=2)),
)
MERGED = Failpoint("after the publication", destination=Moment(MERGES, "answered"), nth=1, committed=False)

CASES = half(
    with_quick_ones(
        Case(cell, failpoint)
        for cell in (cells.FULL_APPEND, cells.INCREMENTAL_APPEND, cells.INCREMENTAL_UPSERT)
        for failpoint in (*FAILPOINTS, *((MERGED,) if cell.publishes else ()))
    )
)


def with_letters(make_trial: MakeTrial, cell: Cell, **options: Any) -> Trial:
    """A trial whose pipelines are done, but that rows of one are dead letters instead."""
    trial = make_trial(cell, **options)
    trial.prepare()
    trial.run_undisturbed()
    trial.run_interrupted()
    trial.assert_equal()
    rows = trial.destination.fetch(
        f"DELETE FROM {INTERRUPTED}.events WHERE id % 50 = 0 RETURNING id, updated_at::text, kind, body"
    )
    letters = [
        DeadLetter(
            json.dumps(dict(zip(TYPES, row, strict=True))),
            json.dumps(TYPES),
            "no",
            LetterCategory.CHECK,
            "destination",
            utc_now(),
        )
        for row in rows
    ]
    with open_state(trial.pipeline, {}) as state:
        last = state.latest_checkpoint(INTERRUPTED, "events")
        assert last is not None
        state.add_dead_letters(INTERRUPTED, "events", letters, run_id=last.run_id, sequence=last.sequence)
    assert waiting(trial) == len(rows) > 10
    trial.replays = True
    return trial


def waiting(trial: Trial) -> int:
    with open_state(trial.pipeline, {}) as state:
        return state.dead_letter_counts(INTERRUPTED, "events", choice=LetterChoice()).waiting


def assert_home(trial: Trial) -> None:
    """Every row is there once, and everybody agrees on it."""
    trial.assert_equal()
    assert waiting(trial) == 0
    assert trial.checkpoints()[0].sequence == trial.watermark()
    assert trial.prepared_checkpoints() == 0
    trial.assert_nothing_left()
    report = trial.restart()
    assert report.result is not None
    assert report.result["rows"] == 0
    trial.assert_equal()


@each(CASES)
def test_a_killed_replay_is_followed_by_another_that_brings_each_row_home_once(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = with_letters(make_trial, cell)
    trial.kill_at(failpoint)
    trial.restart()
    assert_home(trial)


@each([replace(case, quick=case.quick and number % 5 == 0) for number, case in enumerate(CASES)])
def test_a_killed_replay_does_not_confuse_the_run_behind_it(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = with_letters(make_trial, cell)
    trial.kill_at(failpoint)
    trial.source.execute(cell.later)
    calm, result = trial.run_undisturbed(), trial.run_interrupted()
    assert result.rows == calm.rows
    trial.restart()
    assert_home(trial)


@pytest.mark.parametrize(
    "failpoint",
    [each for each in FAILPOINTS if each.name in ("after prepare", "COMMIT done, not acknowledged")],
    ids=str,
)
def test_a_killed_replay_is_settled_by_a_state_store_in_postgresql_too(
    make_trial: MakeTrial, failpoint: Failpoint
) -> None:
    trial = with_letters(make_trial, cells.INCREMENTAL_APPEND, state_in_postgres=True)
    trial.kill_at(failpoint)
    trial.restart()
    assert_home(trial)


def test_a_replay_whose_connection_is_cut_behind_its_commit_moves_nothing_twice(make_trial: MakeTrial) -> None:
    trial = with_letters(make_trial, cells.INCREMENTAL_APPEND, resources={"max_retries": 1})
    [cut] = [each for each in FAILPOINTS if each.name == "COMMIT done, not acknowledged"]
    assert cut.destination is not None
    trial.destination_proxy.arm(cut.destination, None)
    report = trial.restart()
    assert trial.destination_proxy.struck.is_set()
    assert report.result is not None
    assert report.result["attempts"] == 2
    assert_home(trial)
