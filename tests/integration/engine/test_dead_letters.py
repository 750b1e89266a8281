"""What a run makes of rows that its connectors set aside, with connectors that tell of them and move nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import StreamResult, run_stream
from rapidbyte_dagster.engine.plan import plan_pipeline
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError
from rapidbyte_dagster.state import Checkpoint, RunRecord, StateStore, open_state
from rapidbyte_dagster.state.sql import SqlStateStore
from tests.integration.engine.written_destination import TAKE, WrittenDestination, a_letter, commit, letters
from tests.integration.engine.written_source import FINAL, WrittenSource, a_batch, a_schema
from tests.pipelines import make_pipeline

ROWS = 3
SOURCE = WrittenSource([a_schema(), a_batch(*range(ROWS))], [{"cursor": 1, "final": False}, FINAL])
"""With an interval of one row its first barrier is a checkpoint."""
TO_FIRST_BARRIER = [TAKE, TAKE, TAKE]
LOST = {"kind": "transient_network", "message": "the connection was lost"}


@dataclass
class Runs:
    """Runs of one stream, one after the other."""

    folder: Path
    on_data_error: str = "dlq"
    source: WrittenSource = field(default_factory=lambda: SOURCE)
    stream: dict[str, Any] = field(default_factory=lambda: {"sync_mode": "incremental", "cursor_field": "id"})
    lines: list[str] = field(default_factory=list)

    def run(self, destination: WrittenDestination, run_id: str = "run") -> StreamResult:
        self.lines.clear()
        pipeline = self.pipeline(destination)
        with open_state(pipeline, {}) as state:
            return run_stream(
                pipeline,
                pipeline.streams[0],
                state=state,
                run_id=run_id,
                environ={},
                on_log=lambda level, message: self.lines.append(message),
            )

    def kept(self) -> list[tuple[str, int, str, str]]:
        with self._state() as state:
            rows = state.dead_letters("shop", "users").to_pylist()
        names = ("run_id", "checkpoint_sequence", "stage", "error_message")
        return [tuple(row[name] for name in names) for row in rows]

    def checkpoints(self) -> list[Checkpoint]:
        """Oldest first."""
        with self._state() as state:
            return state.checkpoints("shop", "users")[::-1]

    def record(self, run_id: str = "run") -> RunRecord:
        with self._state() as state:
            found = state.run(run_id, "shop", "users")
        assert found is not None
        return found

    def pipeline(self, destination: WrittenDestination) -> Pipeline:
        return make_pipeline(
            self.folder,
            {},
            {},
            [{"name": "users", **self.stream}],
            source_section={"use": self.source.write(self.folder)},
            destination_section={"use": destination.write(self.folder), "on_data_error": self.on_data_error},
            resources={"checkpoint_interval_rows": 1, "max_retries": 1},
        )

    def in_all(self) -> int:
        """Dead letters in the store, those that do not count included."""
        with self._state() as state:
            assert isinstance(state, SqlStateStore)
            [(count,)] = state._read("SELECT count(*) FROM _rapidbyte_dlq", ())
        return int(count)

    def _state(self) -> StateStore:
        return open_state(self.pipeline(WrittenDestination()), {})


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def whole(*first: tuple[str, Any], last: int = 2, rejected: int = 0) -> WrittenDestination:
    """Two commits, the second of number `last`; `first` comes before the first one."""
    steps = [*TO_FIRST_BARRIER, *first, *commit(last - 1, ROWS, rejected), TAKE, *commit(last, 0), TAKE]
    return WrittenDestination(steps)


def test_rows_that_the_destination_sets_aside_are_kept_and_counted(runs: Runs) -> None:
    result = runs.run(whole(letters("no 1", "no 2"), rejected=2))
    assert (result.rows, result.rejected, result.dead_letters) == (1, 2, 2)
    assert runs.kept() == [("run", 1, "destination", "no 1"), ("run", 1, "destination", "no 2")]
    assert [(c.rows, c.rejected, c.dead_letters) for c in runs.checkpoints()] == [(1, 2, 2), (0, 0, 0)]
    record = runs.record()
    assert (record.status, record.rows, record.rejected, record.dead_letters) == ("ok", 1, 2, 2)
    assert "2 rows were set aside as dead letters" in runs.lines


def test_rows_that_the_source_sets_aside_are_kept_and_nobodys_rows(runs: Runs) -> None:
    runs.source = replace(SOURCE, letters=[a_letter("no number", category="decode", record=None)])
    result = runs.run(whole())
    assert (result.rows, result.rejected, result.dead_letters) == (ROWS, 1, 1)
    assert runs.kept() == [("run", 1, "source", "no number")]


def test_rows_that_are_skipped_are_counted(runs: Runs) -> None:
    runs.on_data_error = "skip"
    result = runs.run(whole(rejected=2))
    assert (result.rows, result.rejected, result.dead_letters) == (1, 2, 0)
    assert runs.record().rejected == 2
    assert runs.kept() == []


@pytest.mark.parametrize("on_data_error", ["fail", "skip", "dlq"])
def test_both_sides_are_told_what_to_do(runs: Runs, on_data_error: str) -> None:
    runs.on_data_error = on_data_error
    runs.run(whole())
    (told,) = (line for line in runs.lines if line.startswith("destination: {"))
    assert json.loads(told.removeprefix("destination: "))["stream"]["on_data_error"] == on_data_error
    plan = plan_pipeline(runs.pipeline(whole()), {})
    assert plan.read_argument(plan.pipeline.streams[0])["stream"]["on_data_error"] == on_data_error


def test_a_run_that_rolls_back_leaves_the_dead_letters_of_its_checkpoints_alone(runs: Runs) -> None:
    broken = {"kind": "data", "message": "a row is broken"}
    first = [*TO_FIRST_BARRIER, letters("kept"), *commit(1, ROWS, 1)]
    with pytest.raises(DestinationError, match="a row is broken"):
        runs.run(WrittenDestination([*first, letters("rolled back")], failure=broken))
    assert runs.kept() == [("run", 1, "destination", "kept")]
    record = runs.record()
    assert (record.status, record.rows, record.rejected, record.dead_letters) == ("failed", 2, 1, 1)
    runs.run(whole(letters("again"), last=3, rejected=1), run_id="second")
    assert runs.kept()[1:] == [("second", 2, "destination", "again")]


def test_an_attempt_that_rolled_back_leaves_no_dead_letters_behind(runs: Runs) -> None:
    """Each attempt of the run emits its own, and this destination never gets as far as to commit."""
    destination = WrittenDestination([*TO_FIRST_BARRIER, letters("of an attempt")], failure=LOST)
    with pytest.raises(RapidbyteError, match="the connection was lost"):
        runs.run(destination)
    assert runs.record().attempts == 2
    assert runs.kept() == []
    assert runs.in_all() == 1, "the last attempt's, until the next one"
    runs.run(whole(letters("kept"), rejected=1), run_id="second")
    assert runs.kept() == [("second", 1, "destination", "kept")]
    assert runs.in_all() == 1


@pytest.mark.parametrize(
    ("on_data_error", "steps"),
    [
        ("fail", [letters("a"), *commit(1, ROWS, 1)]),
        ("fail", commit(1, ROWS, 1)),
        ("skip", [letters("a"), *commit(1, ROWS, 1)]),
        ("dlq", commit(1, ROWS, 1)),
        ("dlq", [letters("a"), *commit(1, ROWS)]),
        ("dlq", [letters("a"), *commit(1, ROWS - 1, 1)]),
        ("dlq", [letters("a", record=["no", "object"]), *commit(1, ROWS, 1)]),
    ],
)
def test_a_destination_that_tells_it_wrong_commits_nothing(
    runs: Runs, on_data_error: str, steps: Sequence[tuple[str, Any]]
) -> None:
    runs.on_data_error = on_data_error
    with pytest.raises(RapidbyteError) as caught:
        runs.run(WrittenDestination([*TO_FIRST_BARRIER, *steps]))
    assert caught.value.kind is Kind.PROTOCOL
    assert (runs.checkpoints(), runs.kept()) == ([], [])


@pytest.mark.parametrize("on_data_error", ["skip", "dlq"])
def test_a_stream_that_leaves_rows_out_is_read_in_one_piece(runs: Runs, on_data_error: str) -> None:
    runs.on_data_error = on_data_error
    runs.stream = {"sync_mode": "full_refresh", "partition_key": "id"}
    runs.source = replace(SOURCE, barriers=[FINAL])
    runs.run(WrittenDestination([*TO_FIRST_BARRIER, *commit(1, ROWS), TAKE]))
    told = "rows can only be left out of a table in one piece, and on_data_error is"
    assert any(f"not divided by its partition_key: {told} {on_data_error}" in line for line in runs.lines)
