"""What a run makes of schema changes, with connectors that tell of them and move nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline, SchemaEvolution
from rapidbyte_dagster.config.models import NewColumn
from rapidbyte_dagster.engine import StreamResult, run_stream
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, SchemaError
from rapidbyte_dagster.state import SchemaChange, SchemaState, open_state
from tests.integration.engine.written_destination import TAKE, WrittenDestination, commit, drift
from tests.integration.engine.written_source import FINAL, WrittenSource, a_batch, a_schema
from tests.pipelines import make_pipeline

SOURCE = WrittenSource([a_schema(), a_batch(1, 2)], [{"cursor": 1, "final": False}, FINAL])
"""With an interval of one row its first barrier is a checkpoint."""
TO_FIRST_BARRIER = [TAKE, TAKE, TAKE]

ID = {"name": "id", "type": "integer", "nullable": False}
LOADED_AT = {"name": "loaded_at", "type": "timestamp with time zone", "nullable": True}
ADDED = {
    "kind": "new_column",
    "column": "id",
    "stream": "integer",
    "policy": "add",
    "action": "added",
    "ddl": ["ALTER TABLE raw.users ADD COLUMN id integer"],
    "message": "column id (integer) is new and was added",
}
REFUSED = {**ADDED, "action": "refused", "policy": "fail", "ddl": [], "message": "column id is new"}
BROKEN = {"kind": "data", "message": "a row is broken"}


class Runs:
    """Runs of one stream, one after the other, and what was told of the last one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lines: list[str] = []
        self.heard: list[tuple[SchemaChange, ...]] = []

    def run(self, destination: WrittenDestination, policy: Mapping[str, str] | None = None) -> StreamResult:
        self.lines, self.heard = [], []
        pipeline = self._pipeline(destination, policy)
        with open_state(pipeline, {}) as state:
            return run_stream(
                pipeline,
                pipeline.streams[0],
                state=state,
                run_id="run",
                environ={},
                on_log=lambda level, message: self.lines.append(message),
                on_drift=self.heard.append,
            )

    def state(self) -> SchemaState:
        with open_state(self._pipeline(WrittenDestination([]), None), {}) as state:
            return state.schema_state("shop", "users")

    def argument(self) -> dict[str, Any]:
        """The stream that `rb_write` was given last."""
        (told,) = (line for line in self.lines if line.startswith("destination: {"))
        stream: dict[str, Any] = json.loads(told.removeprefix("destination: "))["stream"]
        return stream

    def _pipeline(self, destination: WrittenDestination, policy: Mapping[str, str] | None) -> Pipeline:
        section: dict[str, Any] = {"use": destination.write(self._folder)}
        if policy is not None:
            section["schema_evolution"] = dict(policy)
        return make_pipeline(
            self._folder,
            {},
            {},
            [{"name": "users", "sync_mode": "incremental", "cursor_field": "id"}],
            source_section={"use": SOURCE.write(self._folder)},
            destination_section=section,
            resources={"checkpoint_interval_rows": 1},
        )


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def whole(*first: tuple[str, Any], last: int = 2, columns: Sequence[Mapping[str, Any]] = (ID,)) -> WrittenDestination:
    """Two commits, the second of number `last`; `first` comes before the first one."""
    steps = [*TO_FIRST_BARRIER, *first, *commit(last - 1, 2), TAKE, *commit(last, 0), TAKE]
    return WrittenDestination(steps, columns)


def test_the_destination_is_told_the_policy_and_what_the_stream_ever_brought(runs: Runs) -> None:
    runs.run(whole(columns=[ID, LOADED_AT]), {"type_change": "coerce"})
    assert runs.argument()["known_columns"] is None
    assert runs.argument()["schema_evolution"] == {
        "new_column": "add",
        "removed_column": "ignore",
        "type_change": "coerce",
        "nullability_change": "allow",
    }
    runs.run(whole(last=4))
    assert runs.argument()["known_columns"] == [{"name": "id", "nullable": False, "stream_nullable": True}]
    assert runs.argument()["schema_evolution"]["type_change"] == "fail"


def test_a_version_tells_the_policy_and_whether_the_streams_columns_may_be_null(runs: Runs) -> None:
    runs.run(whole(columns=[ID, LOADED_AT]))
    runs.run(whole(last=4, columns=[ID, LOADED_AT]))
    runs.run(whole(last=6, columns=[ID, LOADED_AT]), {"new_column": "ignore"})
    state = runs.state()
    assert [version.policy for version in state.versions] == [
        SchemaEvolution(),
        SchemaEvolution(new_column=NewColumn.IGNORE),
    ]
    assert state.current is not None
    assert [(c.name, c.arrow_type, c.nullable, c.stream_nullable) for c in state.current.columns] == [
        ("id", "int32", False, True),
        ("loaded_at", None, True, None),
    ]


def test_a_change_is_heard_logged_returned_and_written_down(runs: Runs) -> None:
    result = runs.run(whole(drift(ADDED)))
    (change,) = result.schema_changes
    assert (change.column, change.action, change.ddl) == ("id", "added", tuple(ADDED["ddl"]))
    assert runs.heard == [(change,)]
    assert "destination: column id (integer) is new and was added" in runs.lines
    (event,) = runs.state().history
    assert (event.changes, event.run_id, event.sequence) == ((change,), "run", 1)


def test_a_run_that_fails_behind_its_first_checkpoint_leaves_the_history_of_it(runs: Runs) -> None:
    steps = [*TO_FIRST_BARRIER, drift(ADDED), *commit(1, 2)]
    with pytest.raises(DestinationError, match="a row is broken"):
        runs.run(WrittenDestination(steps, failure=BROKEN))
    state = runs.state()
    assert [(event.sequence, event.changes) for event in state.history] == [(1, runs.heard[0])]
    assert state.versions == ()


def test_a_run_that_fails_before_it_commits_leaves_none(runs: Runs) -> None:
    with pytest.raises(DestinationError, match="a row is broken"):
        runs.run(WrittenDestination([*TO_FIRST_BARRIER, drift(ADDED)], failure=BROKEN))
    assert len(runs.heard) == 1
    assert runs.state().history == ()


def test_a_run_that_the_policy_refuses_says_why_before_it_fails(runs: Runs) -> None:
    refusal = {"kind": "schema", "message": "column id is new"}
    with pytest.raises(SchemaError, match="column id is new"):
        runs.run(WrittenDestination([TAKE, drift(REFUSED)], failure=refusal), {"new_column": "fail"})
    assert [[str(change.action) for change in report] for report in runs.heard] == [["refused"]]
    assert runs.state().history == ()


@pytest.mark.parametrize(
    "steps",
    [
        [TAKE, ("drift", {"changes": "none"})],
        [TAKE, drift({**ADDED, "policy": "ignore"})],
        [*TO_FIRST_BARRIER, drift(REFUSED), *commit(1, 2)],
    ],
)
def test_a_destination_that_tells_it_wrong_commits_nothing(runs: Runs, steps: list[tuple[str, Any]]) -> None:
    with pytest.raises(RapidbyteError) as caught:
        runs.run(WrittenDestination(steps), {"new_column": "fail"} if len(steps) > 2 else None)
    assert caught.value.kind is Kind.PROTOCOL
    assert runs.state().history == ()
