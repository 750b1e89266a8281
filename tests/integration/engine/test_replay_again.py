"""Dead letters that fail once more when they are replayed, with a destination that tells of them and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import ReplayResult, replay_dead_letters
from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.state import LetterChoice, open_state
from tests.integration.engine.written_destination import TAKE, WrittenDestination, commit, letters
from tests.integration.engine.written_source import WrittenSource
from tests.pipelines import make_pipeline
from tests.unit.state.samples import a_checkpoint
from tests.unit.state.samples import a_letter as kept

LAST = {"sequence": 1, "cursor": {"id": 3}, "run_id": "run", "final": True}
TO_BARRIER = [TAKE, TAKE, TAKE]
LOST = {"kind": "transient_network", "message": "the connection was lost"}


@dataclass
class Replays:
    folder: Path
    on_data_error: str = "dlq"
    max_retries: int = 0
    lines: list[str] = field(default_factory=list)

    def pipeline(self, destination: WrittenDestination) -> Pipeline:
        return make_pipeline(
            self.folder,
            {},
            {},
            ["users"],
            source_section={"use": WrittenSource([], []).write(self.folder)},
            destination_section={"use": destination.write(self.folder), "on_data_error": self.on_data_error},
            resources={"max_retries": self.max_retries},
        )

    def set_aside(self, *messages: str) -> None:
        """Of a run that committed checkpoint 1."""
        with open_state(self.pipeline(WrittenDestination()), {}) as state:
            found = [kept(message) for message in messages]
            state.add_dead_letters("shop", "users", found, run_id="run", sequence=1)
            state.prepare(a_checkpoint(1, cursor=LAST["cursor"], dead_letters=len(messages)))
            state.finalise("shop", "users", 1)

    def replay(self, *steps: Any, run_id: str = "replay", **destination: Any) -> ReplayResult:
        pipeline = self.pipeline(WrittenDestination(steps, **{"watermark": LAST, **destination}))
        with open_state(pipeline, {}) as state:
            return replay_dead_letters(
                pipeline,
                pipeline.streams[0],
                state=state,
                run_id=run_id,
                environ={},
                on_log=lambda level, message: self.lines.append(message),
            )

    def letters(self, *, waiting: bool) -> list[tuple[str, str]]:
        """Who set them aside, and why."""
        choice = LetterChoice(waiting=waiting)
        with open_state(self.pipeline(WrittenDestination()), {}) as state:
            pages = list(state.dead_letter_pages("shop", "users", choice))
        return [(row["run_id"], row["error_message"]) for page in pages for row in page.to_pylist()]


@pytest.fixture
def replays(tmp_path: Path) -> Replays:
    found = Replays(tmp_path)
    found.set_aside("a", "b", "c")
    return found


def test_what_fails_again_is_a_new_letter_with_its_new_reason(replays: Replays) -> None:
    result = replays.replay(*TO_BARRIER, letters("b once more"), *commit(2, 3, 1), TAKE)
    assert (result.letters, result.rows, result.failed_again, result.sequence) == (3, 2, 1, 2)
    assert replays.letters(waiting=True) == [("replay", "b once more")]
    assert replays.letters(waiting=False) == [("run", "a"), ("run", "b"), ("run", "c")]
    nothing_but_it = commit(3, 1)
    last = {**LAST, "sequence": 2, "run_id": "replay"}
    again = replays.replay(*TO_BARRIER, *nothing_but_it, TAKE, run_id="second", watermark=last)
    assert (again.letters, again.rows, again.settled) == (1, 1, 3)
    assert replays.letters(waiting=True) == []


def test_the_destination_is_told_to_add_and_to_alter_nothing(replays: Replays) -> None:
    replays.replay(*TO_BARRIER, *commit(2, 3), TAKE)
    (told,) = (line for line in replays.lines if line.startswith("destination: {"))
    assert '"write_mode": "append"' in told
    assert '"target": "must_exist"' in told
    assert '"new_column": "fail"' in told
    assert '"known_columns": null' in told


@pytest.mark.parametrize(
    "steps",
    [
        [*TO_BARRIER, letters("b once more"), *commit(2, 3)],
        [*TO_BARRIER, *commit(2, 3, 1)],
        [*TO_BARRIER, *commit(2, 2)],
        [*TO_BARRIER, *commit(3, 3)],
        TO_BARRIER,
    ],
)
def test_a_destination_that_tells_it_wrong_leaves_every_letter_waiting(replays: Replays, steps: Any) -> None:
    with pytest.raises(RapidbyteError) as caught:
        replays.replay(*steps)
    assert caught.value.kind is Kind.PROTOCOL
    assert [message for _, message in replays.letters(waiting=True)] == ["a", "b", "c"]


def test_a_stream_that_skips_rows_loses_no_letter(replays: Replays) -> None:
    replays.on_data_error = "skip"
    result = replays.replay(*TO_BARRIER, letters("b once more"), *commit(2, 3, 1), TAKE)
    assert result.failed_again == 1
    assert replays.letters(waiting=True) == [("replay", "b once more")]


def test_an_attempt_that_rolled_back_leaves_nothing_behind(replays: Replays) -> None:
    replays.max_retries = 1
    with pytest.raises(RapidbyteError, match="the connection was lost"):
        replays.replay(*TO_BARRIER, letters("b of an attempt"), failure=LOST)
    assert replays.letters(waiting=True) == [("run", "a"), ("run", "b"), ("run", "c")]
    result = replays.replay(*TO_BARRIER, letters("b once more"), *commit(2, 3, 1), TAKE, run_id="second")
    assert result.failed_again == 1
    assert replays.letters(waiting=True) == [("second", "b once more")]


def test_a_commit_whose_answer_got_lost_is_asked_of_the_watermark(replays: Replays) -> None:
    """Prepared, and then nobody heard: the destination says what became of it."""
    prepared, _ = commit(2, 3, 1)
    with pytest.raises(RapidbyteError) as caught:
        replays.replay(*TO_BARRIER, letters("b once more"), prepared, failure=LOST)
    assert "nobody heard whether it did" in str(caught.value.info.detail)
    assert replays.letters(waiting=True) == [("run", "a"), ("run", "b"), ("run", "c")]
    last = {**LAST, "sequence": 2, "run_id": "replay"}
    result = replays.replay(run_id="replay", watermark=last)
    assert (result.letters, result.rows, result.failed_again, result.sequence) == (3, 2, 1, 2)
    assert replays.letters(waiting=True) == [("replay", "b once more")]


def test_a_destination_that_alters_its_table_is_stopped(replays: Replays) -> None:
    change = {
        "kind": "nullability_change",
        "column": "id",
        "stream": "nullable",
        "table": "not null",
        "policy": "allow",
        "action": "relaxed",
        "ddl": ["ALTER TABLE t ALTER id DROP NOT NULL"],
        "message": "column id loses its NOT NULL",
    }
    with pytest.raises(RapidbyteError, match="a replay does not alter it: column id loses its NOT NULL") as caught:
        replays.replay(*TO_BARRIER, ("drift", {"changes": [change]}), *commit(2, 3), TAKE)
    assert caught.value.kind is Kind.SCHEMA
    assert len(replays.letters(waiting=True)) == 3
