"""What the host makes of transforms between source and destination: of some that keep to the rules, and of others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import CancelToken, StreamResult, check_pipeline, run_stream
from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, RunCancelled, Stage, error_from
from rapidbyte_dagster.state import Checkpoint, open_state
from rapidbyte_dagster.state.sqlite import SqliteStateStore, default_path
from tests.integration.engine.written_destination import TAKE, a_letter
from tests.integration.engine.written_source import FINAL, WrittenSource, a_batch, a_schema
from tests.integration.engine.written_transform import SPIN, WrittenTransform, emit, passed
from tests.pipelines import make_pipeline
from tests.postgres_server import Database, MakeDatabase

SCHEMA, BATCH = a_schema(), a_batch(1, 2, 3)
SOURCE = WrittenSource([SCHEMA, BATCH], [{"cursor": {"at": "2024"}, "final": False}, FINAL])
"""With an interval of one row its first barrier is a checkpoint."""

ONE_BARRIER = WrittenSource([SCHEMA, BATCH], [FINAL])
"""Nothing of a run is committed before its end."""

ALL_OF_IT = [TAKE, emit(SCHEMA), TAKE, emit(BATCH)]
UNCHANGED = [*ALL_OF_IT, TAKE, passed(1), TAKE, passed(2), TAKE]
LEFT_TWO = [TAKE, emit(SCHEMA), TAKE, emit(a_batch(1))]
TWO_LETTERS = ("emit_dlq_batch", {"letters": [a_letter("too many", category="rule") for _ in range(2)]})


@pytest.fixture
def destination(make_database: MakeDatabase) -> Database:
    return make_database("warehouse")


@dataclass
class Chain:
    """Runs of one stream through transforms."""

    folder: Path
    destination: Database
    on_data_error: str = "fail"
    source: WrittenSource = field(default_factory=lambda: SOURCE)
    limits: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def run(self, *chain: Sequence[Any] | WrittenTransform, cancel: CancelToken | None = None) -> StreamResult:
        pipeline = self.pipeline(*chain)
        with open_state(pipeline, {}) as state:
            return run_stream(
                pipeline,
                pipeline.streams[0],
                state=state,
                run_id="run",
                environ={},
                cancel=cancel,
                on_log=lambda level, message: self.lines.append(message),
            )

    def fails(self, *chain: Sequence[Any] | WrittenTransform) -> RapidbyteError:
        """The error, once nothing of the run is in the table."""
        with pytest.raises(RapidbyteError) as caught:
            self.run(*chain)
        assert self.destination.fetch("select to_regclass('raw.users') is null") == [(True,)]
        assert self.checkpoints() == []
        return caught.value

    def pipeline(self, *chain: Sequence[Any] | WrittenTransform) -> Pipeline:
        transforms = [
            {
                "use": (each if isinstance(each, WrittenTransform) else WrittenTransform(each)).write(
                    self.folder / str(place)
                ),
                **({"limits": self.limits} if self.limits else {}),
            }
            for place, each in enumerate(chain)
        ]
        return make_pipeline(
            self.folder,
            {},
            self.destination,
            [{"name": "users", "sync_mode": "incremental", "cursor_field": "id"}],
            source_section={"use": self.source.write(self.folder)},
            destination_section={"on_data_error": self.on_data_error},
            transforms=transforms,
            resources={"checkpoint_interval_rows": 1, "max_retries": 0},
        )

    def loaded(self) -> list[int]:
        return [number for (number,) in self.destination.fetch("select id from raw.users order by id")]

    def checkpoints(self) -> list[Checkpoint]:
        """Oldest first."""
        with open_state(self.pipeline(), {}) as state:
            return state.checkpoints("shop", "users")[::-1]

    def letters(self) -> list[dict[str, Any]]:
        with open_state(self.pipeline(), {}) as state:
            return state.dead_letters("shop", "users").to_pylist()


@pytest.fixture
def chain(tmp_path: Path, destination: Database) -> Chain:
    return Chain(tmp_path, destination)


def test_rows_and_barriers_pass_through_several_transforms_in_order(chain: Chain) -> None:
    doubled = [TAKE, emit(SCHEMA), TAKE, emit(a_batch(2, 4, 6)), TAKE, passed(1), TAKE, passed(2), TAKE]
    result = chain.run(UNCHANGED, doubled)
    assert chain.loaded() == [2, 4, 6]
    assert (result.rows, result.filtered, result.rejected) == (3, 0, 0)
    assert [(c.rows, c.cursor, c.final) for c in chain.checkpoints()] == [
        (3, {"at": "2024"}, False),
        (0, None, True),
    ]
    assert {"transform_1_idle_seconds", "transform_2_blocked_seconds"} <= set(result.timings)
    assert result.peak_memory["transform"] > 0


def test_a_transform_is_told_of_its_stream_and_sees_no_cursor(chain: Chain) -> None:
    chain.run(UNCHANGED)
    told = json.loads(next(line for line in chain.lines if line.startswith("transform 1: ")).partition(": ")[2])
    assert told == {
        "stream": {"name": "users", "primary_key": None, "write_mode": "append", "on_data_error": "fail"},
        "max_batch_bytes": 16 * 1024 * 1024,
        "replay": False,
    }


def test_rows_that_are_filtered_on_purpose_are_counted_as_such(chain: Chain) -> None:
    result = chain.run([*LEFT_TWO, TAKE, passed(1, filtered=2), TAKE, passed(2), TAKE])
    assert (chain.loaded(), result.rows, result.filtered, result.rejected) == ([1], 1, 2, 0)


class HiccupingStore(SqliteStateStore):
    """Cannot be reached once: when the third checkpoint is prepared."""

    hiccups = 0

    def prepare(self, checkpoint: Checkpoint) -> None:
        if checkpoint.sequence == 3 and not self.hiccups:
            self.hiccups += 1
            raise error_from(ErrorInfo(Kind.TRANSIENT_DB, "gone for a moment", Stage.STATE))
        super().prepare(checkpoint)


def test_rows_that_are_filtered_are_counted_over_all_attempts_once(
    tmp_path: Path, source_db: Database, destination: Database
) -> None:
    pytest.importorskip("duckdb", reason="there is no DuckDB 2 for Python 3.10")
    source_db.execute("create table users (id int primary key); insert into users select generate_series(1, 50)")
    pipeline = make_pipeline(
        tmp_path,
        source_db,
        destination,
        [{"name": "users", "sync_mode": "incremental", "cursor_field": "id"}],
        transforms=[{"use": "sql", "config": {"query": "SELECT * FROM stream WHERE id % 2 = 0"}}],
        resources={"checkpoint_interval_rows": 10, "max_retries": 1},
    )
    with HiccupingStore(default_path(pipeline, {})) as state:
        result = run_stream(pipeline, pipeline.streams[0], state=state, run_id="run", environ={})
    assert (result.attempts, result.rows, result.filtered) == (2, 25, 25)
    assert destination.fetch_value("select count(*) from raw.users") == 25


def test_rows_that_are_set_aside_become_dead_letters_of_their_checkpoint(chain: Chain) -> None:
    chain.on_data_error = "dlq"
    aside = [*LEFT_TWO, TWO_LETTERS, TAKE, passed(1, rejected=2), TAKE, passed(2), TAKE]
    after = [TAKE, emit(SCHEMA), TAKE, emit(a_batch(1)), TAKE, passed(1), TAKE, passed(2), TAKE]
    result = chain.run(aside, after)
    assert (chain.loaded(), result.rows, result.rejected, result.dead_letters) == ([1], 1, 2, 2)
    assert [(row["stage"], row["error_category"], row["checkpoint_sequence"]) for row in chain.letters()] == [
        ("transform 1", "rule", 1)
    ] * 2
    assert [(c.rows, c.rejected, c.dead_letters) for c in chain.checkpoints()] == [(1, 2, 2), (0, 0, 0)]


def test_letters_of_the_source_go_by(chain: Chain) -> None:
    chain.on_data_error = "dlq"
    chain.source = replace(SOURCE, letters=[a_letter("no text", category="decode")])
    result = chain.run(UNCHANGED, UNCHANGED)
    assert (result.rows, result.dead_letters) == (3, 1)
    assert [row["stage"] for row in chain.letters()] == ["source"]


def test_rows_that_are_skipped_are_counted(chain: Chain) -> None:
    chain.on_data_error = "skip"
    result = chain.run([*LEFT_TWO, TAKE, passed(1, rejected=2), TAKE, passed(2), TAKE])
    assert (result.rows, result.rejected, result.dead_letters) == (1, 2, 0)


def test_a_transform_that_has_to_see_the_whole_run_has_it_committed_at_its_end(chain: Chain) -> None:
    steps = [*ALL_OF_IT, TAKE, passed(1), TAKE]
    whole = WrittenTransform(steps, opened={"ok": {"whole_run": True}})
    chain.run(whole)
    assert [(c.sequence, c.rows, c.final) for c in chain.checkpoints()] == [(1, 3, True)]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([*LEFT_TWO, TAKE, passed(1)], "made 1 of 3 rows, rejected 0 and filtered 0: some are lost or repeated"),
        ([*LEFT_TWO, TAKE, passed(1, rejected=2)], "rejected 2 rows where it has to fail"),
        ([*LEFT_TWO, TWO_LETTERS], "told of dead letters where on_data_error is fail"),
        ([*ALL_OF_IT, TAKE, passed(2)], "passed a barrier that it was not given"),
        ([passed(1)], "passed a barrier that it was not given"),
        ([*ALL_OF_IT, TAKE, TAKE], "asked for more before it passed barrier 1"),
        (ALL_OF_IT, "ended before its stream did"),
        ([*ALL_OF_IT, TAKE, passed(1)], "ended before its stream did"),
        ([TAKE, emit(BATCH)], "emitted a record batch before any schema"),
        ([TAKE, emit(b"\xff\xff\xff\xff")], "emitted a malformed Arrow message"),
    ],
)
def test_a_transform_that_breaks_its_stream_fails_the_run_by_name(chain: Chain, steps: list[Any], told: str) -> None:
    chain.source = ONE_BARRIER
    error = chain.fails(steps)
    assert f"the transform connector {told}" in str(error)
    assert (error.info.stage, error.kind) == (Stage.TRANSFORM, Kind.PROTOCOL)


def test_letters_that_are_not_as_many_as_the_rejected_rows_fail_the_run(chain: Chain) -> None:
    chain.on_data_error = "dlq"
    chain.source = ONE_BARRIER
    error = chain.fails([*LEFT_TWO, TAKE, passed(1, rejected=2)])
    assert "told of 0 dead letters where it rejected 2 rows" in str(error)


def test_nothing_is_committed_of_a_transform_that_fails_behind_its_last_barrier(chain: Chain) -> None:
    chain.source = ONE_BARRIER
    steps = [*ALL_OF_IT, TAKE, passed(1), TAKE]
    refused = {"err": {"kind": "data", "message": "row 2: no"}}
    error = chain.fails(WrittenTransform(steps, answer=refused))
    assert (error.exit_code, error.kind, error.info.message) == (8, Kind.DATA, "row 2: no")


def test_a_transform_that_does_not_take_its_config_fails_before_a_row_moves(chain: Chain) -> None:
    refused = {"err": {"kind": "config", "message": "rules[0]: no such column"}}
    error = chain.fails(UNCHANGED, WrittenTransform(opened=refused))
    assert "transform: rules[0]: no such column [config]" in str(error)
    chain.source = replace(SOURCE, description=[SCHEMA])
    findings = check_pipeline(chain.pipeline(WrittenTransform(opened=refused)), {})
    errors = [(finding.stage, finding.message) for finding in findings if finding.level == "error"]
    assert errors == [("transform", "rules[0]: no such column")]


def test_a_check_holds_what_the_chain_makes_of_the_columns_against_the_table(chain: Chain) -> None:
    chain.destination.execute("create schema raw; create table raw.users (name text)")
    chain.source = replace(SOURCE, description=[SCHEMA])
    named = pa.schema([pa.field("name", pa.string())]).serialize().to_pybytes()
    findings = check_pipeline(chain.pipeline([TAKE, emit(bytes(named)), TAKE]), {})
    assert [f.message for f in findings if f.check == "schema"] == ["the stream's columns and those of the table agree"]


def test_a_transform_that_computes_for_ever_is_cancelled_within_two_seconds(chain: Chain) -> None:
    cancel = CancelToken()
    timer = threading.Timer(0.7, cancel.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(RunCancelled):
        chain.run(UNCHANGED, [TAKE, SPIN], cancel=cancel)
    assert time.monotonic() - started < 2.7
    assert chain.destination.fetch("select to_regclass('raw.users') is null") == [(True,)]


def test_a_transform_that_runs_past_its_time_is_told_by_its_own_key(chain: Chain) -> None:
    chain.limits = {"timeout_seconds": 1}
    error = chain.fails([TAKE, SPIN])
    assert error.kind is Kind.TIMEOUT
    assert "raise `transforms[0].limits.timeout_seconds`" in str(error)
