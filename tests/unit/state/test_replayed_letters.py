"""Dead letters that a replay takes, in every state store: they are replayed once its checkpoint is committed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state import LetterCategory, LetterChoice, StateStore, Watermark, dead_letter_sql
from rapidbyte_dagster.state.dead_letter_sql import LetterTable
from tests.unit.state.backends import Backend
from tests.unit.state.samples import PIPELINE, STREAM, a_checkpoint, a_letter

REPLAY = "replay"
EVERYTHING = LetterChoice()


def commit(store: StateStore, sequence: int, *messages: str, run_id: str = "run", replaced: bool = False) -> None:
    """A checkpoint and what it set aside."""
    letters = [a_letter(each) for each in messages]
    store.add_dead_letters(PIPELINE, STREAM, letters, run_id=run_id, sequence=sequence)
    store.prepare(a_checkpoint(sequence, run_id=run_id, dead_letters=len(messages), replaced=replaced))
    store.finalise(PIPELINE, STREAM, sequence)


def take(store: StateStore, sequence: int, choice: LetterChoice = EVERYTHING, run_id: str = REPLAY) -> int:
    return store.mark_dead_letters(PIPELINE, STREAM, choice, run_id=run_id, sequence=sequence)


def taken(store: StateStore, sequence: int, run_id: str = REPLAY) -> list[int]:
    pages = store.marked_dead_letters(PIPELINE, STREAM, run_id=run_id, sequence=sequence, stages=["destination"])
    return [letter.id for page in pages for letter in page]


def waiting(store: StateStore) -> list[str]:
    pages = store.dead_letter_pages(PIPELINE, STREAM, LetterChoice(waiting=True))
    return [str(message) for page in pages for message in page["error_message"].to_pylist()]


def replayed(store: StateStore) -> dict[str, tuple[str | None, int | None]]:
    rows = store.dead_letters(PIPELINE, STREAM).to_pylist()
    return {row["error_message"]: (row["replayed_by_run"], row["replayed_sequence"]) for row in rows}


def test_a_letter_is_replayed_once_the_replays_checkpoint_is_committed(store: StateStore) -> None:
    commit(store, 1, "a", "b")
    assert take(store, 2) == 2
    assert replayed(store) == {"a": (None, None), "b": (None, None)}
    assert waiting(store) == ["a", "b"]
    store.prepare(a_checkpoint(2, run_id=REPLAY))
    assert waiting(store) == ["a", "b"]
    store.finalise(PIPELINE, STREAM, 2)
    assert replayed(store) == {"a": (REPLAY, 2), "b": (REPLAY, 2)}
    assert waiting(store) == []
    assert take(store, 3, run_id="another") == 0


@pytest.mark.parametrize("prepared", [False, True])
def test_a_replay_that_was_not_committed_gives_its_letters_back(store: StateStore, prepared: bool) -> None:
    commit(store, 1, "a", "b")
    take(store, 2)
    if prepared:
        store.prepare(a_checkpoint(2, run_id=REPLAY))
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, run_id="run"))
    assert taken(store, 2) == []
    commit(store, 2, run_id="an ordinary run")
    assert waiting(store) == ["a", "b"]
    assert take(store, 3, run_id="another") == 2


def test_a_replay_whose_commit_nobody_acknowledged_is_settled_by_the_watermark(store: StateStore) -> None:
    commit(store, 1, "a", "b")
    take(store, 2)
    store.add_dead_letters(PIPELINE, STREAM, [a_letter("b again")], run_id=REPLAY, sequence=2)
    store.prepare(a_checkpoint(2, run_id=REPLAY, dead_letters=1))
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, run_id=REPLAY, final=True))
    assert waiting(store) == ["b again"]
    assert replayed(store)["a"] == (REPLAY, 2)


def test_letters_wait_again_where_the_destination_lost_their_replay(store: StateStore) -> None:
    commit(store, 1, "a")
    take(store, 2)
    commit(store, 2, "a again", run_id=REPLAY)
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, run_id="run"))
    assert waiting(store) == ["a"]
    assert replayed(store) == {"a": (None, None)}


def test_a_choice_means_letters_that_meet_all_of_its_conditions(store: StateStore) -> None:
    old = datetime.now(timezone.utc)
    commit(store, 1, "a", run_id="first")
    letters = [a_letter("b", LetterCategory.CAST), a_letter("c", LetterCategory.UNIQUE)]
    store.add_dead_letters(PIPELINE, STREAM, letters, run_id="second", sequence=2)
    commit(store, 2, "d", run_id="second")
    a, b, c, d = store.dead_letters(PIPELINE, STREAM)["id"].to_pylist()

    def chosen(choice: LetterChoice) -> list[int]:
        pages = store.dead_letter_pages(PIPELINE, STREAM, choice)
        return [row["id"] for page in pages for row in page.to_pylist()]

    assert chosen(EVERYTHING) == [a, b, c, d]
    assert chosen(LetterChoice(run_id="second")) == [b, c, d]
    assert chosen(LetterChoice(categories=(LetterCategory.CAST, LetterCategory.UNIQUE))) == [b, c]
    assert chosen(LetterChoice(ids=(d, a, d, 2**40))) == [a, d]
    assert chosen(LetterChoice(run_id="second", ids=(a, b))) == [b]
    assert chosen(LetterChoice(ids=tuple(range(3000)))) == [a, b, c, d]
    assert chosen(LetterChoice(failed_before=old)) == []
    assert chosen(LetterChoice(failed_before=old + timedelta(hours=1))) == [a, b, c, d]
    counts = store.dead_letter_counts(PIPELINE, STREAM, "second", choice=LetterChoice(ids=(a, b)))
    assert (counts.total, counts.waiting, counts.by_category) == (1, 1, {"cast": 1})
    assert take(store, 3, LetterChoice(ids=(b, d))) == 2
    assert taken(store, 3) == [b, d]
    assert store.marked_dead_letter_ids(PIPELINE, STREAM, run_id=REPLAY, sequence=3) == {"destination": {b, d}}


def test_letters_without_a_row_are_not_taken_unless_somebody_brings_one(store: StateStore) -> None:
    letters = [a_letter("no row", record="null"), a_letter("a row")]
    store.add_dead_letters(PIPELINE, STREAM, letters, run_id="run", sequence=1)
    commit(store, 1)
    assert store.untold_dead_letters(PIPELINE, STREAM, EVERYTHING) == 1
    assert take(store, 2) == 1
    everyone = store.mark_dead_letters(PIPELINE, STREAM, EVERYTHING, run_id=REPLAY, sequence=2, told=False)
    assert everyone == 2


def test_what_a_replace_has_read_anew_waits_no_longer(store: StateStore) -> None:
    commit(store, 1, "a", run_id="first", replaced=True)
    assert waiting(store) == ["a"]
    commit(store, 2, "a once more", run_id="second", replaced=True)
    assert waiting(store) == ["a once more"]
    assert store.dead_letter_counts(PIPELINE, STREAM).waiting == 1
    assert take(store, 3) == 1
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, run_id="first"))
    assert waiting(store) == ["a"], "the destination was restored to what it was before"


def merge(
    store: StateStore, sequence: int, *messages: str, run_id: str, anew_after: int | None, final: bool = False
) -> None:
    """A checkpoint of an upsert and what it set aside."""
    letters = [a_letter(each) for each in messages]
    store.add_dead_letters(PIPELINE, STREAM, letters, run_id=run_id, sequence=sequence)
    checkpoint = a_checkpoint(sequence, run_id=run_id, dead_letters=len(messages), anew_after=anew_after, final=final)
    store.prepare(checkpoint)
    store.finalise(PIPELINE, STREAM, sequence)


def test_what_was_merged_anew_waits_no_longer_once_the_source_was_read_to_its_end(store: StateStore) -> None:
    commit(store, 1, "a", "b", run_id="first")
    take(store, 2, LetterChoice(run_id="first"))
    commit(store, 2, "a again", "b again", run_id=REPLAY)
    merge(store, 3, "a of three", run_id="third", anew_after=2)
    merge(store, 4, run_id="third", anew_after=2)
    assert waiting(store) == ["a again", "b again", "a of three"], "it is not at its end"
    merge(store, 5, "b of five", run_id="third", anew_after=2, final=True)
    assert waiting(store) == ["a of three", "b of five"]
    assert store.dead_letter_counts(PIPELINE, STREAM).waiting == 2
    merge(store, 6, "c", run_id="fourth", anew_after=None, final=True)
    assert waiting(store) == ["a of three", "b of five", "c"], "it went on from a cursor"
    found = store.checkpoint(PIPELINE, STREAM, 5)
    assert found is not None
    assert (found.anew_after, found.final, found.replaced) == (2, True, False)
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=4, run_id="third"))
    assert waiting(store) == ["a again", "b again", "a of three"], "the destination was restored"


def test_a_merge_anew_that_is_only_prepared_supersedes_nothing(store: StateStore) -> None:
    commit(store, 1, "a", run_id="first")
    store.prepare(a_checkpoint(2, run_id="second", anew_after=1, final=True))
    assert waiting(store) == ["a"]
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, run_id="second", final=True))
    assert waiting(store) == []


def test_letters_of_types_that_are_of_no_use_are_left(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_sql, "_IDS_OF_STATEMENT", 2)
    kinds = [f'{{"id":"type{number}"}}' for number in range(5)]
    letters = [replace(a_letter(kind), types_json=kind) for kind in (*kinds, kinds[0])]
    store.add_dead_letters(PIPELINE, STREAM, letters, run_id="run", sequence=1)
    commit(store, 1)
    assert store.dead_letter_types(PIPELINE, STREAM, EVERYTHING) == kinds
    assert store.untold_dead_letters(PIPELINE, STREAM, EVERYTHING, unusable=kinds[:4]) == 5
    taken_ = store.mark_dead_letters(PIPELINE, STREAM, EVERYTHING, run_id=REPLAY, sequence=2, unusable=kinds[:4])
    assert (taken_, len(taken(store, 2))) == (1, 1)
    store.prepare(a_checkpoint(2, run_id=REPLAY))
    store.finalise(PIPELINE, STREAM, 2)
    assert waiting(store) == [*kinds[:4], kinds[0]]


def test_many_letters_are_taken_and_given_in_order(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_sql, "CHARACTERS_AT_ONCE", 100)
    commit(store, 1, *(f"no {number}" for number in range(2503)))
    assert take(store, 2) == 2503
    pages = list(store.marked_dead_letters(PIPELINE, STREAM, run_id=REPLAY, sequence=2, stages=["destination"]))
    assert max(map(len, pages)) < 10
    ids = [letter.id for page in pages for letter in page]
    assert ids == sorted(ids)
    assert len(ids) == 2503
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, run_id="run"))
    assert taken(store, 2) == []


def test_a_purge_deletes_what_was_chosen_and_nothing_of_an_unfinished_replay(store: StateStore) -> None:
    commit(store, 1, "a", "b", "c")
    a, b, _ = store.dead_letters(PIPELINE, STREAM)["id"].to_pylist()
    take(store, 2, LetterChoice(ids=(a,)))
    commit(store, 2, run_id=REPLAY)
    take(store, 3, LetterChoice(ids=(b,)), run_id="unfinished")
    assert store.purge_dead_letters(PIPELINE, STREAM, LetterChoice(waiting=False)) == 1
    assert waiting(store) == ["b", "c"]
    assert store.purge_dead_letters(PIPELINE, STREAM, EVERYTHING) == 1
    assert waiting(store) == ["b"]
    assert store.purge_dead_letters("other", STREAM, EVERYTHING) == 0


def test_a_replays_checkpoint_remembers_what_it_covers(store: StateStore) -> None:
    beneath = Watermark(sequence=1, cursor={"id": 7}, run_id="run", final=True)
    store.prepare(a_checkpoint(2, run_id=REPLAY, beneath=beneath))
    store.finalise(PIPELINE, STREAM, 2)
    found = store.latest_checkpoint(PIPELINE, STREAM)
    assert found is not None
    assert (found.beneath, found.replaced) == (beneath, False)


# A table of another name


def test_a_table_of_another_name_is_made_and_used_by_everything(backend: Backend) -> None:
    dead = LetterTable("dead")
    with backend.open() as store:
        commit(store, 1, "in the default table")
    assert backend.existing(dead) is None
    with backend.open(dead) as store, backend.open(dead) as other:
        assert store.dead_letters(PIPELINE, STREAM).num_rows == 0
        commit(store, 2, "a", "b")
        assert take(store, 3) == 2
        store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, run_id="run"))
        assert take(store, 3) == 2
        commit(store, 3, "b again", run_id=REPLAY)
        assert waiting(other) == ["b again"]
        assert store.purge_dead_letters(PIPELINE, STREAM, LetterChoice(waiting=False)) == 2
        store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, run_id="run"))
        assert waiting(store) == []
    existing = backend.existing(dead)
    assert existing is not None
    existing.close()
    with backend.open() as store:
        assert waiting(store) == ["in the default table"]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("CREATE TABLE dead (id int)", "column id is "),
        ("CREATE TABLE dead (name text)", "column id is missing; column stream_name is missing; "),
        ("CREATE VIEW dead AS SELECT 1 AS x", "dead"),
        ("CREATE TABLE dead AS SELECT * FROM _rapidbyte_dlq", " is not one of dead letters: column id "),
    ],
)
def test_a_table_of_another_shape_is_refused_and_left_alone(backend: Backend, statement: str, told: str) -> None:
    backend.open().close()
    backend.execute(statement)
    with pytest.raises(StateError) as caught:
        backend.open(LetterTable("dead"))
    assert told in str(caught.value)
    assert "dlq_table" in str(caught.value.hint)
    with backend.open() as store:
        commit(store, 1, "the default table is not concerned")


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("ALTER TABLE _rapidbyte_dlq RENAME COLUMN record_json TO record", "column record_json is missing"),
        ("ALTER TABLE _rapidbyte_dlq DROP COLUMN sqlstate", "column sqlstate is missing"),
        ("ALTER TABLE _rapidbyte_dlq ADD COLUMN team text", None),
    ],
)
def test_the_default_table_is_held_against_its_shape_too(backend: Backend, statement: str, told: str | None) -> None:
    with backend.open() as store:
        commit(store, 1, "a")
    backend.execute(statement)
    if told is None:
        with backend.open() as store:
            commit(store, 2, "b")
            assert waiting(store) == ["a", "b"]
        return
    with pytest.raises(StateError, match=f"_rapidbyte_dlq of .* is not one of dead letters: {told}"):
        backend.open()
