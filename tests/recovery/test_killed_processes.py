"""A process that dies anywhere loses nothing and repeats nothing: killed by SIGKILL, started again, compared.

Each test is one cell of the guarantee (sync mode × write mode). What holds after the restart is what an uninterrupted
run leaves: the same rows, state store and watermark of one mind, and nothing half done in either database.
"""

from __future__ import annotations

from typing import Any

from tests.recovery import cells
from tests.recovery.cells import Cell
from tests.recovery.conftest import MakeTrial
from tests.recovery.failpoints import FINAL, Failpoint, failpoints_of
from tests.recovery.selection import Case, each, half, with_quick_ones
from tests.recovery.trial import Trial
from tests.recovery.worker import StateCrash

CASES = half(with_quick_ones(Case(cell, failpoint) for cell in cells.ALL for failpoint in failpoints_of(cell)))


def cases(*chosen: Cell) -> list[Case]:
    return [case for case in CASES if case.cell in chosen]


def killed(make_trial: MakeTrial, cell: Cell, failpoint: Failpoint, **options: Any) -> Trial:
    """A trial whose run was killed there, beside one that was not."""
    trial = make_trial(cell, **options)
    trial.prepare()
    trial.run_undisturbed()
    commits = trial.commits_of_last_run()
    assert commits >= (3 if cell.commits_on_the_way else 1)
    trial.kill_at(failpoint.of_commits(commits))
    return trial


def assert_recovered(trial: Trial) -> None:
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()
    trial.assert_settled()


def survives(make_trial: MakeTrial, cell: Cell, failpoint: Failpoint, **options: Any) -> None:
    trial = killed(make_trial, cell, failpoint, **options)
    trial.restart()
    if failpoint.ended:
        trial.run_undisturbed()
    assert_recovered(trial)


@each(cases(cells.FULL_APPEND_NEW, cells.FULL_APPEND))
def test_a_killed_full_refresh_append_adds_its_rows_once(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    """Killed after its COMMIT, it is completed by the next run, which adds nothing."""
    survives(make_trial, cell, failpoint)


@each(cases(cells.FULL_REPLACE_NEW, cells.FULL_REPLACE_SWAP, cells.FULL_REPLACE_REWRITE))
def test_a_killed_full_refresh_replace_leaves_the_old_rows_or_the_new_ones(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    survives(make_trial, cell, failpoint)


@each(cases(cells.FULL_UPSERT_NEW, cells.FULL_UPSERT))
def test_a_killed_full_refresh_upsert_has_every_row_once(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    survives(make_trial, cell, failpoint)


@each(cases(cells.INCREMENTAL_APPEND_NEW, cells.INCREMENTAL_APPEND))
def test_a_killed_incremental_append_adds_every_row_once(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    survives(make_trial, cell, failpoint)


@each(cases(cells.INCREMENTAL_UPSERT))
def test_a_killed_incremental_upsert_has_every_row_as_it_was_last(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    survives(make_trial, cell, failpoint)


@each(cases(cells.SHARDED_APPEND_NEW, cells.SHARDED_APPEND))
def test_a_killed_full_refresh_append_in_shards_adds_its_rows_once(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    survives(make_trial, cell, failpoint)


@each(cases(cells.SHARDED_REPLACE_SWAP, cells.SHARDED_REPLACE_REWRITE))
def test_a_killed_full_refresh_replace_in_shards_leaves_the_old_rows_or_the_new_ones(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    survives(make_trial, cell, failpoint)


@each(cases(cells.SHARDED_UPSERT))
def test_a_killed_full_refresh_upsert_in_shards_has_every_row_once(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    survives(make_trial, cell, failpoint)


# The same, otherwise

STEPS = ("after prepare", "COMMIT sent, never arrived", "COMMIT done, not acknowledged", "before finalise")
BESIDES = [
    Case(cell, failpoint, quick=failpoint.name == step and failpoint.nth == FINAL)
    for cell, step in (
        (cells.FULL_APPEND, "COMMIT done, not acknowledged"),
        (cells.INCREMENTAL_APPEND, None),
        (cells.INCREMENTAL_UPSERT, "before finalise"),
    )
    for failpoint in failpoints_of(cell)
    if failpoint.name in STEPS
]


@each(BESIDES)
def test_a_killed_run_is_settled_by_a_state_store_in_postgresql_too(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    survives(make_trial, cell, failpoint, state_in_postgres=True)


@each(BESIDES)
def test_a_killed_run_that_starts_again_under_its_own_id_goes_on_where_it_was(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    """As when a scheduler repeats a step within its run."""
    trial = killed(make_trial, cell, failpoint)
    trial.restart(same_run=True)
    assert_recovered(trial)


@each(BESIDES)
def test_a_restart_that_is_killed_too_is_followed_by_another(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = killed(make_trial, cell, failpoint)
    for again in (StateCrash("reconcile", "before"), StateCrash("reconcile", "after")):
        trial.kill_at(Failpoint("restart", state=again))
    trial.restart()
    assert_recovered(trial)


@each(BESIDES)
def test_a_killed_run_leaves_a_stream_that_grows_meanwhile_without_gaps(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    """New rows come between the kill and the restart; at the end the table holds every row of the source once."""
    trial = killed(make_trial, cell, failpoint)
    trial.source.execute(cell.later)
    trial.restart()
    if cell.commits_on_the_way:
        trial.run_undisturbed()
        trial.assert_equal()
    trial.assert_settled()
