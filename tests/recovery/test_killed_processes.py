"""A process that dies anywhere loses nothing and repeats nothing: killed by SIGKILL, started again, compared.

Each test is one cell of the guarantee (sync mode × write mode). What holds after the restart is what an uninterrupted
run leaves: the same rows, state store and watermark of one mind, and nothing half done in either database.
"""

from __future__ import annotations

from tests.recovery import cells
from tests.recovery.cells import Cell
from tests.recovery.conftest import MakeTrial
from tests.recovery.failpoints import Failpoint, failpoints_of
from tests.recovery.selection import Case, assert_quick_stands_for_all, each


def cases(*chosen: Cell) -> list[Case]:
    """Every failpoint of the cells."""
    return [
        Case(cell, failpoint, quick=cells.ALL.index(cell) % 5 == failpoint.quick_in)
        for cell in chosen
        for failpoint in failpoints_of(cell)
    ]


def test_the_quick_selection_has_every_failpoint_and_every_cell() -> None:
    assert_quick_stands_for_all(cases(*cells.ALL))


def survives(make_trial: MakeTrial, cell: Cell, failpoint: Failpoint) -> None:
    trial = make_trial(cell)
    trial.prepare()
    trial.run_undisturbed()
    commits = trial.commits_of_last_run()
    assert commits >= (3 if cell.commits_on_the_way else 1)
    trial.kill_at(failpoint.of_commits(commits))
    trial.restart()
    if failpoint.ended:
        trial.run_undisturbed()
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()
    trial.assert_settled()


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


@each(cases(cells.FULL_UPSERT))
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
