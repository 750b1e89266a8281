"""Incremental streams that are started over, reset and rewound: what the destination holds in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.command import in_process as rapidbyte
from tests.pipelines import write_pipeline
from tests.postgres_server import Database

BY_ID = {"name": "users", "sync_mode": "incremental", "cursor_field": "id"}
BY_CHANGE = {"name": "users", "sync_mode": "incremental", "cursor_field": "updated_at"}


@pytest.fixture
def users_db(source_db: Database) -> Database:
    source_db.execute("""
        CREATE TABLE users (id bigint PRIMARY KEY, email text, updated_at timestamptz NOT NULL);
        INSERT INTO users SELECT i, 'user' || i, '2024-01-01Z'::timestamptz + i * interval '1 h'
        FROM generate_series(1, 100) i;
    """)
    return source_db


def ran(path: Path, *options: str) -> Mapping[str, Any]:
    """What a run of the one stream told."""
    done = rapidbyte("run", path, "--json", *options)
    assert done.returncode == 0, done.stderr
    (stream,) = json.loads(done.stdout)["streams"]
    assert isinstance(stream, dict)
    return stream


def history(path: Path) -> list[dict[str, Any]]:
    """The checkpoints, newest first."""
    (stream,) = json.loads(rapidbyte("state", "show", path, "--history", "--json").stdout)["streams"]
    assert stream["destination"]["relation"] == "same"
    found = stream["history"]
    assert isinstance(found, list)
    return found


def content(database: Database, table: str) -> list[tuple[object, ...]]:
    return database.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")


def add_users(database: Database, first: int, last: int) -> None:
    database.execute(
        "INSERT INTO users SELECT i, 'user' || i, '2024-01-01Z'::timestamptz + i * interval '1 h'"
        f" FROM generate_series({first}, {last}) i"
    )


def test_a_full_refresh_replaces_an_appended_table_and_incremental_goes_on_from_there(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_ID], write_mode="append")
    assert ran(path)["rows"] == 100
    add_users(users_db, 101, 150)
    users_db.execute("DELETE FROM users WHERE id <= 10")
    assert ran(path)["rows"] == 50
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 150
    assert ran(path, "--full-refresh")["rows"] == 140
    assert content(destination_db, "raw.users") == content(users_db, "users")
    add_users(users_db, 151, 160)
    assert ran(path)["rows"] == 10
    assert content(destination_db, "raw.users") == content(users_db, "users")
    assert [(c["rows"], c["cursor"]["value"]) for c in history(path)] == [
        (10, "160"),
        (140, "150"),
        (50, "150"),
        (100, "100"),
    ]


def test_show_tells_the_cursor(tmp_path: Path, users_db: Database, destination_db: Database) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_CHANGE], write_mode="append")
    ran(path)
    assert "cursor       updated_at = 2024-01-05 04:00:00+00\n" in rapidbyte("state", "show", path).stdout


@pytest.mark.parametrize("way", ["run --reset", "state reset"])
def test_a_reset_of_an_upsert_reads_everything_again_and_repeats_no_row(
    tmp_path: Path, users_db: Database, destination_db: Database, way: str
) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_CHANGE], write_mode="upsert")
    ran(path)
    # A change that its cursor does not show: only reading everything again finds it.
    users_db.execute("UPDATE users SET email = 'changed behind the cursor' WHERE id = 5")
    ran(path)
    assert destination_db.fetch_value("SELECT email FROM raw.users WHERE id = 5") == "user5"
    if way == "state reset":
        assert rapidbyte("state", "reset", path, "--all", "--yes").returncode == 0
        assert ran(path)["rows"] == 100
    else:
        assert ran(path, "--reset")["rows"] == 100
    assert content(destination_db, "raw.users") == content(users_db, "users")
    assert ran(path)["rows"] == 0


def test_a_reset_of_an_append_reads_everything_again_on_top(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_ID], write_mode="append")
    ran(path)
    assert rapidbyte("state", "reset", path, "--all", "--yes").returncode == 0
    assert ran(path)["rows"] == 100
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 200


def test_a_rewind_reads_again_from_an_earlier_checkpoint(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_CHANGE], write_mode="upsert")
    for last in (120, 140, 160):
        add_users(users_db, last - 19, last)
        ran(path)
    users_db.execute("UPDATE users SET email = 'changed behind the cursor' WHERE id IN (110, 150)")
    assert ran(path)["rows"] == 0
    second = history(path)[-2]
    assert rapidbyte("state", "rewind", path, "--to", str(second["sequence"])).returncode == 0
    assert history(path)[0]["cursor"] == second["cursor"]
    assert ran(path)["rows"] == 20
    told = destination_db.fetch("SELECT id, email FROM raw.users WHERE id IN (110, 150) ORDER BY id")
    assert told == [(110, "user110"), (150, "changed behind the cursor")]
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 160
    assert history(path)[0]["cursor"]["value"] == "2024-01-07 16:00:00+00"


def test_a_stream_whose_table_was_dropped_runs_again_after_a_reset(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_ID], write_mode="append")
    ran(path)
    destination_db.execute("DROP TABLE raw.users")
    failed = rapidbyte("run", path)
    assert failed.returncode == 3
    assert "rapidbyte state reset" in failed.stderr
    assert rapidbyte("state", "reset", path, "--stream", "users", "--yes").returncode == 0
    assert ran(path)["rows"] == 100
    assert content(destination_db, "raw.users") == content(users_db, "users")


def test_a_cursor_that_changed_its_type_starts_anew_after_a_reset(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_ID], write_mode="upsert")
    ran(path)
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_CHANGE], write_mode="upsert")
    failed = rapidbyte("run", path)
    assert failed.returncode == 3
    assert "rapidbyte state reset" in failed.stderr
    assert rapidbyte("state", "reset", path, "--stream", "users", "--yes").returncode == 0
    assert ran(path)["rows"] == 100
    assert content(destination_db, "raw.users") == content(users_db, "users")


def test_a_reset_of_a_stream_whose_watermark_is_gone_lets_it_run_again(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, [BY_ID], write_mode="append")
    ran(path)
    destination_db.execute("DROP TABLE raw._rapidbyte_watermarks")
    failed = rapidbyte("run", path)
    assert failed.returncode == 3
    # The rows are there: going back to the last checkpoint is what repeats none of them.
    assert rapidbyte("state", "rewind", path, "--to", "1").returncode == 0
    add_users(users_db, 101, 110)
    assert ran(path)["rows"] == 10
    assert content(destination_db, "raw.users") == content(users_db, "users")
