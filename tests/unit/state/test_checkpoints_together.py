"""Checkpoints of several streams that one transaction commits, and a history that stays short."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state import Checkpoint, MadeSlot, StateStore
from tests.unit.state.samples import PIPELINE, STREAM, a_change, a_checkpoint


def of(stream: str, checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint.model_copy(update={"stream": stream})


def sequences(store: StateStore, stream: str = STREAM) -> list[int]:
    return [checkpoint.sequence for checkpoint in store.checkpoints(PIPELINE, stream)]


def committed(store: StateStore, *checkpoints: Checkpoint) -> None:
    for checkpoint in checkpoints:
        store.prepare(checkpoint)
        store.finalise(PIPELINE, checkpoint.stream, checkpoint.sequence)


def test_checkpoints_of_several_streams_count_once_they_are_finalised(store: StateStore) -> None:
    store.prepare_together([of("a", a_checkpoint(3)), of("b", a_checkpoint(8))])
    assert sequences(store, "a") == sequences(store, "b") == []
    store.finalise_together(PIPELINE, {"a": 3, "b": 8})
    assert (sequences(store, "a"), sequences(store, "b")) == ([3], [8])


def test_a_number_that_is_another_runs_is_refused_by_its_stream(store: StateStore) -> None:
    store.prepare(of("b", a_checkpoint(8, run_id="other")))
    with pytest.raises(StateError, match="checkpoint 8 of shop/b cannot be prepared"):
        store.prepare_together([of("a", a_checkpoint(3)), of("b", a_checkpoint(8))])


def test_what_was_never_prepared_cannot_be_finalised(store: StateStore) -> None:
    store.prepare(of("a", a_checkpoint(3)))
    with pytest.raises(StateError, match="checkpoint 8 of shop/b was committed but never prepared"):
        store.finalise_together(PIPELINE, {"a": 3, "b": 8})


def test_a_folded_run_keeps_its_newest_checkpoint_with_all_rows(store: StateStore) -> None:
    committed(store, a_checkpoint(1, run_id="before"), *(a_checkpoint(n, cursor=n, run_id="tail") for n in range(2, 7)))
    store.fold(PIPELINE, STREAM, "tail", after=1)
    assert sequences(store) == [6, 1]
    [newest, *_] = store.checkpoints(PIPELINE, STREAM)
    assert (newest.cursor, newest.rows, newest.bytes) == (6, 50, 500)
    assert store.committed(PIPELINE, STREAM, "tail", after=1).rows == 50
    store.fold(PIPELINE, STREAM, "tail", after=1)
    assert sequences(store) == [6, 1]


def test_what_belongs_to_a_checkpoint_keeps_it_from_being_folded(store: StateStore) -> None:
    committed(
        store,
        a_checkpoint(1),
        a_checkpoint(2, changes=[a_change()]),
        a_checkpoint(3, rejected=1),
        a_checkpoint(4),
        a_checkpoint(5),
    )
    store.prepare(a_checkpoint(6))
    store.fold(PIPELINE, STREAM, "run", after=1)
    assert sequences(store) == [5, 3, 2, 1]
    assert [event.sequence for event in store.schema_state(PIPELINE, STREAM).history] == [2]
    prepared = store.prepared_checkpoint(PIPELINE, STREAM)
    assert prepared is not None
    assert prepared.sequence == 6


def test_folding_nothing_changes_nothing(store: StateStore) -> None:
    store.fold(PIPELINE, STREAM, "run", after=0)
    assert sequences(store) == []


def test_the_slots_that_a_pipeline_made_are_known_until_they_are_dropped(store: StateStore) -> None:
    for slot in (MadeSlot("a", "71"), MadeSlot("b", "71"), MadeSlot("b", "71", "0/16B3748")):
        store.record_slot(PIPELINE, slot)
    store.record_slot("other", MadeSlot("c", None))
    assert store.made_slot(PIPELINE, "a") == MadeSlot("a", "71")
    assert store.made_slot(PIPELINE, "b") == MadeSlot("b", "71", "0/16B3748")
    assert store.made_slot(PIPELINE, "c") is None
    store.forget_slot(PIPELINE, "a")
    assert store.made_slot(PIPELINE, "a") is None
    assert store.made_slot("other", "c") == MadeSlot("c", None)
