"""What a capture counts: marks, what they cover, and how far everything is committed."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.config import Resources
from rapidbyte_dagster.engine.capture.ledger import CaptureLedger
from rapidbyte_dagster.errors import RapidbyteError

NEVER = Resources(checkpoint_interval_bytes=0)


def test_a_commit_covers_all_marks_before_it() -> None:
    ledger = CaptureLedger(NEVER, tails=False)
    ledger.count("users", 2, 100)
    ledger.mark(10, 5, False)
    ledger.count("users", 1, 50)
    ledger.count("orders", 4, 70)
    ledger.mark(20, None, False)
    covered = ledger.prepare(2, {"users": 3, "orders": 4})
    assert (covered.position, covered.committed_at, covered.final) == (20, 5, False)
    assert (covered.rows, covered.bytes) == ({"users": 3, "orders": 4}, {"users": 150, "orders": 70})
    assert ledger.settled == 0
    ledger.committed(2)
    assert (ledger.settled, ledger.rows_committed) == (2, 7)


@pytest.mark.parametrize("rows", [{}, {"users": 1}, {"users": 3}, {"users": 2, "orders": 1}])
def test_changes_that_are_lost_or_repeated_are_not_committed(rows: dict[str, int]) -> None:
    ledger = CaptureLedger(NEVER, tails=False)
    ledger.count("users", 2, 100)
    ledger.mark(10, None, False)
    with pytest.raises(RapidbyteError, match="emitted: not committed"):
        ledger.prepare(1, rows)


def test_what_a_stopped_stream_needs_is_never_settled() -> None:
    ledger = CaptureLedger(NEVER, tails=True)
    for position in (10, 20):
        ledger.mark(position, None, False)
    ledger.prepare(1, {})
    ledger.committed(1)
    ledger.freeze()
    ledger.prepare(2, {})
    ledger.committed(2)
    assert ledger.settled == 1


def test_a_tail_commits_when_nothing_more_is_there() -> None:
    ledger = CaptureLedger(NEVER, tails=True)
    ledger.count("users", 2, 100)
    number = ledger.mark(10, None, False).number
    assert not ledger.is_due(number, more=True)
    assert ledger.is_due(number, more=False)


def test_a_catch_up_commits_by_the_limits_and_at_the_end() -> None:
    ledger = CaptureLedger(Resources(checkpoint_interval_bytes=0, checkpoint_interval_rows=3), tails=False)
    ledger.count("users", 2, 100)
    first = ledger.mark(10, None, False).number
    assert not ledger.is_due(first, more=False)
    ledger.count("users", 1, 100)
    assert ledger.is_due(ledger.mark(20, None, False).number, more=True)
    assert ledger.is_due(ledger.mark(30, None, True).number, more=True)


def test_a_position_without_changes_is_committed_at_once() -> None:
    ledger = CaptureLedger(NEVER, tails=False)
    assert ledger.is_due(ledger.mark(10, None, False).number, more=False)


def test_marks_never_go_back() -> None:
    ledger = CaptureLedger(NEVER, tails=False)
    ledger.mark(10, None, False)
    with pytest.raises(RapidbyteError, match="lies before an earlier one"):
        ledger.mark(9, None, False)


def test_nothing_comes_behind_the_final_mark() -> None:
    ledger = CaptureLedger(NEVER, tails=False)
    ledger.mark(10, None, True)
    with pytest.raises(RapidbyteError, match="after its final barrier"):
        ledger.count("users", 1, 1)
    with pytest.raises(RapidbyteError, match="after its final one"):
        ledger.mark(11, None, False)


def test_a_capture_is_complete_once_its_final_mark_is_committed() -> None:
    ledger = CaptureLedger(NEVER, tails=False)
    ledger.mark(10, None, True)
    assert not ledger.complete
    ledger.prepare(1, {})
    assert not ledger.complete
    ledger.committed(1)
    assert ledger.complete


def test_a_destination_commits_what_it_prepared_and_nothing_else() -> None:
    ledger = CaptureLedger(NEVER, tails=False)
    ledger.mark(10, None, False)
    with pytest.raises(RapidbyteError, match="without preparing it"):
        ledger.committed(1)
    with pytest.raises(RapidbyteError, match="which it was not given"):
        ledger.prepare(2, {})
    ledger.prepare(1, {})
    with pytest.raises(RapidbyteError, match="before it committed the one before"):
        ledger.prepare(1, {})
