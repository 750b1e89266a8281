"""Rows that are left out, and a run that dies: afterwards each row of the source is in the table or in one dead letter.

The tables refuse some rows of the run that is interrupted. What is counted is both places: the table, and the dead
letters of committed checkpoints, of which the state store holds no others once a run has ended.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from rapidbyte_dagster.errors import DestinationError
from tests.recovery import cells
from tests.recovery.accounts import assert_accounted, assert_same_letters, in_letters, in_source
from tests.recovery.cells import Cell
from tests.recovery.conftest import MakeTrial
from tests.recovery.failpoints import FINAL, IN_STORE, Failpoint, failpoints_of, failpoints_of_letters
from tests.recovery.selection import HARDEST, Case, each, half, with_quick_ones
from tests.recovery.test_killed_processes import STEPS, killed
from tests.recovery.trial import Trial
from tests.recovery.worker import StateCrash

QUICK = half(
    with_quick_ones(
        Case(cell, failpoint)
        for cell in cells.LETTERS
        for failpoint in (*failpoints_of(cell), *failpoints_of_letters(cell))
        if failpoint.name in STEPS or failpoint in failpoints_of_letters(cell)
    )
)
# What else there is has nothing to do with rows that are left out: its quick cases are those of cells that leave none.
CASES = [
    *QUICK,
    *(
        Case(cell, failpoint)
        for cell in cells.LETTERS
        for failpoint in failpoints_of(cell)
        if failpoint.name not in STEPS
    ),
]


def assert_recovered(trial: Trial, *, added_again: bool = False) -> None:
    """`added_again`: a full refresh that appends has brought all rows once more."""
    trial.assert_equal()
    trial.assert_settled()
    if not added_again:
        assert_accounted(trial)
    if trial.cell.commits_on_the_way:
        assert_same_letters(trial)
    trial.run_later()
    trial.assert_settled()
    if trial.cell is not cells.LETTERS_FULL_APPEND:
        assert_accounted(trial)


@each(CASES)
def test_a_killed_run_leaves_every_row_in_the_table_or_in_one_dead_letter(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = killed(make_trial, cell, failpoint)
    if failpoint.ended:
        assert_accounted(trial)
        trial.run_undisturbed()
    trial.restart()
    assert_recovered(trial, added_again=failpoint.ended and cell is cells.LETTERS_FULL_APPEND)


SKIPPING = [
    Case(
        replace(cell, name=cell.name.replace("dlq", "skip"), on_data_error="skip"),
        failpoint,
        quick=cell in (cells.LETTERS_REPLACE, cells.LETTERS_UPSERT)
        and failpoint.name == HARDEST
        and failpoint.nth in (None, FINAL),
    )
    for cell in cells.LETTERS
    for failpoint in failpoints_of(cell)
    if failpoint.name in STEPS
]


@each(SKIPPING)
def test_a_killed_run_that_skips_rows_counts_each_once(make_trial: MakeTrial, cell: Cell, failpoint: Failpoint) -> None:
    trial = killed(make_trial, cell, failpoint)
    trial.restart()
    trial.assert_equal()
    trial.assert_settled()
    calm = trial.undisturbed_checkpoints()
    assert trial.letters_in_all() == 0
    assert calm[0].run_id != trial.checkpoints()[0].run_id
    if cell.commits_on_the_way:
        rejected = [sum(c.rejected for c in checkpoints) for checkpoints in (trial.checkpoints(), calm)]
    else:
        rejected = [trial.checkpoints()[0].rejected, calm[0].rejected]
    assert rejected[0] == rejected[1] > 0


# The same, otherwise

AROUND_THE_COMMIT = (*STEPS, "after the dead letters")
BESIDES = [
    Case(cell, failpoint, quick=failpoint.name == step and failpoint.nth in (None, FINAL))
    for cell, step in (
        (cells.LETTERS_FULL_APPEND, "after the dead letters"),
        (cells.LETTERS_APPEND, HARDEST),
        (cells.LETTERS_UPSERT, None),
    )
    for failpoint in (*failpoints_of(cell), *failpoints_of_letters(cell))
    if failpoint.name in AROUND_THE_COMMIT
]


@each(BESIDES)
def test_a_killed_run_that_starts_again_under_its_own_id_tells_of_no_row_twice(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    """Its dead letters of before have the same run's name, and those that are to go the same number too."""
    trial = killed(make_trial, cell, failpoint)
    trial.restart(same_run=True)
    assert_recovered(trial)


@each(BESIDES)
def test_a_restart_that_is_killed_over_its_dead_letters_too_is_followed_by_another(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = killed(make_trial, cell, failpoint)
    for again in (StateCrash("reconcile", "before"), StateCrash("reconcile", "after")):
        trial.kill_at(Failpoint("restart", state=again))
    if failpoint.committed is not True:
        for crash in (StateCrash("add_dead_letters", "before"), StateCrash("add_dead_letters", "after")):
            trial.kill_at(Failpoint("restart", state=crash))
    trial.restart()
    assert_recovered(trial)


@each(
    Case(cell, failpoint, quick=cell is cells.LETTERS_APPEND and failpoint.name.endswith("acknowledged"))
    for cell in cells.LETTERS
    for failpoint in IN_STORE
)
def test_a_process_that_dies_while_its_dead_letters_are_written_into_postgresql_leaves_no_part_of_them(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = killed(make_trial, cell, failpoint, state_in_postgres=True)
    trial.restart()
    assert_recovered(trial)


@each(
    Case(cell, failpoint, quick=cell is cells.LETTERS_UPSERT and failpoint.name.endswith("acknowledged"))
    for cell in cells.LETTERS
    for failpoint in IN_STORE
)
def test_a_connection_to_the_state_store_that_is_cut_over_dead_letters_writes_them_once(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = make_trial(cell, state_in_postgres=True)
    trial.prepare()
    trial.run_undisturbed()
    assert trial.cut_at(failpoint).attempts == 1
    assert_recovered(trial)


# Attempts of one run

CUTS = [
    Case(
        cell,
        failpoint,
        quick=cell in (cells.LETTERS_OF_RULES, cells.LETTERS_REPLACE, cells.LETTERS_UPSERT)
        and failpoint.nth == FINAL
        and failpoint.name == HARDEST,
    )
    for cell in cells.LETTERS
    for failpoint in (*failpoints_of(cell), *failpoints_of_letters(cell))
    if failpoint.destination is not None and failpoint.name != "COMMIT acknowledged"
]


@each(CUTS)
def test_a_run_that_tries_again_tells_of_each_row_once(make_trial: MakeTrial, cell: Cell, failpoint: Failpoint) -> None:
    """The connection to the destination is cut, the answer to COMMIT lost, and the run's next attempt goes on."""
    trial = make_trial(cell, resources={"max_retries": 6})
    trial.prepare()
    calm = trial.run_undisturbed()
    result = trial.cut_at(failpoint.of_commits(trial.commits_of_last_run()))
    assert result.attempts == 2
    assert (result.rows, result.rejected, result.dead_letters) == (calm.rows, calm.rejected, calm.dead_letters)
    assert_recovered(trial)


@pytest.mark.parametrize(
    "cell", [cells.LETTERS_APPEND, pytest.param(cells.LETTERS_UPSERT, marks=pytest.mark.full)], ids=str
)
def test_a_destination_that_stays_away_leaves_no_dead_letter_that_counts(make_trial: MakeTrial, cell: Cell) -> None:
    """The first commit's answer is lost, and nobody can be asked what became of it."""
    trial = make_trial(cell, resources={"max_retries": 1})
    trial.prepare()
    trial.run_undisturbed()
    told_before = len(trial.letters())
    [first] = [f for f in failpoints_of(cell) if f.name == "COMMIT sent, never arrived" and f.nth == 1]
    assert first.destination is not None

    def go_away() -> None:
        trial.destination_proxy.refuses = True

    trial.destination_proxy.arm(first.destination, go_away)
    with pytest.raises(DestinationError):
        trial.run_interrupted()
    trial.destination_proxy.refuses = False
    assert len(trial.letters()) == told_before
    assert trial.letters_in_all() > told_before
    trial.restart()
    assert_recovered(trial)


# State and destination that do not fit each other

INCREMENTAL = pytest.mark.parametrize(
    "cell", [cells.LETTERS_APPEND, pytest.param(cells.LETTERS_UPSERT, marks=pytest.mark.full)], ids=str
)


@INCREMENTAL
def test_a_destination_that_was_restored_takes_its_dead_letters_with_it(make_trial: MakeTrial, cell: Cell) -> None:
    """The rows that are read again are refused again."""
    trial = make_trial(cell)
    trial.prepare()
    with trial.destination_restored_afterwards():
        trial.run_interrupted()
    assert in_letters(trial)
    trial.run_undisturbed()
    trial.restart()
    trial.assert_equal()
    assert trial.letters_in_all() == len(trial.letters())
    assert_accounted(trial)
    assert_same_letters(trial)


def test_a_killed_run_and_a_source_that_grows_leave_no_row_out_of_both(make_trial: MakeTrial) -> None:
    """Rows that come between the kill and the restart, refused ones among them."""
    cell = cells.LETTERS_APPEND
    [failpoint] = [f for f in failpoints_of(cell) if f.name == HARDEST and f.nth == FINAL]
    trial = killed(make_trial, cell, failpoint)
    before = in_source(trial)
    trial.source.execute(cell.later)
    assert in_source(trial) != before
    trial.restart()
    trial.run_undisturbed()
    trial.assert_equal()
    trial.assert_settled()
    assert_accounted(trial)
    assert_same_letters(trial)
