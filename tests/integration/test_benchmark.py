"""The benchmark runs, and notices when something else arrives than was sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import events
from benchmarks.measured import CommandFailed, measure
from tests.postgres_server import Database

ROOT = Path(__file__).parents[2]
MEGABYTE = 1024 * 1024


def test_a_small_session_of_the_engine_and_the_pipe_moves_equal_content() -> None:
    ways = [word for name in ("psql", "append", "replace", "replace-again") for word in ("--way", name)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--rows", "3000", "--rounds", "1", "--no-definitions", "--no-save", *ways],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == 4


def test_the_content_hash_ignores_the_order_and_notices_one_changed_value(source_db: Database) -> None:
    with source_db.connect() as connection:
        events.create(connection, "events", primary_key=False)
        events.seed(connection, 1000)
        before = events.content(connection, "events")
        connection.execute("create table shuffled as select * from events order by token")
        assert events.content(connection, "shuffled") == before
        connection.execute("update shuffled set remark = '' where remark is null and id = 10")
        assert events.content(connection, "shuffled") != before


def test_a_process_is_measured_without_the_memory_of_the_one_that_started_it(tmp_path: Path) -> None:
    ours = bytearray(300 * MEGABYTE)
    measured = measure(["/bin/sh", "-c", "echo done"], environment={}, folder=tmp_path)
    assert len(ours) > measured.peak_rss_bytes
    assert measured.peak_rss_bytes < 50 * MEGABYTE
    assert measured.output == "done\n"


def test_a_command_that_fails_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no such thing"):
        measure(["/bin/sh", "-c", "echo no such thing >&2; exit 3"], environment={}, folder=tmp_path)
