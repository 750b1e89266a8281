"""`rapidbyte state`: real checkpoints of real runs, looked at and moved."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.state import Checkpoint, open_state
from tests.integration.cli.command import in_process as rapidbyte
from tests.integration.cli.command import start
from tests.pipelines import write_pipeline
from tests.postgres_server import Database

INCREMENTAL = {"name": "users", "sync_mode": "incremental", "cursor_field": "id"}
WATERMARK = "SELECT sequence, cursor, final, run_id FROM raw._rapidbyte_watermarks WHERE stream = 'users'"


@pytest.fixture
def shop_db(source_db: Database) -> Database:
    source_db.execute("""
        CREATE TABLE users (id bigint, email text);
        INSERT INTO users SELECT i, 'user' || i FROM generate_series(1, 500) i;
        CREATE TABLE orders (id int, user_id bigint);
        INSERT INTO orders SELECT i, i FROM generate_series(1, 300) i;
    """)
    return source_db


def told(*arguments: object) -> dict[str, Any]:
    done = rapidbyte("state", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


def the_stream(*arguments: object) -> dict[str, Any]:
    """What is told of the one stream."""
    (stream,) = told(*arguments)["streams"]
    assert isinstance(stream, dict)
    return stream


def commit_at(path: Path, sequence: int, value: int) -> Checkpoint:
    """A checkpoint in the state store as a run would have left it, with a cursor."""
    pipeline = load_pipeline(path)
    checkpoint = Checkpoint(
        pipeline=pipeline.name,
        stream="users",
        sequence=sequence,
        cursor={"field": "id", "type": "int8", "value": str(value), "seen": ["x" * 1000]},
        rows=10,
        bytes=100,
        run_id=f"run-{sequence}",
        committed_at=datetime.now(timezone.utc),
    )
    with open_state(pipeline, {}) as store:
        store.prepare(checkpoint)
        store.finalise(pipeline.name, "users", sequence)
    return checkpoint


def test_show_tells_the_last_checkpoint_and_that_the_destination_agrees(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users", "orders"])
    run = json.loads(rapidbyte("run", path, "--stream", "users", "--json").stdout)
    done = rapidbyte("state", "show", path)
    assert (done.returncode, done.stderr) == (0, "")
    users, orders = done.stdout.split("\norders (")
    assert users.startswith("users (full_refresh, append)\n  checkpoint   1, ")
    assert f"500 rows, run {run['run_id']}" in users
    assert "destination  at the same checkpoint\n" in users
    assert "  ok  500 rows" in users
    assert "checkpoint   none" in orders
    assert "destination  knows nothing of the stream" in orders


def test_show_as_json_has_both_sides_and_the_runs(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    run_id = json.loads(rapidbyte("run", path, "--json").stdout)["run_id"]
    stream = the_stream("show", path)
    assert (stream["stream"], stream["sync_mode"], stream["write_mode"]) == ("users", "full_refresh", "append")
    assert (stream["checkpoint"]["sequence"], stream["checkpoint"]["rows"]) == (1, 500)
    assert stream["prepared"] is None
    assert stream["destination"] == {
        "relation": "same",
        "watermark": {"sequence": 1, "cursor": None, "run_id": run_id, "final": True},
        "error": None,
    }
    assert [(run["run_id"], run["status"], run["rows"]) for run in stream["runs"]] == [(run_id, "ok", 500)]
    assert "history" not in stream


def test_show_tells_how_the_tables_columns_changed_newest_first(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, [INCREMENTAL])
    assert rapidbyte("run", path).returncode == 0
    assert "\n  schema " not in rapidbyte("state", "show", path).stdout
    for last, column in ((1000, "phone"), (1001, "fax")):
        shop_db.execute(f"ALTER TABLE users ADD COLUMN {column} text; INSERT INTO users VALUES ({last}, 'last')")
        assert rapidbyte("run", path).returncode == 0
    told = rapidbyte("state", "show", path).stdout
    told = told[told.index("\n  schema ") :]
    assert "  checkpoint 3  column fax (text) is new: it is added\n" in told
    assert "  checkpoint 2  column phone (text) is new: it is added\n" in told
    assert told.index("column fax") < told.index("column phone")
    (newest, oldest) = the_stream("show", path)["schema_events"]
    assert (newest["sequence"], oldest["sequence"]) == (3, 2)
    assert [(change["column"], change["action"]) for change in newest["changes"]] == [("fax", "added")]


def test_show_works_without_the_destination_and_says_so(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    assert rapidbyte("run", path).returncode == 0
    gone = {**destination_db.config, "password": "s3cr3t-and-wrong", "schema": "raw"}
    path = write_pipeline(tmp_path, shop_db, gone, ["users"])
    done = rapidbyte("state", "show", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "checkpoint   1, " in done.stdout
    assert "could not be asked: password authentication failed" in done.stdout
    assert "s3cr3t" not in done.stdout
    destination = the_stream("show", path)["destination"]
    assert destination["relation"] == "unreachable"
    assert "password authentication failed" in destination["error"]


@pytest.mark.parametrize(
    ("change", "relation", "text"),
    [
        (
            "UPDATE raw._rapidbyte_watermarks SET sequence = 5",
            "ahead",
            "ahead: at checkpoint 5; the state store is at 2",
        ),
        (
            "UPDATE raw._rapidbyte_watermarks SET sequence = 1",
            "behind",
            "behind: at checkpoint 1, as if it was restored",
        ),
        ("DELETE FROM raw._rapidbyte_watermarks", "missing", "behind: knows nothing of the stream"),
        ("UPDATE raw._rapidbyte_watermarks SET run_id = 'elsewhere'", "other_run", "is of run elsewhere"),
    ],
)
def test_show_tells_when_destination_and_state_store_differ(
    tmp_path: Path, shop_db: Database, destination_db: Database, change: str, relation: str, text: str
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    assert [rapidbyte("run", path).returncode for _ in range(2)] == [0, 0]
    destination_db.execute(change)
    assert the_stream("show", path)["destination"]["relation"] == relation
    assert text in rapidbyte("state", "show", path).stdout


def test_show_tells_of_a_prepared_checkpoint_that_the_destination_did_commit(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    assert rapidbyte("run", path).returncode == 0
    # As if the process had been killed between COMMIT and the word of it.
    pipeline = load_pipeline(path)
    with open_state(pipeline, {}) as store:
        store.prepare(commit_at(path, 2, 7).model_copy(update={"sequence": 3}))
    destination_db.execute("UPDATE raw._rapidbyte_watermarks SET sequence = 3, run_id = 'run-2'")
    assert "it was committed; the next run finalises it" in rapidbyte("state", "show", path).stdout
    stream = the_stream("show", path)
    assert (stream["prepared"]["sequence"], stream["destination"]["relation"]) == (3, "ahead")


def test_show_shortens_a_long_cursor_and_json_has_all_of_it(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, [INCREMENTAL], write_mode="upsert")
    checkpoint = commit_at(path, 1, 42)
    shown = rapidbyte("state", "show", path, "--history").stdout
    assert "cursor       id = 42\n" in shown
    assert max(map(len, shown.splitlines())) < 200
    stream = the_stream("show", path, "--history")
    assert stream["checkpoint"]["cursor"] == checkpoint.cursor
    assert [entry["sequence"] for entry in stream["history"]] == [1]


def test_reset_forgets_the_cursor_at_both_sides_and_history_tells_it(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    assert rapidbyte("run", path).returncode == 0
    done = rapidbyte("state", "reset", path, "--stream", "users", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert "users: reset, as checkpoint 2; the next run reads everything" in done.stdout
    assert "are then there twice" in done.stdout
    ((sequence, cursor, final, run_id),) = destination_db.fetch(WATERMARK)
    assert (sequence, cursor, final) == (2, None, False)
    stream = the_stream("show", path, "--history")
    assert [(entry["sequence"], entry["rows"]) for entry in stream["history"]] == [(2, 0), (1, 500)]
    assert [run["status"] for run in stream["runs"]] == ["reset", "ok"]
    assert stream["runs"][0]["run_id"] == run_id
    assert stream["destination"]["relation"] == "same"
    shown = rapidbyte("state", "show", path, "--history").stdout
    assert shown.count("moved by hand") == 2, "the checkpoint, and its place in the history"
    assert "destination  at the same checkpoint\n" in shown
    assert rapidbyte("run", path).returncode == 0
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 1000


def test_reset_of_a_stream_that_never_ran_and_of_a_table_that_is_gone(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    assert the_stream("reset", path, "--all", "--yes")["sequence"] == 1
    assert rapidbyte("run", path).returncode == 0
    destination_db.execute("DROP TABLE raw.users")
    assert the_stream("reset", path, "--all", "--yes")["sequence"] == 3
    assert rapidbyte("run", path).returncode == 0
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 500


def test_reset_completes_no_interrupted_run(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    assert rapidbyte("run", path).returncode == 0
    pipeline = load_pipeline(path)
    with open_state(pipeline, {}) as store:
        (run,) = store.runs("shop", "users")
        # As if the process had been killed before it could write down how it ended.
        store.record_run(run.model_copy(update={"status": "running", "ended_at": None}))
    assert rapidbyte("state", "reset", path, "--all", "--yes").returncode == 0
    assert rapidbyte("run", path).returncode == 0
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 1000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["reset"], "--all"),
        (["reset", "--all", "--stream", "users"], "not both"),
        (["reset", "--all"], "give --yes"),
        (["reset", "--stream", "user", "--yes"], "did you mean 'users'"),
        (["rewind", "--to", "1"], "--stream NAME"),
        (["rewind", "--stream", "users"], "--to"),
        (["rewind", "--stream", "users", "--to", "0"], "0"),
        (["rewind", "--stream", "users", "--to", "99999999999999999999"], "no cursor to rewind"),
        (["show", "--stream", "user"], "did you mean 'users'"),
        (["forget"], "forget"),
    ],
)
def test_a_wrong_command_line_is_exit_code_64_and_moves_nothing(
    tmp_path: Path, shop_db: Database, destination_db: Database, arguments: list[str], text: str
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users", "orders"])
    done = rapidbyte("state", arguments[0], path, *arguments[1:])
    assert done.returncode == 64
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert destination_db.fetch_value("SELECT to_regnamespace('raw') IS NULL")


@pytest.mark.parametrize(("answer", "code", "sequence"), [("y", 0, 2), ("n", 7, 1)])
def test_reset_asks_on_a_terminal_after_telling_what_comes_of_it(
    tmp_path: Path, shop_db: Database, destination_db: Database, answer: str, code: int, sequence: int
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    assert rapidbyte("run", path).returncode == 0
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "rapidbyte_dagster.cli", "state", "reset", str(path), "--stream", "users"],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == code, done.stderr
    assert "users: the next run reads everything" in done.stderr
    assert "Reset 1 stream?" in done.stderr
    assert destination_db.fetch_value("SELECT sequence FROM raw._rapidbyte_watermarks") == sequence


@pytest.mark.full
def test_a_stream_that_cannot_be_reset_does_not_stop_the_others(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users", "orders"])
    assert rapidbyte("run", path).returncode == 0
    held = "SELECT pg_advisory_lock(hashtextextended('rapidbyte shop/users', 0))"
    with destination_db.connect() as connection:
        connection.execute(held)
        done = rapidbyte("state", "reset", path, "--all", "--yes", "--json")
    assert done.returncode == 5
    users, orders = json.loads(done.stdout)["streams"]
    assert (users["status"], orders["status"]) == ("failed", "reset")
    assert "another run is writing stream users" in users["error"]
    assert "users: destination: waiting for another run" in done.stderr
    assert "Error: stream 'users' destination: another run" in done.stderr
    assert destination_db.fetch(WATERMARK)[0][:3] == (1, None, True)


def test_a_stream_that_is_running_cannot_be_reset(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    slow = {"name": "users", "filter": "pg_sleep(0.1) IS NOT NULL"}
    path = write_pipeline(tmp_path, shop_db, destination_db, [slow])
    process = start("run", path)
    try:
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"
        while not destination_db.fetch_value(f"{locks} WHERE datname = current_database())"):
            time.sleep(0.05)
            assert process.poll() is None
        done = rapidbyte("state", "reset", path, "--all", "--yes")
        shown = rapidbyte("state", "show", path).stdout
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert done.returncode == 5
    assert "another run is writing stream users" in done.stderr
    assert "could not be asked: another run is writing stream users" in shown
    assert "running" in shown


def test_a_secret_is_not_shown_when_the_destination_refuses(
    tmp_path: Path, shop_db: Database, destination_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pipeline(tmp_path, shop_db, {**destination_db.config, "user": "${DB_USER}"}, ["users"])
    monkeypatch.setenv("DB_USER", "no_such_user_7b1")
    for command in (["show"], ["reset", "--all", "--yes"], ["reset", "--all", "--yes", "--debug"]):
        done = rapidbyte("state", command[0], path, *command[1:])
        assert done.returncode == (0 if command[0] == "show" else 5)
        assert "no_such_user_7b1" not in done.stdout + done.stderr
    monkeypatch.delenv("DB_USER")
    done = rapidbyte("state", "reset", path, "--all", "--yes")
    assert done.returncode == 2
    assert "DB_USER" in done.stderr


def test_rewind_gives_back_an_earlier_cursor_unchanged_and_can_be_undone(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, [INCREMENTAL], write_mode="upsert")
    checkpoints = {sequence: commit_at(path, sequence, sequence * 100) for sequence in (1, 2, 3)}
    done = rapidbyte("state", "rewind", path, "--to", "2")
    assert done.returncode == 0, done.stderr
    assert "users: rewound, as checkpoint 4; the next run reads from id = 200 on and merges" in done.stdout
    ((sequence, cursor, final, run_id),) = destination_db.fetch(WATERMARK)
    assert (sequence, cursor, final) == (4, checkpoints[2].cursor, False)
    stream = the_stream("show", path)
    assert (stream["checkpoint"]["sequence"], stream["checkpoint"]["cursor"]) == (4, checkpoints[2].cursor)
    assert [(run["run_id"], run["status"]) for run in stream["runs"]] == [(run_id, "rewound")]
    undone = the_stream("rewind", path, "--stream", "users", "--to", "3")
    assert (undone["status"], undone["sequence"], undone["cursor"]) == ("rewound", 5, checkpoints[3].cursor)


def test_rewind_names_the_newest_checkpoints_when_there_is_none_of_that_number(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, [INCREMENTAL], write_mode="upsert")
    done = rapidbyte("state", "rewind", path, "--to", "3")
    assert done.returncode == 64
    assert "the stream has no checkpoint yet" in done.stderr
    for sequence in range(1, 13):
        commit_at(path, sequence, sequence)
    done = rapidbyte("state", "rewind", path, "--to", "99999999999999999999")
    assert done.returncode == 64
    assert "the newest are 12, 11, 10, 9, 8, 7, 6, 5, 4, 3;" in done.stderr


def test_rewind_refuses_a_checkpoint_that_the_destination_does_not_hold_or_that_has_no_cursor(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, [INCREMENTAL], write_mode="upsert")
    assert the_stream("reset", path, "--all", "--yes")["sequence"] == 1
    commit_at(path, 2, 200)
    done = rapidbyte("state", "rewind", path, "--to", "2")
    assert done.returncode == 64
    assert "the rows between the two would be missing" in done.stderr
    done = rapidbyte("state", "rewind", path, "--to", "1")
    assert done.returncode == 64
    assert "rapidbyte state reset shop.yaml --stream users" in done.stderr
    assert destination_db.fetch_value("SELECT sequence FROM raw._rapidbyte_watermarks") == 1


def test_full_refresh_and_reset_exclude_each_other(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    done = rapidbyte("run", path, "--full-refresh", "--reset")
    assert done.returncode == 64
    assert "exclude each other" in done.stderr
    assert destination_db.fetch_value("SELECT to_regnamespace('raw') IS NULL")


@pytest.mark.parametrize(("option", "rows"), [("--full-refresh", 500), ("--reset", 1000)])
def test_a_run_may_replace_the_rows_or_start_over_in_its_own_write_mode(
    tmp_path: Path, shop_db: Database, destination_db: Database, option: str, rows: int
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"], write_mode="append")
    assert rapidbyte("run", path).returncode == 0
    assert rapidbyte("run", path, option).returncode == 0
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == rows
