"""What streams of change data capture cannot be asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.config import Pipeline, load_pipeline
from rapidbyte_dagster.engine import replay_dead_letters, rewind_stream, run_stream
from rapidbyte_dagster.errors import UsageError
from rapidbyte_dagster.state.sqlite import SqliteStateStore
from tests.pipelines import write_pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    config = {"host": "localhost", "user": "etl", "database": "d"}
    file = write_pipeline(tmp_path, config, config, [{"name": "users", "sync_mode": "cdc"}], write_mode="upsert")
    return load_pipeline(file)


@pytest.fixture
def state(tmp_path: Path) -> SqliteStateStore:
    return SqliteStateStore(tmp_path / "state.db")


def test_a_stream_of_a_slot_is_not_run_by_itself(pipeline: Pipeline, state: SqliteStateStore) -> None:
    with pytest.raises(UsageError, match="run together with the others of its replication slot"):
        run_stream(pipeline, pipeline.stream("users"), state=state, run_id="run")


def test_letters_of_a_mirror_are_not_replayed(pipeline: Pipeline, state: SqliteStateStore) -> None:
    with pytest.raises(UsageError, match="later ones may have been applied since") as caught:
        replay_dead_letters(pipeline, pipeline.stream("users"), state=state, run_id="replay")
    assert "--stream users --full-refresh" in str(caught.value)


def test_a_position_is_not_rewound(pipeline: Pipeline, state: SqliteStateStore) -> None:
    with pytest.raises(UsageError, match="its slot does not keep what was confirmed"):
        rewind_stream(pipeline, pipeline.stream("users"), 1, state=state, run_id="rewind")
