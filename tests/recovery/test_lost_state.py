"""State that is deleted, restored or out of step: the destination's watermark is right, and gaps are never silent."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.engine.start import Start
from rapidbyte_dagster.errors import Kind, SchemaError
from tests.recovery import cells
from tests.recovery.cells import Cell
from tests.recovery.conftest import MakeTrial
from tests.recovery.failpoints import WATERMARK, Failpoint
from tests.recovery.proxy import Moment
from tests.recovery.trial import INTERRUPTED
from tests.recovery.worker import StateCrash

QUICK = (cells.FULL_APPEND, cells.INCREMENTAL_APPEND)


def some(*chosen: Cell) -> pytest.MarkDecorator:
    """Cells, of which few are in the quick selection."""
    params = [pytest.param(cell, marks=[] if cell in QUICK else [pytest.mark.full]) for cell in chosen]
    return pytest.mark.parametrize("cell", params, ids=str)


EVERY = some(*cells.ALL)
INCREMENTAL = some(cells.INCREMENTAL_APPEND, cells.INCREMENTAL_UPSERT)
FULL_REFRESH = some(cells.FULL_APPEND, cells.FULL_REPLACE_SWAP, cells.FULL_UPSERT)
EITHER_BACKEND = pytest.mark.parametrize(
    "state_in_postgres", [False, pytest.param(True, marks=pytest.mark.full)], ids=["sqlite", "postgres"]
)

KILLS = [
    pytest.param(Failpoint("after prepare", state=StateCrash("prepare", "after", nth=2)), marks=pytest.mark.full),
    pytest.param(
        Failpoint("COMMIT sent, never arrived", destination=Moment("^COMMIT", nth=2, within=WATERMARK)),
        marks=pytest.mark.full,
    ),
    Failpoint("COMMIT done, not acknowledged", destination=Moment("^COMMIT", "answered", nth=2, within=WATERMARK)),
    pytest.param(Failpoint("before finalise", state=StateCrash("finalise", "before", nth=2)), marks=pytest.mark.full),
]


@EVERY
@EITHER_BACKEND
def test_state_that_was_deleted_between_runs_is_found_again_at_the_destination(
    make_trial: MakeTrial, cell: Cell, state_in_postgres: bool
) -> None:
    trial = make_trial(cell, state_in_postgres=state_in_postgres)
    trial.prepare()
    trial.run_undisturbed()
    trial.forget_state()
    trial.restart()
    trial.assert_equal()
    [checkpoint, *_] = trial.checkpoints()
    assert checkpoint.sequence == trial.watermark()
    trial.run_later()
    trial.assert_nothing_left()


@INCREMENTAL
@EITHER_BACKEND
@pytest.mark.parametrize("failpoint", KILLS, ids=str)
def test_state_that_was_deleted_after_a_kill_is_found_again_at_the_destination(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint, state_in_postgres: bool
) -> None:
    trial = make_trial(cell, state_in_postgres=state_in_postgres)
    trial.prepare()
    trial.run_undisturbed()
    trial.kill_at(failpoint)
    trial.forget_state()
    trial.restart()
    trial.assert_equal()
    trial.run_later()
    trial.assert_nothing_left()


@EVERY
def test_state_that_is_older_than_the_watermark_follows_it(make_trial: MakeTrial, cell: Cell) -> None:
    """A backup of the state store is put back after a run; the next run goes on from where the destination is."""
    trial = make_trial(cell)
    trial.prepare()
    trial.run_undisturbed()
    with trial.state_restored_afterwards():
        trial.run_interrupted()
    trial.run_later()
    [checkpoint, *_] = trial.checkpoints()
    assert checkpoint.sequence == trial.watermark()
    assert trial.prepared_checkpoints() == 0
    trial.assert_nothing_left()


@INCREMENTAL
def test_state_that_is_newer_than_a_restored_destination_follows_it(make_trial: MakeTrial, cell: Cell) -> None:
    """The destination is put back to before a run: its rows are loaded again, however sure the state store is."""
    trial = make_trial(cell)
    trial.prepare()
    with trial.destination_restored_afterwards():
        trial.run_interrupted()
    trial.run_undisturbed()
    report = trial.restart()
    assert any("restored" in message for message in report.log)
    trial.assert_equal()
    trial.run_later()
    assert trial.checkpoints()[0].sequence == trial.watermark()


@INCREMENTAL
def test_a_table_that_was_dropped_by_hand_is_never_continued_silently(make_trial: MakeTrial, cell: Cell) -> None:
    trial = make_trial(cell)
    trial.prepare()
    trial.run_undisturbed()
    trial.destination.execute(f"DROP TABLE {INTERRUPTED}.events")
    before = trial.watermark()
    with pytest.raises(SchemaError, match="events") as caught:
        trial.run_interrupted()
    assert caught.value.kind is Kind.SCHEMA
    assert "rapidbyte state reset" in str(caught.value.hint)
    assert "full_refresh" in str(caught.value.hint)
    assert trial.destination.fetch_value(f"SELECT to_regclass('{INTERRUPTED}.events') IS NULL"), "nothing was written"
    assert trial.watermark() == before
    trial.run_interrupted(Start.RESET)
    trial.assert_equal()
    trial.run_later()


@FULL_REFRESH
def test_a_table_that_was_dropped_by_hand_is_made_again_by_a_full_refresh(make_trial: MakeTrial, cell: Cell) -> None:
    trial = make_trial(cell)
    trial.prepare()
    for schema in (INTERRUPTED, "calm"):
        trial.destination.execute(f"DROP TABLE {schema}.events")
    trial.run_undisturbed()
    trial.restart()
    trial.assert_equal()
    trial.run_later()


def test_watermarks_that_were_dropped_stop_an_incremental_append_before_it_repeats_rows(make_trial: MakeTrial) -> None:
    trial = make_trial(cells.INCREMENTAL_APPEND)
    trial.prepare()
    trial.run_undisturbed()
    rows = f"SELECT count(*) FROM {INTERRUPTED}.events"
    before = trial.destination.fetch_value(rows)
    trial.destination.execute(f"DROP TABLE {INTERRUPTED}._rapidbyte_watermarks")
    with pytest.raises(SchemaError) as caught:
        trial.run_interrupted()
    assert caught.value.kind is Kind.SCHEMA
    assert caught.value.hint
    assert trial.destination.fetch_value(rows) == before
    trial.run_interrupted(Start.FULL_REFRESH)
    trial.assert_equal()
    trial.run_later()
    trial.assert_nothing_left()


def test_watermarks_that_were_dropped_make_an_incremental_upsert_read_everything_again(make_trial: MakeTrial) -> None:
    trial = make_trial(cells.INCREMENTAL_UPSERT)
    trial.prepare()
    trial.run_undisturbed()
    trial.destination.execute(f"DROP TABLE {INTERRUPTED}._rapidbyte_watermarks")
    report = trial.restart()
    assert any("from the beginning" in message for message in report.log)
    trial.assert_equal()
    trial.run_later()
    assert trial.checkpoints()[0].sequence == trial.watermark()


@FULL_REFRESH
def test_watermarks_that_were_dropped_are_made_again_by_a_full_refresh(make_trial: MakeTrial, cell: Cell) -> None:
    trial = make_trial(cell)
    trial.prepare()
    trial.run_undisturbed()
    trial.destination.execute(f"DROP TABLE {INTERRUPTED}._rapidbyte_watermarks")
    trial.restart()
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()
