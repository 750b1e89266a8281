from __future__ import annotations

import pytest

from rapidbyte_dagster.config import Resources
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.errors import RapidbyteError


def a_ledger(sequence: int = 0, *, rows: int = 0, size: int = 0, seconds: int = 0) -> BarrierLedger:
    resources = Resources(
        checkpoint_interval_bytes=size, checkpoint_interval_rows=rows, checkpoint_interval_seconds=seconds
    )
    return BarrierLedger(resources, sequence)


def test_sequences_go_on_from_the_last_committed_one() -> None:
    ledger = a_ledger(7)
    checkpoint = ledger.mark("x", final=True)
    assert checkpoint is not None
    assert checkpoint.sequence == 8


def test_with_all_intervals_off_only_the_final_barrier_is_due() -> None:
    ledger = a_ledger()
    ledger.count(1_000_000, 1 << 40)
    assert ledger.mark(1, final=False) is None
    final = ledger.mark(2, final=True)
    assert final is not None
    assert (final.sequence, final.rows) == (1, 1_000_000)


@pytest.mark.parametrize("limit", [{"rows": 100}, {"size": 1000}])
def test_a_barrier_is_due_once_its_interval_is_reached(limit: dict[str, int]) -> None:
    ledger = a_ledger(**limit)
    ledger.count(99, 999)
    assert ledger.mark(1, final=False) is None
    ledger.count(1, 1)
    due = ledger.mark(2, final=False)
    assert due is not None
    assert (due.sequence, due.rows, due.bytes) == (1, 100, 1000)
    assert ledger.mark(3, final=False) is None


def test_a_commit_may_cover_several_barriers() -> None:
    ledger = a_ledger(rows=1)
    for cursor in (1, 2):
        ledger.count(10, 100)
        ledger.mark(cursor, final=False)
    ledger.count(5, 50)
    ledger.mark(3, final=True)
    prepared = ledger.prepare(3, rows=25)
    assert (prepared.cursor, prepared.rows, prepared.bytes) == (3, 25, 250)
    ledger.committed(3)
    assert ledger.settled
    assert ledger.rows_committed == 25


def test_a_destination_that_lost_a_row_may_not_commit() -> None:
    ledger = a_ledger()
    ledger.count(10, 100)
    ledger.mark(None, final=True)
    with pytest.raises(RapidbyteError, match="took 9 rows where 10 were emitted"):
        ledger.prepare(1, rows=9)
    assert not ledger.settled


def test_a_destination_may_not_commit_what_it_did_not_prepare() -> None:
    ledger = a_ledger()
    ledger.mark(None, final=True)
    with pytest.raises(RapidbyteError, match="without preparing"):
        ledger.committed(1)
    with pytest.raises(RapidbyteError, match="no barrier announced"):
        ledger.prepare(2, rows=0)


def test_nothing_may_follow_the_final_barrier() -> None:
    ledger = a_ledger()
    ledger.mark(None, final=True)
    with pytest.raises(RapidbyteError, match="after its final barrier"):
        ledger.count(1, 1)
    with pytest.raises(RapidbyteError, match="after its final one"):
        ledger.mark(None, final=False)


def states(ledger: BarrierLedger) -> tuple[bool, bool]:
    return ledger.complete, ledger.settled


def test_a_stream_is_complete_only_after_its_final_barrier_and_settled_only_after_its_commit() -> None:
    ledger = a_ledger()
    assert states(ledger) == (False, False)
    ledger.mark(None, final=True)
    assert states(ledger) == (True, False)
    ledger.prepare(1, rows=0)
    assert states(ledger) == (True, False)
    ledger.committed(1)
    assert states(ledger) == (True, True)


def test_a_destination_may_not_prepare_twice_without_a_commit_between() -> None:
    ledger = a_ledger(rows=1)
    for cursor in (1, 2):
        ledger.count(10, 100)
        ledger.mark(cursor, final=False)
    ledger.prepare(1, rows=10)
    with pytest.raises(RapidbyteError, match="prepared checkpoint 2 before it committed 1"):
        ledger.prepare(2, rows=20)


def test_rows_that_were_rejected_are_taken_and_not_loaded() -> None:
    ledger = a_ledger()
    ledger.count(10, 100)
    ledger.mark(None, final=True)
    prepared = ledger.prepare(1, rows=10, rejected=3)
    assert (prepared.rows, prepared.rejected) == (7, 3)
    ledger.committed(1)
    assert ledger.rows_committed == 7


@pytest.mark.parametrize(
    ("rows", "rejected", "told"),
    [(7, 3, "took 7 rows where 10 were emitted"), (10, 11, "rejected 11 rows of 10")],
)
def test_a_destination_may_not_reject_what_it_did_not_take(rows: int, rejected: int, told: str) -> None:
    ledger = a_ledger()
    ledger.count(10, 100)
    ledger.mark(None, final=True)
    with pytest.raises(RapidbyteError, match=told):
        ledger.prepare(1, rows=rows, rejected=rejected)
    assert not ledger.settled


def test_rows_that_the_source_set_aside_belong_to_the_barrier_that_follows_them() -> None:
    ledger = a_ledger(7, rows=3)
    assert ledger.count_dead_letters(2) == 8
    assert ledger.mark(1, final=False) is None, "less than three rows"
    assert ledger.count_dead_letters(1) == 8
    ledger.count(1, 10)
    first = ledger.mark(2, final=False)
    assert ledger.count_dead_letters(4) == 9
    final = ledger.mark(3, final=True)
    assert first is not None
    assert final is not None
    assert (first.dead_letters, final.dead_letters) == (3, 4)
    assert ledger.prepare(9, rows=1).dead_letters == 7
    with pytest.raises(RapidbyteError, match="after its final barrier"):
        ledger.count_dead_letters(1)


def test_the_next_checkpoint_has_at_least_the_number_of_the_oldest_barrier() -> None:
    ledger = a_ledger(7, rows=1)
    assert ledger.following() == 8
    for cursor in (1, 2):
        ledger.count(1, 10)
        ledger.mark(cursor, final=cursor == 2)
    assert ledger.following() == 8
    ledger.prepare(8, rows=1)
    with pytest.raises(RapidbyteError, match="no checkpoint will cover"):
        ledger.following()
    ledger.committed(8)
    assert ledger.following() == 9
    ledger.prepare(9, rows=1)
    ledger.committed(9)
    with pytest.raises(RapidbyteError, match="no checkpoint will cover"):
        ledger.following()
