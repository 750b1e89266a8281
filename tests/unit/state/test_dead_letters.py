"""Dead letters in every state store: they count exactly when the checkpoint that covers their rows is committed."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from rapidbyte_dagster.state import DeadLetter, DeadLetterCounts, LetterCategory, LetterChoice, StateStore, Watermark
from rapidbyte_dagster.state.dead_letter_sql import Append, LetterTable, letter_row
from rapidbyte_dagster.state.dead_letters import DEAD_LETTER_SCHEMA
from rapidbyte_dagster.state.sql import Execute, SqlStateStore
from tests.unit.state.backends import Backend
from tests.unit.state.samples import PIPELINE, STREAM, a_checkpoint, a_letter


def add(store: StateStore, sequence: int, *messages: str, run_id: str = "run") -> None:
    store.add_dead_letters(PIPELINE, STREAM, [a_letter(each) for each in messages], run_id=run_id, sequence=sequence)


def commit(store: StateStore, sequence: int, *messages: str, run_id: str = "run") -> None:
    add(store, sequence, *messages, run_id=run_id)
    store.prepare(a_checkpoint(sequence, run_id=run_id, dead_letters=len(messages)))
    store.finalise(PIPELINE, STREAM, sequence)


def messages(store: StateStore, run_id: str | None = None) -> list[Any]:
    return store.dead_letters(PIPELINE, STREAM, run_id)["error_message"].to_pylist()


def in_all(backend: Backend) -> int:
    """How many there are, those that do not count included."""
    with backend.open() as store:
        [(count,)] = sql(store)._read("SELECT count(*) FROM _rapidbyte_dlq", ())
        return int(count)


def sql(store: StateStore) -> SqlStateStore:
    assert isinstance(store, SqlStateStore)
    return store


def test_no_dead_letters_are_an_empty_table_of_the_full_schema(store: StateStore) -> None:
    table = store.dead_letters(PIPELINE, STREAM)
    assert table.schema == DEAD_LETTER_SCHEMA
    assert table.num_rows == 0
    assert store.dead_letter_counts(PIPELINE, STREAM) == DeadLetterCounts(0, {}, 0)


def test_a_dead_letter_comes_back_as_it_was_given(store: StateStore) -> None:
    letter = DeadLetter(
        record_json='{"id":18446744073709551616,"ü \\u0000":"\\\\x00ff","n":null,"%s ?":true}',
        types_json='{"id":"numeric"}',
        message="a NUL \0, % and ?",
        category=LetterCategory.UNIQUE,
        stage="destination",
        failed_at=datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        sqlstate="23505",
        constraint="users_pkey",
        column="id",
    )
    store.add_dead_letters(PIPELINE, STREAM, [letter], run_id="run", sequence=7)
    commit(store, 7)
    (found,) = store.dead_letters(PIPELINE, STREAM).to_pylist()
    assert found.pop("id") > 0
    assert found == {
        "stream_name": STREAM,
        "record_json": letter.record_json,
        "error_message": "a NUL \\0, % and ?",
        "error_category": "unique",
        "failed_at": "2024-01-01T10:00:00.000000+00:00",
        "pipeline_name": PIPELINE,
        "run_id": "run",
        "stage": "destination",
        "column_name": "id",
        "checkpoint_sequence": 7,
        "sqlstate": "23505",
        "constraint_name": "users_pkey",
        "types_json": letter.types_json,
        "replayed_by_run": None,
        "replayed_sequence": None,
    }


def test_dead_letters_do_not_count_until_their_checkpoint_is_committed(store: StateStore) -> None:
    add(store, 1, "a", "b")
    assert messages(store) == []
    store.prepare(a_checkpoint(1, dead_letters=2))
    assert messages(store) == []
    assert store.dead_letter_counts(PIPELINE, STREAM).total == 0
    store.finalise(PIPELINE, STREAM, 1)
    assert messages(store) == ["a", "b"]
    (checkpoint,) = store.checkpoints(PIPELINE, STREAM)
    assert checkpoint.dead_letters == 2


def test_dead_letters_come_oldest_first_and_those_of_one_run_alone(store: StateStore) -> None:
    commit(store, 1, "no 0", run_id="first")
    commit(store, 2, "no 1", run_id="second")
    commit(store, 2**40, "no 2", run_id="first")
    assert messages(store) == ["no 0", "no 1", "no 2"]
    assert messages(store, "first") == ["no 0", "no 2"]
    assert messages(store, "third") == []
    assert store.dead_letters("other", STREAM).num_rows == store.dead_letters(PIPELINE, "orders").num_rows == 0


def test_dead_letters_are_counted_by_category_and_by_whether_they_wait(store: StateStore) -> None:
    letters = [a_letter(category=each) for each in (LetterCategory.CHECK, LetterCategory.CAST, LetterCategory.CHECK)]
    store.add_dead_letters(PIPELINE, STREAM, letters, run_id="run", sequence=1)
    commit(store, 1)
    commit(store, 2, "another run's", run_id="second")
    assert store.dead_letter_counts(PIPELINE, STREAM) == DeadLetterCounts(4, {"cast": 1, "check": 3}, 4)
    store.mark_dead_letters(PIPELINE, STREAM, LetterChoice(run_id="run"), run_id="replay", sequence=3)
    assert store.dead_letter_counts(PIPELINE, STREAM) == DeadLetterCounts(4, {"cast": 1, "check": 3}, 4)
    commit(store, 3, run_id="replay")
    assert store.dead_letter_counts(PIPELINE, STREAM) == DeadLetterCounts(4, {"cast": 1, "check": 3}, 1)
    assert store.dead_letter_counts(PIPELINE, STREAM, "run") == DeadLetterCounts(3, {"cast": 1, "check": 2}, 0)


def test_dead_letters_go_the_way_of_their_checkpoint(store: StateStore, backend: Backend) -> None:
    for sequence in (1, 2, 3):
        add(store, sequence, f"of {sequence}")
        store.prepare(a_checkpoint(sequence, dead_letters=1))
    store.finalise(PIPELINE, STREAM, 1)
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, run_id="run"))
    assert messages(store) == ["of 1", "of 2"]
    assert in_all(backend) == 2
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, run_id="run"))
    assert messages(store) == ["of 1"], "the destination was restored"
    assert in_all(backend) == 1


def test_dead_letters_whose_checkpoint_was_never_prepared_are_deleted(store: StateStore, backend: Backend) -> None:
    commit(store, 1, "kept")
    add(store, 2, "rolled back")
    store.add_dead_letters(PIPELINE, "orders", [a_letter("of another stream")], run_id="run", sequence=2)
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, run_id="run"))
    assert in_all(backend) == 2
    commit(store, 2, "of the next attempt")
    assert messages(store) == ["kept", "of the next attempt"]


def test_dead_letters_of_a_number_that_another_run_committed_are_not_its(store: StateStore, backend: Backend) -> None:
    add(store, 2, "of a run that lost its destination", run_id="zombie")
    commit(store, 2, "its own", run_id="other")
    assert messages(store) == ["its own"]
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, run_id="other"))
    assert in_all(backend) == 1


def test_a_checkpoint_that_covers_several_barriers_has_the_dead_letters_of_all(store: StateStore) -> None:
    commit(store, 1, "of 1")
    add(store, 3, *(f"of 3, {number}" for number in range(1500)))
    add(store, 4, "of 4")
    commit(store, 5, "of 5")
    table = store.dead_letters(PIPELINE, STREAM)
    assert table["checkpoint_sequence"].to_pylist() == [1, *[5] * 1502]
    assert table["error_message"].to_pylist() == ["of 1", *(f"of 3, {n}" for n in range(1500)), "of 4", "of 5"]


def test_many_and_large_dead_letters_are_all_kept_in_order(store: StateStore) -> None:
    large = [a_letter(f"no {number}", record="x" * 9_000_000) for number in range(3)]
    letters = [*large, *(a_letter(f"no {number}") for number in range(3, 2503))]
    store.add_dead_letters(PIPELINE, STREAM, letters, run_id="run", sequence=1)
    commit(store, 1)
    assert messages(store) == [f"no {number}" for number in range(2503)]
    assert store.dead_letter_counts(PIPELINE, STREAM).total == 2503


def test_adding_dead_letters_once_more_because_an_answer_got_lost_adds_them_once(store: StateStore) -> None:
    commit(store, 1, "before")
    for committed in (True, False):
        append = Append(
            LetterTable(), [letter_row(a_letter("a"), PIPELINE, STREAM, "run", 2)] * 2, PIPELINE, STREAM, "run"
        )

        def work(execute: Execute, append: Append = append, committed: bool = committed) -> None:
            append(execute)
            if not committed:
                raise RuntimeError("the connection broke before COMMIT")

        with contextlib.nullcontext() if committed else pytest.raises(RuntimeError):
            sql(store)._write(PIPELINE, STREAM, work)
        sql(store)._write(PIPELINE, STREAM, append)
    commit(store, 2)
    assert messages(store) == ["before", *"aaaa"]
