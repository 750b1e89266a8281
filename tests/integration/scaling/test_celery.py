"""The same definitions spread over two workers of Celery's, with the state store in PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import yaml

from rapidbyte_dagster import load_pipeline
from rapidbyte_dagster.state import open_state
from tests.integration.assets.project import Project, events_of, materialized
from tests.integration.scaling.celery_job import RUN_CONFIG
from tests.postgres_server import Database, MakeDatabase

WORKERS = ("one", "two")
TABLES = ("users", "orders", "parts", "visits")
PATIENCE_SECONDS = 60.0


class Workers:
    """Two of Dagster's Celery workers, each with one process for steps."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Workers:
        config = self._project.folder / "celery.yaml"
        config.write_text(yaml.safe_dump(RUN_CONFIG))
        for name in WORKERS:
            words = ["worker", "start", "-A", "dagster_celery.app", "-y", str(config), "-n", name, "--"]
            # They need not know of each other, and the broker's tables carry no broadcasts.
            alone = ["--concurrency", "1", "--without-gossip", "--without-mingle", "--without-heartbeat"]
            with (self._project.folder / f"{name}.log").open("wb") as log:
                self._started[name] = subprocess.Popen(
                    [str(Path(sys.executable).with_name("dagster-celery")), *words, *alone],
                    cwd=self._project.folder,
                    # The command of the worker's start looks for `celery` there.
                    env={**self._project.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._started.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


@pytest.fixture
def project(tmp_path: Path, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> Project:
    source, destination, state, broker = (make_database(name) for name in ("source", "destination", "state", "broker"))
    for table in TABLES:
        source.execute(f"create table {table} as select n as id from generate_series(1, 1000) as n")
    project = Project(tmp_path / "project", source, destination)
    project.create()
    config = broker.config
    url = "postgresql+psycopg://{user}:{password}@{host}:{port}/{database}".format(**config)
    project.variables.update(
        SHOP_PASSWORD=str(source.config["password"]), STATE_DSN=state.dsn, BROKER=f"sqla+{url}", RESULTS=f"db+{url}"
    )
    for name, value in {**project.variables, "DAGSTER_HOME": str(project.dagster_home)}.items():
        monkeypatch.setenv(name, value)
    project.add_pipeline(*TABLES, state={"backend": "postgres", "connection": "${STATE_DSN}"})
    return project


@contextlib.contextmanager
def locked(database: Database, *tables: str) -> Iterator[dict[str, Callable[[], None]]]:
    """Nobody reads them, until what is returned for a table is called."""
    held: dict[str, Callable[[], None]] = {}
    with contextlib.ExitStack() as stack:
        for table in tables:
            connection = stack.enter_context(contextlib.closing(psycopg.connect(database.dsn)))
            connection.execute(f"lock table {table} in access exclusive mode".encode())
            held[table] = connection.rollback
        yield held


def waiting(database: Database) -> set[str]:
    """The tables that streams wait for."""
    found = database.fetch("select relation::regclass::text from pg_locks where relation is not null and not granted")
    return {name for (name,) in found} & set(TABLES)


def wait_for(what: str, holds: Callable[[], bool], project: Project) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            logs = "\n".join((project.folder / f"{name}.log").read_text()[-3000:] for name in WORKERS)
            pytest.fail(f"waited in vain: {what}\n{logs}")
        time.sleep(0.1)


def workers_of(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """Which worker took each step."""
    taken = {}
    for event in events_of(instance, run_id):
        for name, value in event.engine_event_data.metadata.items() if event.is_engine_event else ():
            if name == "Celery worker" and event.step_key is not None:
                taken[event.step_key.removeprefix("shop__")] = str(value.value).partition("@")[0]
    return taken


@contextlib.contextmanager
def executing(project: Project, *parent: str) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-m", "tests.integration.scaling.celery_job", str(project.pipelines), *parent]
    with (project.folder / "run.log").open("ab") as log:
        run = subprocess.Popen(words, env=project.environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def test_streams_are_spread_over_workers_and_one_that_is_killed_is_taken_up_by_the_next_execution(
    project: Project,
) -> None:
    source = project.source
    with (
        dg.DagsterInstance.get() as instance,
        # Streams wait until the test lets them go: what happens when is not left to chance.
        locked(source, *TABLES) as let_go,
    ):
        # Makes the tables of the instance, which two workers would race to create.
        instance.get_runs_count()
        with Workers(project):
            with executing(project) as run:
                wait_for("both workers are at work", lambda: len(waiting(source)) == 2, project)
                completed = waiting(source)
                for table in completed:
                    let_go[table]()
                wait_for("both have gone on", lambda: waiting(source) == set(TABLES) - completed, project)
                (first,) = instance.get_runs()
                taken = workers_of(instance, first.run_id)
                assert {taken[table] for table in completed} == set(WORKERS)
                killed, completed_later = sorted(waiting(source))
                # As the kernel does when memory is short: the process that executes it is gone, its worker is not.
                os.kill(process_of(instance, first, killed), signal.SIGKILL)
                let_go[completed_later]()
                assert run.wait(PATIENCE_SECONDS) == 1
            assert tables_of(instance, first) == set(TABLES) - {killed}
            # Nobody tells a worker to leave what it has begun: the stream has to notice by itself.
            with executing(project, first.run_id) as run:
                wait_for("the stream is taken up", lambda: waiting(source) == {killed}, project)
                (second,) = (found for found in instance.get_runs() if found.run_id != first.run_id)
                # As a run launcher terminates a run: it is marked, then its process is told.
                instance.report_run_canceling(second)
                run.send_signal(signal.SIGTERM)
                wait_for("the stream has stopped", lambda: not waiting(source), project)
                run.wait(PATIENCE_SECONDS)
            ended = instance.get_run_by_id(second.run_id)
            assert ended is not None
            assert ended.status is dg.DagsterRunStatus.CANCELED
            let_go[killed]()
            with executing(project, second.run_id) as run:
                assert run.wait(PATIENCE_SECONDS) == 0, (project.folder / "run.log").read_text()
        (third,) = (found for found in instance.get_runs() if found.run_id not in (first.run_id, second.run_id))
        assert set(workers_of(instance, third.run_id)) == tables_of(instance, third) == {killed}
    # They are appended to: what was moved twice would be there twice.
    assert {table: project.rows(table) for table in TABLES} == dict.fromkeys(TABLES, 1000)
    with open_state(load_pipeline(project.pipelines / "shop.yaml"), project.variables) as state:
        checkpoints = [state.latest_checkpoint("shop", table) for table in TABLES]
    assert [found.run_id for found in checkpoints if found is not None] == [
        third.run_id if table == killed else first.run_id for table in TABLES
    ]


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun, table: str) -> int:
    """The process that executes the table's step."""
    (pid,) = (
        event.pid
        for event in events_of(instance, run.run_id)
        if event.is_step_start and event.step_key == f"shop__{table}"
    )
    assert pid is not None
    return pid


def tables_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """Those that `run` has materialised."""
    keys = (key.split("/") for key in materialized(events_of(instance, run.run_id)))
    return {parts[1] for parts in keys if len(parts) == 2}
