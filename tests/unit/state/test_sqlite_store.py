"""What only the SQLite store has: a file, and what may be wrong with it."""

from __future__ import annotations

import linecache
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state import open_state
from rapidbyte_dagster.state.sqlite import SqliteStateStore
from tests.pipelines import pipeline_text
from tests.unit.state.samples import PIPELINE, STREAM, a_checkpoint, a_letter


@pytest.fixture
def store(tmp_path: Path) -> SqliteStateStore:
    return SqliteStateStore(tmp_path / "deep" / "state.db")


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


def test_a_look_at_a_file_that_is_no_store_tells_what_opening_it_tells(tmp_path: Path) -> None:
    damaged, theirs, empty = tmp_path / "damaged.db", tmp_path / "theirs.db", tmp_path / "empty.db"
    damaged.write_text("this is not a database, and it is long enough to be looked at as one" * 20)
    with sqlite3.connect(theirs) as db:
        db.execute("CREATE TABLE theirs (id INTEGER)")
    empty.touch()
    with pytest.raises(StateError, match="cannot be used"):
        SqliteStateStore.existing(damaged)
    with pytest.raises(StateError, match="something else"):
        SqliteStateStore.existing(theirs)
    # What a process leaves that is killed while it makes one.
    assert SqliteStateStore.existing(empty) is None
    assert empty.stat().st_size == 0


def test_an_interrupt_right_after_the_begin_leaves_no_transaction_open(store: SqliteStateStore) -> None:
    class Interrupted(BaseException):
        pass

    begun = False

    def interrupt(frame: Any, event: str, _: Any) -> Any:
        """Raises where a signal handler might."""
        nonlocal begun
        if frame.f_code.co_name != "_transaction":
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


def test_a_signal_reaches_a_store_that_waits_for_a_lock(tmp_path: Path) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    path = tmp_path / "state.db"
    store = SqliteStateStore(path)
    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGUSR1])
    try:
        with sqlite3.connect(path) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            timer.start()
            with pytest.raises(Interrupted):
                store.prepare(a_checkpoint(1))
            assert time.monotonic() - started < 2
            other.execute("ROLLBACK")
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    store.prepare(a_checkpoint(1))


def test_a_store_without_space_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    large = [a_letter("large", record="x" * 100_000)]
    with SqliteStateStore(tmp_path / "state.db") as store:
        store.prepare(a_checkpoint(1))
        store.finalise(PIPELINE, STREAM, 1)
        [(pages,)] = store._read("PRAGMA page_count", ())
        store._read(f"PRAGMA max_page_count = {pages + 2}", ())
        with pytest.raises(StateError, match="cannot be written: database or disk is full") as caught:
            store.add_dead_letters(PIPELINE, STREAM, large, run_id="run", sequence=2)
        assert "has space" in str(caught.value.hint)
        assert [checkpoint.sequence for checkpoint in store.checkpoints(PIPELINE, STREAM)] == [1]
        store._read("PRAGMA max_page_count = 1000000", ())
        store.add_dead_letters(PIPELINE, STREAM, large, run_id="run", sequence=2)
        store.prepare(a_checkpoint(2, dead_letters=1))
        store.finalise(PIPELINE, STREAM, 2)
        assert store.dead_letter_counts(PIPELINE, STREAM).total == 1
