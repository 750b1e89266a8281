"""What every state store tells of dead letters without reading them all."""

from __future__ import annotations

from rapidbyte_dagster.state import StateStore
from tests.unit.state.samples import PIPELINE, STREAM, a_checkpoint, a_letter


def keep(store: StateStore, sequence: int, run_id: str, *messages: str, finalised: bool = True) -> None:
    letters = [a_letter(message, record='{"id":"' + message * 100 + '"}') for message in messages]
    store.add_dead_letters(PIPELINE, STREAM, letters, run_id=run_id, sequence=sequence)
    store.prepare(a_checkpoint(sequence, run_id=run_id, dead_letters=len(messages)))
    if finalised:
        store.finalise(PIPELINE, STREAM, sequence)


def test_previews_are_the_newest_and_as_long_as_asked_for(store: StateStore) -> None:
    keep(store, 1, "first", "a", "b")
    keep(store, 2, "second", "cc")
    keep(store, 3, "third", "d", finalised=False)
    found = store.dead_letter_previews(PIPELINE, STREAM, limit=2, characters=9)
    assert [(each.error_message, each.record_json, each.record_characters) for each in found] == [
        ("cc", '{"id":"cc', 209),
        ("b", '{"id":"bb', 109),
    ]
    assert found[0].error_category == "check"
    assert found[0].failed_at == store.dead_letters(PIPELINE, STREAM, "second")["failed_at"][0].as_py()
    (found_one,) = store.dead_letter_previews(PIPELINE, STREAM, "first", limit=1, characters=1000)
    assert found_one.record_json == '{"id":"' + "b" * 100 + '"}'
    assert store.dead_letter_previews(PIPELINE, STREAM, "third", limit=10, characters=9) == []


def test_the_runs_that_have_dead_letters_are_told_oldest_first(store: StateStore) -> None:
    assert store.dead_letter_runs(PIPELINE, STREAM) == []
    keep(store, 1, "z", "a", "b")
    keep(store, 2, "m")
    keep(store, 3, "a", "c")
    keep(store, 4, "z", "d")
    keep(store, 5, "n", "e", finalised=False)
    assert store.dead_letter_runs(PIPELINE, STREAM) == ["z", "a"]
    assert store.dead_letter_runs(PIPELINE, "other") == []
