"""The `rapidbyte` command as users run it: a process, its output, its exit code."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.cli.command import rapidbyte, start
from tests.pipelines import write_pipeline
from tests.postgres_server import Database
from tests.quick import few

TABLES = """
    CREATE TABLE users (id bigint PRIMARY KEY, email text);
    INSERT INTO users SELECT i, 'user' || i FROM generate_series(1, 500) i;
    CREATE TABLE orders (id int, user_id bigint);
    INSERT INTO orders SELECT i, i FROM generate_series(1, 300) i;
"""


@pytest.fixture
def shop_db(source_db: Database) -> Database:
    source_db.execute(TABLES)
    return source_db


def test_run_moves_every_stream_and_prints_a_table(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    done = rapidbyte("run", write_pipeline(tmp_path, shop_db, destination_db, ["users", "orders"]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "raw.users" in done.stdout
    assert "500" in done.stdout
    assert destination_db.fetch_value("SELECT count(*) FROM raw.orders") == 300


def test_run_of_one_stream_leaves_the_others(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users", "orders"])
    assert rapidbyte("run", path, "--stream", "orders").returncode == 0
    assert destination_db.fetch_value("SELECT to_regclass('raw.users') IS NULL")


def test_run_tells_how_tables_changed(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users", "orders"])
    assert "is new" not in rapidbyte("run", path).stdout
    shop_db.execute("ALTER TABLE users ADD phone text, DROP email")
    done = rapidbyte("run", path)
    assert done.stdout.splitlines()[-1] == "users: column phone (text) is new: it is added"
    assert "warning: users: destination: column email (text) is not in the stream" in done.stderr
    assert "column email" not in done.stdout


def test_json_is_one_object_with_every_stream(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    done = rapidbyte("run", write_pipeline(tmp_path, shop_db, destination_db, ["users", "orders"]), "--json")
    told = json.loads(done.stdout)
    assert (told["pipeline"], told["ok"]) == ("shop", True)
    assert [(s["stream"], s["status"], s["rows"], s["attempts"], s["error"]) for s in told["streams"]] == [
        ("users", "ok", 500, 1, None),
        ("orders", "ok", 300, 1, None),
    ]
    assert all(s["seconds"] > 0 and s["bytes"] > 0 and s["dead_letters"] == 0 for s in told["streams"])


def test_one_failing_stream_does_not_stop_the_others(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users", "missing", "orders"])
    done = rapidbyte("run", path, "--json")
    assert done.returncode == 4
    told = json.loads(done.stdout)
    assert not told["ok"]
    assert [(s["status"], s["attempts"]) for s in told["streams"]] == [("ok", 1), ("failed", 1), ("ok", 1)]
    assert "missing" in told["streams"][1]["error"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("side", "change", "code"),
    [
        ("source", {"password": "wrong"}, 4),
        ("destination", {"password": "wrong"}, 5),
        ("source", {"user": "${NO_SUCH_VARIABLE}"}, 2),
    ],
)
def test_the_exit_code_says_where_it_failed(
    tmp_path: Path, shop_db: Database, destination_db: Database, side: str, change: dict[str, str], code: int
) -> None:
    configs = {"source": shop_db.config, "destination": {**destination_db.config, "schema": "raw"}}
    configs[side].update(change)
    done = rapidbyte("run", write_pipeline(tmp_path, configs["source"], configs["destination"], ["users"]))
    assert done.returncode == code
    assert done.stderr.startswith("Error: ")
    assert "hint: " in done.stderr or "set it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_malformed_file_is_exit_code_2_and_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text("version: '1.0'\npipeline: shop\nsource: [unclosed\n")
    done = rapidbyte("run", path)
    assert done.returncode == 2
    assert "shop.yaml:" in done.stderr


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run"], ["run", "x.yaml", "--no-such-option"]])
def test_a_wrong_command_line_is_exit_code_64(arguments: list[str]) -> None:
    assert rapidbyte(*arguments).returncode == 64


def test_an_unknown_stream_is_exit_code_64_with_a_suggestion(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    done = rapidbyte("run", write_pipeline(tmp_path, shop_db, destination_db, ["users"]), "--stream", "user")
    assert done.returncode == 64
    assert "did you mean 'users'" in done.stderr


def test_a_secret_of_the_environment_is_never_shown(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    config = {**shop_db.config, "user": "${DB_USER}", "password": "${DB_PASSWORD}"}
    path = write_pipeline(tmp_path, config, destination_db, ["users"])
    secrets = {"DB_USER": "no_such_user_7b1", "DB_PASSWORD": "s3cr3t-and-more"}
    for command in (["run"], ["run", "--json"], ["run", "--debug"], ["check"], ["discover", "--debug"]):
        done = rapidbyte(command[0], path, *command[1:], environ=secrets)
        assert done.returncode == 4, done.stderr
        for secret in secrets.values():
            assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize("number", few([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
def test_a_signal_cancels_within_two_seconds(
    tmp_path: Path, shop_db: Database, destination_db: Database, number: signal.Signals
) -> None:
    if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests run under nohup, and so would the command")
    shop_db.execute("CREATE VIEW endless AS SELECT generate_series(1, 1000000000) AS id")
    # One waits for its source, one computes.
    streams = [{"name": "users", "filter": "pg_sleep(0.05) IS NOT NULL"}, {"name": "endless"}]
    resources = {"parallelism": 2}
    process = start("run", write_pipeline(tmp_path, shop_db, destination_db, streams, resources=resources), "--json")
    running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'"
    while shop_db.fetch_value(running) < 2 or not destination_db.fetch_value(running):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    started = time.monotonic()
    out, _ = process.communicate(timeout=20)
    assert time.monotonic() - started < 2.5
    assert process.returncode == 7
    assert [s["status"] for s in json.loads(out)["streams"]] == ["cancelled", "cancelled"]
    databases = [shop_db.name, destination_db.name]
    left = "SELECT count(*) FROM pg_stat_activity WHERE datname = any(%s) AND application_name LIKE 'rapidbyte/%%'"
    while shop_db.fetch_value(left, [databases]):
        assert time.monotonic() - started < 2.5, "a session is left"
        time.sleep(0.02)
    for table in ("users", "endless"):
        assert destination_db.fetch_value(f"SELECT to_regclass('raw.{table}') IS NULL")
    shop_db.execute("CREATE OR REPLACE VIEW endless AS SELECT generate_series(1, 100) AS id")
    assert rapidbyte("run", write_pipeline(tmp_path, shop_db, destination_db, ["users", "endless"])).returncode == 0
    assert destination_db.fetch_value("SELECT count(*) FROM raw.endless") == 100


def test_a_process_that_is_killed_leaves_nothing_half_written(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"], write_mode="replace")
    assert rapidbyte("run", path).returncode == 0
    before = destination_db.fetch("SELECT * FROM raw.users ORDER BY id")
    shop_db.execute("UPDATE users SET email = 'new'")
    # The last row arrives only after a lock is free, so the run is killed with most rows at the destination.
    slow = write_pipeline(
        tmp_path,
        shop_db,
        destination_db,
        [{"name": "users", "filter": "pg_sleep(CASE WHEN id > 490 THEN 1 ELSE 0 END) IS NOT NULL"}],
        write_mode="replace",
    )
    process = start("run", slow)
    time.sleep(3)
    process.kill()
    process.communicate()
    assert destination_db.fetch("SELECT * FROM raw.users ORDER BY id") == before
    assert (
        rapidbyte("run", write_pipeline(tmp_path, shop_db, destination_db, ["users"], write_mode="replace")).returncode
        == 0
    )
    assert destination_db.fetch("SELECT DISTINCT email FROM raw.users") == [("new",)]
    leftovers = "SELECT relname FROM pg_class WHERE relname LIKE '\\_rapidbyte%' AND relkind = 'r'"
    assert destination_db.fetch(leftovers) == [("_rapidbyte_watermarks",)]


def test_check_tells_what_is_fine_and_what_is_not(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    done = rapidbyte("check", write_pipeline(tmp_path, shop_db, destination_db, ["users"]))
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("connected to PostgreSQL 18") == 2, "once per side"
    done = rapidbyte("check", write_pipeline(tmp_path, shop_db, destination_db, ["users", "missing"]))
    assert done.returncode == 4
    assert "missing" in done.stdout
    assert destination_db.fetch("SELECT nspname FROM pg_namespace WHERE nspname = 'raw'") == []


def test_discover_lists_tables_columns_and_keys(tmp_path: Path, shop_db: Database, destination_db: Database) -> None:
    path = write_pipeline(tmp_path, shop_db, destination_db, ["users"])
    done = rapidbyte("discover", path, "--json")
    tables = {table["name"]: table for table in json.loads(done.stdout)["tables"]}
    assert tables["users"]["primary_key"] == ["id"]
    assert [(c["name"], c["type"], c["arrow_type"], c["nullable"]) for c in tables["users"]["columns"]] == [
        ("id", "bigint", "int64", False),
        ("email", "text", "string", True),
    ]
    assert "public.users" in rapidbyte("discover", path).stdout


def test_a_pipeline_file_that_is_a_folder_or_unreadable_is_exit_code_2(tmp_path: Path) -> None:
    assert rapidbyte("check", tmp_path).returncode == 2
    path = tmp_path / "shop.yaml"
    path.write_text("")
    path.chmod(0)
    assert rapidbyte("check", path).returncode == 2


def test_connectors_shows_whole_names_on_a_narrow_terminal() -> None:
    shown = rapidbyte("connectors", environ={"COLUMNS": "80"}).stdout
    assert "source-postgres" in shown
    assert "dest-postgres" in shown


def test_connectors_lists_all_with_their_hash() -> None:
    told = json.loads(rapidbyte("connectors", "--json").stdout)["connectors"]
    assert {c["name"]: c["role"] for c in told} == {
        "source-postgres": "source",
        "dest-postgres": "destination",
        "transform-mask": "transform",
        "transform-sql": "transform",
        "transform-validate": "transform",
    }
    in_host = {c["name"] for c in told if c["sha256"] is None}
    assert in_host == {"transform-sql"}
    assert all(len(c["sha256"]) == 64 for c in told if c["name"] not in in_host)


def test_the_exit_code_stays_the_runs_when_its_output_is_lost(
    tmp_path: Path, shop_db: Database, destination_db: Database
) -> None:
    for streams, code in ((["users"], 0), (["missing"], 4)):
        path = write_pipeline(tmp_path, shop_db, destination_db, streams)
        for option in ("--json", "--stream=" + streams[0]):
            with Path("/dev/full").open("w") as full:
                done = subprocess.run(
                    [sys.executable, "-m", "rapidbyte_dagster.cli", "run", str(path), option],
                    stdout=full,
                    stderr=subprocess.PIPE,
                    text=True,
                    check=False,
                    timeout=60,
                )
            assert done.returncode == code, done.stderr
            assert "could not be printed" in done.stderr
            shutil.rmtree(tmp_path / ".rapidbyte")
            destination_db.execute("DROP SCHEMA IF EXISTS raw CASCADE")
