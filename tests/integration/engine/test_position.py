"""Moving a stream's cursor by hand, where the destination cannot or the state store fails on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import wasmtime

from rapidbyte_dagster.engine import read_watermark, reset_stream, rewind_stream
from rapidbyte_dagster.errors import ConfigError, Kind, StateError, UsageError
from rapidbyte_dagster.state import open_state
from rapidbyte_dagster.state.sqlite import SqliteStateStore, default_path
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database

VERBS = ("rb_spec", "rb_open", "rb_check", "rb_write", "rb_close")


def plain_destination(folder: Path) -> str:
    """The path of a connector that has no more than it must, for `use`."""
    verbs = "".join(f'(func (export "{verb}") (param i32 i32) (result i64) unreachable)' for verb in VERBS)
    text = f"""(module (memory (export "memory") 1)
        (func (export "rb_abi_version") (result i32) (i32.const 1))
        (func (export "rb_alloc") (param i32) (result i32) unreachable)
        (func (export "rb_free") (param i32 i32)) {verbs})"""
    wasm = folder / "plain.wasm"
    wasm.write_bytes(bytes(wasmtime.wat2wasm(text)))
    manifest = {
        "name": "dest-plain",
        "version": "0.0.0",
        "role": "destination",
        "protocol": 1,
        "config_schema": {"type": "object"},
        "sha256": hashlib.sha256(wasm.read_bytes()).hexdigest(),
    }
    wasm.with_suffix(".json").write_text(json.dumps(manifest))
    return str(wasm)


def test_a_destination_that_cannot_be_rewound_is_told_before_it_is_asked(tmp_path: Path, source_db: Database) -> None:
    use = {"use": plain_destination(tmp_path)}
    pipeline = make_pipeline(tmp_path, source_db, {}, ["users"], destination_section=use)
    with open_state(pipeline, {}) as state, pytest.raises(ConfigError, match="'dest-plain' cannot move") as caught:
        reset_stream(pipeline, pipeline.streams[0], state=state, run_id="reset", environ={})
    assert caught.value.kind is Kind.UNSUPPORTED
    assert (caught.value.info.stream, caught.value.info.stage) == ("users", "destination")
    with open_state(pipeline, {}) as state:
        assert state.prepared_checkpoint("shop", "users") is None


class DeafStore(SqliteStateStore):
    def finalise(self, pipeline: str, stream: str, sequence: int) -> None:
        raise StateError("the disk is full")


def test_a_reset_that_nobody_heard_of_is_found_at_the_destination(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("CREATE TABLE users (id int NOT NULL); INSERT INTO users SELECT generate_series(1, 10)")
    stream = {"name": "users", "sync_mode": "incremental", "cursor_field": "id"}
    pipeline = make_pipeline(tmp_path, source_db, destination_db, [stream], write_mode="append")
    assert run(pipeline).rows == 10
    with DeafStore(default_path(pipeline, {})) as deaf, pytest.raises(StateError, match="the disk is full"):
        reset_stream(pipeline, pipeline.streams[0], state=deaf, run_id="reset", environ={})
    watermark = read_watermark(pipeline, pipeline.streams[0], environ={})
    assert watermark is not None
    assert (watermark.sequence, watermark.cursor, watermark.run_id, watermark.final) == (2, None, "reset", False)
    assert run(pipeline).rows == 10
    with open_state(pipeline, {}) as state:
        assert [checkpoint.sequence for checkpoint in state.checkpoints("shop", "users")] == [3, 2, 1]


def test_nobody_goes_back_to_a_checkpoint_that_a_restored_destination_lost(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    """Its cursor stands behind rows that are not there any more: they would be missing for good."""
    source_db.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1), (2)")
    stream = {"name": "notes", "sync_mode": "incremental", "cursor_field": "id"}
    pipeline = make_pipeline(tmp_path, source_db, destination_db, [stream])
    run(pipeline)
    destination_db.execute("CREATE TABLE backup AS SELECT * FROM raw._rapidbyte_watermarks")
    source_db.execute("INSERT INTO notes VALUES (3), (4)")
    run(pipeline)
    destination_db.execute(
        "DELETE FROM raw.notes WHERE id > 2; DELETE FROM raw._rapidbyte_watermarks;"
        "INSERT INTO raw._rapidbyte_watermarks SELECT * FROM backup"
    )
    with open_state(pipeline, {}) as state:
        moved = reset_stream(pipeline, pipeline.streams[0], state=state, run_id="reset", environ={})
        assert moved.sequence == 3
        with pytest.raises(UsageError, match="there is no checkpoint 2"):
            rewind_stream(pipeline, pipeline.streams[0], 2, state=state, run_id="rewind", environ={})
        rewind_stream(pipeline, pipeline.streams[0], 1, state=state, run_id="rewind", environ={})
    run(pipeline)
    assert destination_db.fetch("SELECT id FROM raw.notes ORDER BY id") == [(1,), (2,), (3,), (4,)]
