"""Pipelines whose state is in PostgreSQL: several machines run them, Dagster shows them, the server may go away."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster import Checkpoint, build_pipeline_assets, default_resources
from rapidbyte_dagster.config import Pipeline, load_pipeline
from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.errors import DestinationError, RapidbyteError
from rapidbyte_dagster.state import open_state
from tests.integration.assets.project import Project
from tests.pipelines import make_pipeline, run, write_pipeline
from tests.postgres_server import Database, MakeDatabase
from tests.quick import few

STATE = {"backend": "postgres", "connection": "${STATE_DSN}"}

SLOW = "pg_sleep(0.05) is not null"
"""As a filter: so long per row, on the source's server."""


@pytest.fixture
def users_db(source_db: Database) -> Database:
    source_db.execute("CREATE TABLE users AS SELECT i AS id, 'user' || i AS name FROM generate_series(1, 100) i")
    return source_db


@pytest.fixture
def state_db(make_database: MakeDatabase) -> Database:
    return make_database("state")


@pytest.fixture
def environ(state_db: Database) -> dict[str, str]:
    return {"STATE_DSN": state_db.dsn}


def _run_elsewhere(path: Path, environ: dict[str, str], answers: Any) -> None:
    try:
        answers.put(run(load_pipeline(path), environ=environ).checkpoint.sequence)
    except RapidbyteError as error:
        answers.put((type(error).__name__, str(error)))


def elsewhere(path: Path, environ: dict[str, str]) -> Any:
    """What a run in a process of its own came to: the sequence of its checkpoint, or its error."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_run_elsewhere, args=(path, environ, answers))
    process.start()
    answer = answers.get(timeout=60)
    process.join(60)
    return answer


@pytest.mark.parametrize(
    ("write_mode", "rows"), [("append", 400), pytest.param("replace", 100, marks=pytest.mark.full)]
)
def test_two_machines_take_turns_on_one_pipeline(
    tmp_path: Path,
    users_db: Database,
    destination_db: Database,
    environ: dict[str, str],
    write_mode: str,
    rows: int,
) -> None:
    paths = []
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        path = write_pipeline(
            tmp_path / machine, users_db, destination_db, ["users"], write_mode=write_mode, state=STATE
        )
        paths.append(path)
    assert [elsewhere(paths[turn % 2], environ) for turn in range(4)] == [1, 2, 3, 4]
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == rows
    with open_state(load_pipeline(paths[0]), environ) as state:
        checkpoints = state.checkpoints("shop", "users")
        assert [c.sequence for c in checkpoints] == [4, 3, 2, 1]
        assert len({c.run_id for c in checkpoints}) == 4
        assert [(r.status, r.rows) for r in state.runs("shop", "users")] == [("ok", 100)] * 4
        assert len(state.schema_state("shop", "users").versions) == 1
    assert not list(tmp_path.rglob("*.db"))


def test_a_state_that_is_lost_follows_the_destination(
    tmp_path: Path, users_db: Database, destination_db: Database, state_db: Database, environ: dict[str, str]
) -> None:
    pipeline = make_pipeline(tmp_path, users_db, destination_db, ["users"], write_mode="replace", state=STATE)
    run(pipeline, environ=environ)
    state_db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert run(pipeline, environ=environ).checkpoint.sequence == 2


class InBackground:
    """A run in a thread; leaving the block waits for it."""

    def __init__(self, pipeline: Pipeline, environ: dict[str, str]) -> None:
        self.result: StreamResult | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(pipeline, environ))

    def _run(self, pipeline: Pipeline, environ: dict[str, str]) -> None:
        try:
            self.result = run(pipeline, environ=environ)
        except BaseException as error:  # noqa: BLE001  a thread's edge
            self.failure = error

    def __enter__(self) -> InBackground:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def wait_for_row(database: Database, query: str) -> None:
    deadline = time.monotonic() + 30
    while not database.fetch(query):
        assert time.monotonic() < deadline, query
        time.sleep(0.02)


def wait_until_it_reads(source: Database) -> None:
    reading = "datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%pg_sleep%'"
    wait_for_row(source, f"SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND {reading}")


@pytest.mark.full
@pytest.mark.parametrize("write_mode", ["append", pytest.param("replace", marks=pytest.mark.full)])
def test_a_second_run_of_a_stream_fails_clearly_while_the_first_takes_long(
    tmp_path: Path, users_db: Database, destination_db: Database, environ: dict[str, str], write_mode: str
) -> None:
    users_db.execute("INSERT INTO users SELECT i, 'more' FROM generate_series(101, 130) i")
    slow = {"name": "users", "filter": SLOW}
    pipeline = make_pipeline(tmp_path, users_db, destination_db, [slow], write_mode=write_mode, state=STATE)
    with InBackground(pipeline, environ) as first:
        wait_until_it_reads(users_db)
        with pytest.raises(DestinationError, match="another run"):
            run(pipeline, environ=environ)
    assert first.failure is None
    assert first.result is not None
    assert first.result.checkpoint.sequence == 1
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 130
    with open_state(pipeline, environ) as state:
        assert sorted(r.status for r in state.runs("shop", "users")) == ["failed", "ok"]
        assert [c.sequence for c in state.checkpoints("shop", "users")] == [1]
    quick = make_pipeline(tmp_path, users_db, destination_db, ["users"], write_mode=write_mode, state=STATE)
    assert run(quick, environ=environ).checkpoint.sequence == 2


def test_a_second_run_waits_for_a_first_that_is_about_to_end(
    tmp_path: Path, users_db: Database, destination_db: Database, environ: dict[str, str]
) -> None:
    slow = {"name": "users", "filter": f"id > 60 AND {SLOW}"}
    pipeline = make_pipeline(tmp_path, users_db, destination_db, [slow], state=STATE)
    with InBackground(pipeline, environ) as first:
        wait_until_it_reads(users_db)
        second = run(pipeline, environ=environ)
    assert first.result is not None
    assert (first.result.checkpoint.sequence, second.checkpoint.sequence) == (1, 2)
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 80


@pytest.mark.parametrize("outage", few([True, False]))
def test_a_state_server_that_restarts_meanwhile_costs_no_row(
    tmp_path: Path, users_db: Database, destination_db: Database, own_postgres: EmbeddedPostgres, outage: bool
) -> None:
    own_postgres.create_database("state")
    environ = {"STATE_DSN": own_postgres.dsn("state")}
    slow = {"name": "users", "filter": f"id > 70 AND {SLOW}"}
    resources = {"max_retries": 20}
    pipeline = make_pipeline(tmp_path, users_db, destination_db, [slow], state=STATE, resources=resources)
    with InBackground(pipeline, environ) as background:
        wait_until_it_reads(users_db)
        own_postgres.crash()
        if outage:
            # The first attempt ends within: its checkpoint cannot be prepared, and it must not commit.
            time.sleep(3)
        own_postgres.start()
    assert background.failure is None
    assert background.result is not None
    # A server that is slow to come back may cost an attempt as well.
    assert background.result.attempts > 1 or not outage
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 30
    with open_state(pipeline, environ) as state:
        (record,) = state.runs("shop", "users")
        assert (record.status, record.rows, record.attempts) == ("ok", 30, background.result.attempts)
        assert [(c.rows, c.run_id) for c in state.checkpoints("shop", "users")] == [(30, record.run_id)]


def test_a_state_server_that_goes_away_between_commit_and_finalise_costs_no_row(
    tmp_path: Path, users_db: Database, destination_db: Database, own_postgres: EmbeddedPostgres
) -> None:
    own_postgres.create_database("state")
    environ = {"STATE_DSN": own_postgres.dsn("state")}
    destination_db.execute(
        "CREATE SCHEMA raw; CREATE TABLE raw.users (id int, name text);"
        " CREATE FUNCTION raw.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';"
        " CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON raw.users DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION raw.slow()"
    )
    pipeline = make_pipeline(
        tmp_path,
        users_db,
        destination_db,
        [{"name": "users", "filter": "id = 1"}],
        state=STATE,
        resources={"max_retries": 20},
    )
    with InBackground(pipeline, environ) as background:
        committing = "datname = current_database() AND wait_event = 'PgSleep'"
        wait_for_row(destination_db, f"SELECT 1 FROM pg_stat_activity WHERE {committing}")
        own_postgres.crash()
        wait_for_row(destination_db, "SELECT 1 FROM raw.users")
        time.sleep(0.5)
        own_postgres.start()
    assert background.failure is None
    assert background.result is not None
    assert background.result.attempts > 1
    assert destination_db.fetch("SELECT * FROM raw.users") == [(1, "user1")]
    with open_state(pipeline, environ) as state:
        assert [(c.sequence, c.rows) for c in state.checkpoints("shop", "users")] == [(1, 1)]


def test_nothing_of_the_connection_string_is_in_a_runs_error_or_record(
    tmp_path: Path, users_db: Database, destination_db: Database, state_db: Database, environ: dict[str, str]
) -> None:
    # The destination is where the state is, so that its errors have the same words in them.
    destination = {**state_db.config, "password": "wrong-one", "user": "${WHO}"}
    pipeline = make_pipeline(tmp_path, users_db, destination, ["users"], state=STATE)
    with pytest.raises(DestinationError) as caught:
        run(pipeline, environ={**environ, "WHO": environ["STATE_DSN"]})
    assert str(state_db.config["password"]) not in str(caught.value)
    with open_state(pipeline, environ) as state:
        (record,) = state.runs("shop", "users")
        assert str(state_db.config["password"]) not in str(record.error)


@pytest.mark.parametrize(
    ("dsn", "exit_code", "told"),
    [
        (None, 2, "environment variable STATE_DSN is not set"),
        ("hunter2 alone", 2, "expands to no connection string"),
        ("postgresql://etl:hunter2@127.0.0.1:1/state", 6, "cannot be reached: Connection refused"),
    ],
)
def test_the_command_line_tells_what_is_wrong_with_the_store_by_its_exit_code(
    tmp_path: Path, users_db: Database, destination_db: Database, dsn: str | None, exit_code: int, told: str
) -> None:
    path = write_pipeline(tmp_path, users_db, destination_db, ["users"], state=STATE)
    environ = {**os.environ, **({} if dsn is None else {"STATE_DSN": dsn})}
    command = [sys.executable, "-m", "rapidbyte_dagster.cli", "run", str(path)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == exit_code, done.stderr
    assert told in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


class TestDagster:
    @pytest.fixture
    def project(self, tmp_path: Path, users_db: Database, destination_db: Database, environ: dict[str, str]) -> Project:
        project = Project(tmp_path / "project", users_db, destination_db)
        project.create()
        project.variables.update(environ, SHOP_PASSWORD=str(users_db.config["password"]))
        return project

    def test_a_run_keeps_its_assets_in_the_shared_store(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in project.variables.items():
            monkeypatch.setenv(name, value)
        pipeline = load_pipeline(project.add_pipeline("users", write_mode="replace", state=STATE))
        loaded: list[object] = []

        @dg.asset(ins={"checkpoint": dg.AssetIn(dg.AssetKey(["shop", "users", "checkpoint"]))})
        def report(checkpoint: Any) -> None:
            loaded.append(checkpoint)

        result = dg.materialize([*build_pipeline_assets(pipeline), report], resources=default_resources())
        assert result.success
        (checkpoint,) = loaded
        assert isinstance(checkpoint, Checkpoint)
        assert (checkpoint.sequence, checkpoint.rows, checkpoint.run_id) == (1, 100, result.run_id)
        assert not list(project.folder.rglob("state.db"))

    @pytest.mark.full
    def test_the_command_line_runs_it_in_processes_of_their_own(self, project: Project) -> None:
        project.add_pipeline("users", write_mode="replace", state=STATE)
        for _ in range(2):
            ran = project.dagster("job", "execute", "-f", "definitions.py", "-j", "shop_job")
            assert ran.returncode == 0, ran.stderr
        pipeline = load_pipeline(project.pipelines / "shop.yaml")
        with open_state(pipeline, project.variables) as state:
            assert [c.sequence for c in state.checkpoints("shop", "users")] == [2, 1]
        assert project.rows("users") == 100

    def test_a_store_that_cannot_be_reached_fails_the_step_without_its_address(self, project: Project) -> None:
        project.add_pipeline("users", write_mode="replace", state=STATE)
        project.variables["STATE_DSN"] = "postgresql://etl:hunter2-very-secret@127.0.0.1:1/s3cr3t"
        ran = project.dagster("job", "execute", "-f", "definitions.py", "-j", "shop_job")
        assert ran.returncode != 0
        shown = ran.stdout + ran.stderr
        assert "the PostgreSQL state store cannot be reached: Connection refused" in shown
        assert "hunter2" not in shown
        assert "s3cr3t" not in shown
