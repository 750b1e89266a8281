from __future__ import annotations

import linecache
import multiprocessing
import sqlite3
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state import Checkpoint, RunRecord, SchemaColumn, SchemaVersion, Watermark, open_state
from rapidbyte_dagster.state.dead_letters import DEAD_LETTER_SCHEMA
from rapidbyte_dagster.state.sqlite import SqliteStateStore
from tests.pipelines import pipeline_text

PIPELINE, STREAM = "shop", "users"


def a_checkpoint(sequence: int, cursor: object = None, rows: int = 10, run_id: str = "run") -> Checkpoint:
    return Checkpoint(
        pipeline=PIPELINE,
        stream=STREAM,
        sequence=sequence,
        cursor=cursor,
        rows=rows,
        bytes=100,
        run_id=run_id,
        committed_at=datetime.now(timezone.utc),
    )


def a_version(*names: str, run_id: str = "run") -> SchemaVersion:
    columns = tuple(SchemaColumn(name=name, type="bigint") for name in names)
    return SchemaVersion(table="raw.users", columns=columns, run_id=run_id, recorded_at=datetime.now(timezone.utc))


@pytest.fixture
def store(tmp_path: Path) -> SqliteStateStore:
    return SqliteStateStore(tmp_path / "deep" / "state.db")


def test_a_prepared_checkpoint_does_not_count_until_it_is_finalised(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(1))
    assert store.latest_checkpoint(PIPELINE, STREAM) is None
    store.finalise(PIPELINE, STREAM, 1)
    latest = store.latest_checkpoint(PIPELINE, STREAM)
    assert latest is not None
    assert (latest.sequence, latest.rows, latest.bytes, latest.run_id) == (1, 10, 100, "run")


def test_a_cursor_comes_back_as_it_was_given(store: SqliteStateStore) -> None:
    cursor = {"updated_at": "2024-01-01T00:00:00.123456+00", "id": [1, None, "ü\x00"]}
    store.prepare(a_checkpoint(1, cursor))
    store.finalise(PIPELINE, STREAM, 1)
    latest = store.latest_checkpoint(PIPELINE, STREAM)
    assert latest is not None
    assert latest.cursor == cursor


def test_a_crash_between_commit_and_finalise_is_healed_by_the_watermark(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(1, cursor=5))
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, cursor=5))
    assert (resume.sequence, resume.cursor) == (1, 5)
    latest = store.latest_checkpoint(PIPELINE, STREAM)
    assert latest is not None
    assert latest.sequence == 1


def test_a_crash_between_prepare_and_commit_discards_the_prepared_checkpoint(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(1, cursor=5))
    store.finalise(PIPELINE, STREAM, 1)
    store.prepare(a_checkpoint(2, cursor=9))
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, cursor=5))
    assert (resume.sequence, resume.cursor) == (2, 5)
    assert [c.sequence for c in store.checkpoints(PIPELINE, STREAM)] == [1]
    store.prepare(a_checkpoint(3, cursor=7))


def test_a_lost_state_file_follows_the_destination(store: SqliteStateStore) -> None:
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=41, cursor="x"))
    assert (resume.sequence, resume.cursor) == (41, "x")


def test_a_destination_that_lost_its_watermark_never_sees_a_sequence_again(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(3, cursor="x"))
    store.finalise(PIPELINE, STREAM, 3)
    resume = store.reconcile(PIPELINE, STREAM, None)
    assert resume.sequence == 3
    assert resume.cursor is None


def test_streams_and_pipelines_do_not_touch_each_other(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(1))
    store.reconcile(PIPELINE, "orders", None)
    store.reconcile("other", STREAM, None)
    store.finalise(PIPELINE, STREAM, 1)


def test_finalising_what_was_never_prepared_is_an_error(store: SqliteStateStore) -> None:
    with pytest.raises(StateError, match="never prepared"):
        store.finalise(PIPELINE, STREAM, 1)


def test_two_runs_cannot_prepare_one_sequence(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(1))
    with pytest.raises(StateError, match="it is another run's"):
        store.prepare(a_checkpoint(1, run_id="other"))


def test_preparing_and_finalising_once_more_changes_nothing(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(1, cursor=5))
    store.prepare(a_checkpoint(1, cursor=5))
    store.finalise(PIPELINE, STREAM, 1)
    latest = store.latest_checkpoint(PIPELINE, STREAM)
    store.finalise(PIPELINE, STREAM, 1)
    store.prepare(a_checkpoint(1, cursor=5))
    assert store.checkpoints(PIPELINE, STREAM) == [latest]
    with pytest.raises(StateError, match="cannot be prepared"):
        store.prepare(a_checkpoint(1, cursor=6))


def test_a_prepared_checkpoint_of_a_number_that_another_run_committed_is_discarded(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(1))
    store.finalise(PIPELINE, STREAM, 1)
    store.prepare(a_checkpoint(2, cursor=5))
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, cursor=7, run_id="other"))
    assert (resume.sequence, resume.cursor) == (2, 7)
    assert [c.sequence for c in store.checkpoints(PIPELINE, STREAM)] == [1]


def test_a_prepared_checkpoint_that_its_own_run_committed_is_finalised(store: SqliteStateStore) -> None:
    store.prepare(a_checkpoint(1))
    store.prepare(a_checkpoint(2, cursor=5))
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, cursor=5, run_id="run", final=True))
    assert [(c.sequence, c.cursor) for c in store.checkpoints(PIPELINE, STREAM)] == [(2, 5), (1, None)]


def test_the_schema_history_grows_only_when_the_schema_changes(store: SqliteStateStore) -> None:
    assert store.schema_state(PIPELINE, STREAM).current is None
    store.record_schema(PIPELINE, STREAM, a_version("id"))
    store.record_schema(PIPELINE, STREAM, a_version("id", run_id="second"))
    store.record_schema(PIPELINE, STREAM, a_version("id", "email"))
    state = store.schema_state(PIPELINE, STREAM)
    assert [[c.name for c in version.columns] for version in state.history] == [["id"], ["id", "email"]]
    assert state.current == state.history[-1]
    assert state.history[0].run_id == "run"


def test_no_dead_letters_are_an_empty_table_of_the_full_schema(store: SqliteStateStore) -> None:
    table = store.dead_letters(PIPELINE, STREAM)
    assert table.schema == DEAD_LETTER_SCHEMA
    assert table.num_rows == 0


def test_a_run_is_written_once_and_brought_up_to_date(store: SqliteStateStore) -> None:
    run = RunRecord(
        run_id="r", pipeline=PIPELINE, stream=STREAM, status="running", started_at=datetime.now(timezone.utc)
    )
    store.record_run(run)
    store.record_run(run.model_copy(update={"status": "ok", "rows": 7}))
    assert [(r.status, r.rows) for r in store.runs(PIPELINE, STREAM)] == [("ok", 7)]


def test_one_run_is_found_by_its_id_and_stream(store: SqliteStateStore) -> None:
    run = RunRecord(run_id="r", pipeline=PIPELINE, stream=STREAM, status="ok", started_at=datetime.now(timezone.utc))
    store.record_run(run)
    store.record_run(run.model_copy(update={"stream": "orders", "status": "failed"}))
    assert store.run("r", PIPELINE, STREAM) == run
    assert store.run("r", PIPELINE, "payments") is None
    assert store.run("s", PIPELINE, STREAM) is None


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    SqliteStateStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="newer version"):
        SqliteStateStore(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_text("this is not a database, and it is long enough to be looked at as one" * 20)
    before = path.read_bytes()
    with pytest.raises(StateError, match="cannot be used") as caught:
        SqliteStateStore(path)
    assert "move it away" in str(caught.value.hint)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (id INTEGER)")
    with pytest.raises(StateError, match="something else"):
        SqliteStateStore(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_what_the_environment_adds_to_the_path_is_not_told(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    config = {"host": "h", "user": "u", "database": "d"}
    file.write_text(pipeline_text(config, config, ["users"], state={"backend": "sqlite", "path": "${FOLDER}/state.db"}))
    blocked = tmp_path / "s3cr3t"
    blocked.write_text("")
    with pytest.raises(StateError, match=r"\$\{FOLDER\}/state.db cannot be opened") as caught:
        open_state(load_pipeline(file), {"FOLDER": str(blocked)})
    assert "s3cr3t" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be opened") as caught:
        SqliteStateStore(tmp_path / "file" / "state.db")
    assert caught.value.hint is not None


def _commit_many(path: Path, stream: str) -> None:
    store = SqliteStateStore(path)
    for sequence in range(1, 21):
        store.prepare(a_checkpoint(sequence).model_copy(update={"stream": stream}))
        store.finalise(PIPELINE, stream, sequence)


def test_processes_that_open_and_write_one_new_store_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_commit_many, args=(path, f"stream{number}")) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = SqliteStateStore(path)
    assert [len(store.checkpoints(PIPELINE, f"stream{number}")) for number in range(3)] == [20, 20, 20]


def _open_in_step(folder: Path, barrier: Any, rounds: int) -> None:
    for number in range(rounds):
        barrier.wait(60)
        SqliteStateStore(folder / f"{number}.db").close()


def test_processes_that_open_a_new_store_in_the_same_instant_all_succeed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(6)
    processes = [context.Process(target=_open_in_step, args=(tmp_path, barrier, 50)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6


def test_a_number_that_was_prepared_and_discarded_is_not_given_out_again(store: SqliteStateStore) -> None:
    """Its commit may be under way in a server that nobody can ask yet."""
    store.prepare(a_checkpoint(1))
    assert store.reconcile(PIPELINE, STREAM, None).sequence == 1


def test_an_interrupt_right_after_the_begin_leaves_no_transaction_open(store: SqliteStateStore) -> None:
    class Interrupted(BaseException):
        pass

    begun = False

    def interrupt(frame: Any, event: str, _: Any) -> Any:
        """Raises where a signal handler might."""
        nonlocal begun
        if not frame.f_code.co_filename.endswith("sqlite.py"):
            return None
        if event == "line" and begun:
            raise Interrupted
        begun = "BEGIN IMMEDIATE" in linecache.getline(frame.f_code.co_filename, frame.f_lineno) or begun
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(Interrupted):
            store.prepare(a_checkpoint(1))
    finally:
        sys.settrace(before)
    store.prepare(a_checkpoint(1))
