from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rapidbyte_dagster.assets.slot_watch import (
    FIRST_RETRY_SECONDS,
    HELD_SECONDS,
    IDLE_SECONDS,
    LAST_RETRY_SECONDS,
    OBSERVE_IDLE_SECONDS,
    OBSERVE_SECONDS,
    Decision,
    Look,
    Memory,
    PastRun,
    RunningRun,
    decide,
    retry_seconds,
)

NOW = 1_800_000_000.0
MEGABYTE = 1024**2
LIMIT = 1024 * MEGABYTE


def a_run(
    status: Any = "ok", *, ended: float = 60.0, took: float = 5.0, changes: str | None = "a", number: int = 1
) -> PastRun:
    """A run that ended so many seconds ago."""
    return PastRun(f"run-{number}", status, NOW - ended - took, NOW - ended, changes)


def a_look(**options: Any) -> Look:
    return replace(Look(at=NOW, lag_bytes=0, changes="a", past=[a_run()]), **options)


def decided(look: Look, memory: Memory | None = None) -> Decision:
    return decide(look, memory or Memory(), max_lag_bytes=LIMIT)


def test_a_slot_of_which_all_is_read_is_left_alone() -> None:
    decision = decided(a_look(lag_bytes=2 * MEGABYTE))
    assert decision.action == "skip"
    assert decision.message == "Nothing to read. Behind by 2.0 MB of WAL; no change waits."
    assert decision.lag_seconds == 0
    assert decision.run_key is None


def test_changes_of_the_tables_start_a_run_behind_the_last_one() -> None:
    decision = decided(a_look(changes="b", lag_bytes=42), Memory(caught_up_at=NOW - 30))
    assert (decision.action, decision.run_key) == ("run", "after run-1")
    assert decision.message == (
        "Rows of its tables have changed. Behind by 42 bytes of WAL; changes wait for at most 30 s."
    )


def test_the_first_run_needs_neither_a_slot_nor_changes() -> None:
    decision = decided(a_look(exists=False, past=[], changes=""))
    assert (decision.action, decision.run_key, decision.lag_seconds) == ("run", "after none", None)


def test_while_a_run_goes_on_no_other_one_starts_whatever_there_is() -> None:
    running = RunningRun("0123456789", NOW - 100, "STARTED")
    cases: list[dict[str, Any]] = [
        {},
        {"past": []},
        {"alarm": "the slot is gone"},
        {"held_by": 7},
        {"lag_bytes": LIMIT},
    ]
    for options in cases:
        decision = decided(a_look(changes="b", running=running, **options))
        assert decision.action == "skip"
        assert decision.message.startswith("Run 01234567 is started since 2027-01-15 07:58:20 UTC.")


def test_a_run_that_goes_on_for_hours_is_told_with_what_to_do_if_it_does_not() -> None:
    decision = decided(a_look(running=RunningRun("0123456789", NOW - IDLE_SECONDS, "STARTED")))
    assert "mark it as failed" in decision.message


@pytest.mark.parametrize(("failures", "wait"), [(1, 30), (2, 60), (3, 120), (4, 240), (5, 300), (20, 300)])
def test_after_failures_in_a_row_the_next_try_waits_longer_each_time(failures: int, wait: float) -> None:
    assert retry_seconds(failures) == wait
    past = [a_run("failed", ended=wait - 1 + number, number=number) for number in range(failures)] + [a_run(ended=9999)]
    decision = decided(a_look(changes="b", past=past))
    assert decision.action == "skip"
    assert "failed" in decision.message
    assert "the next try is in 1 s" in decision.message
    decision = decided(a_look(changes="b", past=past, at=NOW + 1))
    assert (decision.action, decision.run_key) == ("run", "after run-0")


def test_a_failed_run_is_tried_again_although_nothing_has_changed_since_the_one_before_it() -> None:
    past = [a_run("failed", ended=LAST_RETRY_SECONDS, number=2), a_run(ended=1000)]
    assert decided(a_look(past=past)).action == "run"


def test_each_try_has_a_key_of_its_own_so_that_the_failed_one_does_not_use_it_up() -> None:
    first = a_run("failed", ended=1000, number=1)
    second = a_run("failed", ended=900, number=2)
    keys = {decided(a_look(past=past)).run_key for past in ([], [first], [second, first])}
    assert len(keys) == 3


def test_a_canceled_run_waits_as_a_failed_one_does() -> None:
    decision = decided(a_look(changes="b", past=[a_run("canceled", ended=FIRST_RETRY_SECONDS - 1)]))
    assert (decision.action, "was canceled" in decision.message) == ("skip", True)


def test_a_success_ends_the_waiting() -> None:
    past = [a_run(ended=1, number=9), *(a_run("failed", ended=20, number=number) for number in range(8))]
    assert decided(a_look(changes="b", past=past)).action == "run"


def test_wal_of_other_traffic_moves_the_position_before_it_becomes_much() -> None:
    assert decided(a_look(lag_bytes=LIMIT // 4 - 1)).action == "skip"
    decision = decided(a_look(lag_bytes=LIMIT // 4))
    assert decision.action == "run"
    assert "other traffic" in decision.message
    # No change waits, which the lag in seconds says.
    assert decision.lag_seconds == 0


def test_an_idle_slots_position_moves_once_in_a_while() -> None:
    past = [a_run(ended=IDLE_SECONDS)]
    assert decided(a_look(lag_bytes=1, past=past)).action == "run"
    assert decided(a_look(lag_bytes=0, past=past)).action == "skip"


def test_what_no_run_can_mend_fails_the_tick() -> None:
    decision = decided(a_look(changes="b", alarm="the slot is gone", past=[]))
    assert (decision.action, decision.message, decision.observe) == ("alarm", "the slot is gone", False)


def test_streams_that_cannot_go_on_stop_no_run_for_the_others_and_are_told_first() -> None:
    decision = decided(a_look(changes="b", lag_bytes=42, stopped="users is lost"), Memory(caught_up_at=NOW - 30))
    assert (decision.action, decision.run_key) == ("run", "after run-1")
    assert decision.message == (
        "Users is lost. Rows of its tables have changed. Behind by 42 bytes of WAL; changes wait for at most 30 s."
    )
    decision = decided(a_look(stopped="users is lost", running=RunningRun("0123456789", NOW, "STARTED")))
    assert decision.action == "skip"
    assert decision.message.startswith("Users is lost. Run 01234567 is started")


def test_streams_that_cannot_go_on_are_tried_again_seldom_unless_others_change() -> None:
    past = [a_run("failed", ended=LAST_RETRY_SECONDS, number=number) for number in range(20)]
    stopped = a_look(past=past, stopped="users is lost")
    assert decided(stopped).action == "skip"
    assert decided(replace(stopped, changes="b")).action == "run"
    assert decided(replace(stopped, stopped=None)).action == "run"
    assert decided(replace(stopped, at=NOW + IDLE_SECONDS)).action == "run"


def test_another_consumer_is_skipped_at_first_and_an_alarm_later() -> None:
    memory = Memory()
    for after in (0.0, HELD_SECONDS - 1):
        decision = decided(a_look(changes="b", held_by=4711, at=NOW + after), memory)
        assert decision.action == "skip"
        assert "4711" in decision.message
        memory = decision.memory
    decision = decided(a_look(changes="b", held_by=4711, at=NOW + HELD_SECONDS), memory)
    assert decision.action == "alarm"
    assert "pg_terminate_backend(4711)" in decision.message


def test_a_run_that_the_instance_does_not_know_of_is_no_alarm_however_long_it_tails() -> None:
    held = {"held_by": 4711, "held_as": "rapidbyte/shop", "held_by_own": True}
    memory = decided(a_look(**held)).memory
    decision = decided(a_look(changes="b", at=NOW + HELD_SECONDS, **held), memory)
    assert decision.action == "skip"
    assert "`rapidbyte run`" in decision.message


def test_a_consumer_that_leaves_is_forgotten() -> None:
    memory = decided(a_look(held_by=4711)).memory
    memory = decided(a_look(at=NOW + 10), memory).memory
    decision = decided(a_look(held_by=4711, at=NOW + HELD_SECONDS + 1), memory)
    assert decision.action == "skip"


def test_the_lag_counts_from_the_last_time_when_nothing_waited() -> None:
    memory = decided(a_look(at=NOW - 40)).memory
    decision = decided(a_look(changes="b", past=[a_run(ended=500)]), memory)
    assert decision.lag_seconds == 40
    # And not from then once a run was asked for that has read everything since.
    decision = decided(a_look(changes="c", past=[a_run(ended=10, took=5, changes="b")]), memory)
    assert decision.lag_seconds == 15


def test_a_run_that_no_tick_asked_for_leaves_the_changes_of_the_one_before_it_covered() -> None:
    past = [a_run(changes=None, number=2), a_run(changes="a", number=1)]
    assert decided(a_look(past=past)).action == "skip"
    assert decided(a_look(past=past, changes="b")).action == "run"


def test_observations_come_at_once_then_seldom_and_more_often_while_something_goes_on() -> None:
    first = decided(a_look())
    assert first.observe
    assert not decided(a_look(at=NOW + OBSERVE_SECONDS), first.memory).observe
    assert decided(a_look(at=NOW + OBSERVE_IDLE_SECONDS), first.memory).observe
    behind = decided(a_look(at=NOW + 1, changes="b"), first.memory)
    assert not behind.observe
    behind = decided(a_look(at=NOW + OBSERVE_SECONDS, changes="b"), first.memory)
    assert behind.observe
    assert decided(a_look(at=NOW + 2 * OBSERVE_SECONDS, changes="b"), behind.memory).observe


def test_what_a_tick_remembers_survives_as_the_sensors_cursor() -> None:
    memory = Memory(caught_up_at=NOW, held_since=NOW - 1, observed_at=NOW - 2, observed="idle")
    assert Memory.of(memory.text) == memory
    assert Memory.of(Memory().text) == Memory()


@pytest.mark.parametrize(
    "cursor", [None, "", "not json", "[1]", '{"caught_up_at": "soon", "observed": 1}', '"0/16B3748"']
)
def test_a_cursor_of_something_else_is_forgotten(cursor: str | None) -> None:
    assert Memory.of(cursor) == Memory()
