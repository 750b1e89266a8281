"""Runs that are told to start over, and do not get to their end: what they were asked for happens once."""

from __future__ import annotations

from typing import Any

import pytest

from rapidbyte_dagster.engine.start import Start
from tests.recovery import cells
from tests.recovery.cells import Cell
from tests.recovery.conftest import MakeTrial
from tests.recovery.failpoints import FINAL, Failpoint, commit
from tests.recovery.trial import Trial

APPEND = cells.INCREMENTAL_APPEND
UPSERT = cells.INCREMENTAL_UPSERT

COMMITS = [
    pytest.param(Failpoint("COMMIT 1 done", destination=commit("answered"), nth=1, committed=True), id="COMMIT 1 done"),
    pytest.param(
        Failpoint("COMMIT 2 lost", destination=commit("arrives"), nth=2, committed=False),
        id="COMMIT 2 lost",
        marks=pytest.mark.full,
    ),
    pytest.param(
        Failpoint("last COMMIT done", destination=commit("answered"), nth=FINAL, committed=True),
        id="last COMMIT done",
        marks=pytest.mark.full,
    ),
]


def prepared(make_trial: MakeTrial, cell: Cell, start: Start, **options: Any) -> Trial:
    trial = make_trial(cell, **options)
    trial.prepare()
    trial.run_undisturbed(start)
    return trial


@pytest.mark.parametrize("cell", [APPEND, pytest.param(UPSERT, marks=pytest.mark.full)], ids=str)
@pytest.mark.parametrize("failpoint", COMMITS)
def test_a_killed_reset_that_starts_again_under_its_own_id_reads_everything_once(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = prepared(make_trial, cell, Start.RESET)
    trial.kill_at(failpoint.of_commits(trial.commits_of_last_run()), Start.RESET)
    trial.restart(same_run=True)
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()


@pytest.mark.parametrize("cell", [APPEND, pytest.param(UPSERT, marks=pytest.mark.full)], ids=str)
@pytest.mark.parametrize("failpoint", COMMITS)
def test_a_killed_reset_is_gone_on_with_by_an_ordinary_run(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    """What it had committed counts, its cursor too."""
    trial = prepared(make_trial, cell, Start.RESET)
    trial.kill_at(failpoint.of_commits(trial.commits_of_last_run()), Start.RESET)
    trial.restart()
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()


@pytest.mark.parametrize("cell", [pytest.param(APPEND, marks=pytest.mark.full), UPSERT], ids=str)
@pytest.mark.parametrize("failpoint", COMMITS)
def test_a_reset_whose_connection_is_cut_does_not_reset_again(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = prepared(make_trial, cell, Start.RESET, resources={"max_retries": 5})
    result = trial.cut_at(failpoint.of_commits(trial.commits_of_last_run()), Start.RESET)
    assert result.attempts == 2
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()


@pytest.mark.parametrize("cell", [pytest.param(cells.INCREMENTAL_APPEND, marks=pytest.mark.full), UPSERT], ids=str)
@pytest.mark.parametrize("committed", [False, True], ids=["COMMIT lost", "COMMIT done"])
@pytest.mark.parametrize("same_run", [False, pytest.param(True, marks=pytest.mark.full)], ids=["next run", "same run"])
def test_a_killed_full_refresh_of_an_incremental_stream_leaves_the_old_rows_or_the_new_ones(
    make_trial: MakeTrial, cell: Cell, committed: bool, same_run: bool
) -> None:
    trial = prepared(make_trial, cell, Start.FULL_REFRESH)
    moment = commit("answered" if committed else "arrives")
    before = trial.watermark()
    trial.kill_at(Failpoint("COMMIT", destination=moment), Start.FULL_REFRESH)
    assert (trial.watermark() > before) == committed
    trial.restart(Start.FULL_REFRESH, same_run=same_run)
    trial.assert_equal()
    trial.run_later()
    trial.assert_nothing_left()
