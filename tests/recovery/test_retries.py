"""What is tried again, how it shows, and what is not: a stream that has finished, because another one failed."""

# No postponed annotations here: Dagster reads those of an op's function.

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster import build_definitions
from rapidbyte_dagster.engine import run_stream
from rapidbyte_dagster.errors import Kind
from rapidbyte_dagster.state import open_state
from tests.integration.assets.project import REPOSITORY, events_of, materialization
from tests.pipelines import make_pipeline, write_pipeline
from tests.postgres_server import Database
from tests.recovery import cells
from tests.recovery.conftest import MakeTrial
from tests.recovery.proxy import Moment, Proxy
from tests.recovery.trial import INTERRUPTED
from tests.recovery.worker import work

WAIT = re.compile(r"attempt (\d+) of (\d+) failed, next in ([0-9.]+) s: (.*)", re.DOTALL)


def test_attempts_their_reasons_and_their_waits_are_told(make_trial: MakeTrial) -> None:
    """The connection breaks at the same place of each of the first two attempts."""
    trial = make_trial(cells.FULL_APPEND, resources={"max_retries": 3})
    trial.prepare()
    trial.run_undisturbed()
    proxy = trial.destination_proxy
    copy = Moment("^COPY ", "answered")
    left = 2

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            proxy.arm(copy, again)

    proxy.arm(copy, again)
    report = work(trial.job())
    assert report.error is None
    assert report.result is not None
    assert (report.result["attempts"], len(report.result["retried"])) == (3, 2)
    assert all("destination" in reason for reason in report.result["retried"])
    told = [found.groups() for message in report.log if (found := WAIT.match(message))]
    assert [(number, of) for number, of, *_ in told] == [("1", "4"), ("2", "4")]
    assert [reason for *_, reason in told] == report.result["retried"]
    waits = [float(wait) for _, _, wait, _ in told]
    # Anything up to the ceiling, which doubles.
    assert all(0 <= wait <= 2**number for number, wait in enumerate(waits))
    with open_state(trial.pipeline, {}) as state:
        assert [(run.status, run.attempts) for run in state.runs(INTERRUPTED, "events", limit=1)] == [("ok", 3)]
    trial.assert_equal()
    trial.assert_settled()


READ, COPIED = r"CREATE TABLE %I\.%I \(LIKE", r"^CREATE TABLE .* \(LIKE"
REPLACED = "CREATE TABLE other (LIKE events INCLUDING ALL); DROP TABLE events; ALTER TABLE other RENAME TO events"


@pytest.mark.parametrize(
    ("statement", "meanwhile", "attempts"),
    [
        pytest.param(READ, REPLACED, 2, id="replaced before it is read"),
        # What is copied is like it; the swap finds out, and the rows are replaced in place.
        pytest.param(COPIED, REPLACED, 1, id="replaced before it is copied"),
        pytest.param(COPIED, "DROP TABLE events", 2, id="dropped before it is copied"),
    ],
)
def test_a_table_that_goes_while_its_shape_is_taken_is_looked_at_again(
    make_trial: MakeTrial, statement: str, meanwhile: str, attempts: int
) -> None:
    trial = make_trial(cells.FULL_REPLACE_SWAP, resources={"max_retries": 1})
    trial.prepare()
    trial.run_undisturbed()

    def strike() -> None:
        trial.destination.execute(f"BEGIN; SET search_path TO {INTERRUPTED}; {meanwhile}; COMMIT")

    trial.destination_proxy.arm(Moment(statement), strike, cuts=False)
    result = trial.run_interrupted()
    assert trial.destination_proxy.struck.is_set()
    assert len(result.retried) == attempts - 1
    assert all("altered by somebody else" in reason for reason in result.retried)
    keys = f"SELECT count(*) FROM pg_index WHERE indrelid = '{INTERRUPTED}.events'::regclass AND indisprimary"
    assert trial.destination.fetch_value(keys) == 1
    trial.assert_equal()
    trial.assert_settled()


@pytest.mark.parametrize("write_mode", ["replace", "upsert"])
def test_a_run_that_is_executed_again_does_not_take_its_first_commit_for_one_that_got_lost(
    tmp_path: Path, source_db: Database, destination_db: Database, write_mode: str
) -> None:
    """As Dagster does when a step fails behind its work: the second execution's COMMIT never arrives."""
    source_db.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")
    with Proxy(destination_db) as proxy:
        config = proxy.config(destination_db, schema="raw")
        pipeline = make_pipeline(tmp_path, source_db, config, ["notes"], write_mode=write_mode)
        with open_state(pipeline, {}) as state:
            run_stream(pipeline, pipeline.streams[0], state=state, run_id="one", environ={})
            source_db.execute("INSERT INTO notes VALUES (2)")
            proxy.arm(Moment("^COMMIT", within="_rapidbyte_watermarks"))
            result = run_stream(pipeline, pipeline.streams[0], state=state, run_id="one", environ={})
    assert (result.attempts, result.rows, result.checkpoint.rows) == (2, 2, 2)
    assert destination_db.fetch("SELECT id FROM raw.notes ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize("write_mode", ["append", "replace", "upsert"])
def test_a_table_that_somebody_else_creates_at_the_same_time_is_found_by_the_next_attempt(
    tmp_path: Path, source_db: Database, destination_db: Database, write_mode: str
) -> None:
    source_db.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")
    destination_db.execute("CREATE SCHEMA raw")
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["notes"], write_mode=write_mode)
    with destination_db.connect() as holder:
        holder.execute("BEGIN; CREATE TABLE raw.notes (id int)")
        released = threading.Timer(2.0, holder.execute, ("COMMIT",))
        released.start()
        with open_state(pipeline, {}) as state:
            result = run_stream(pipeline, pipeline.streams[0], state=state, run_id="one", environ={})
        released.join()
    assert result.attempts == 2
    assert "created by somebody else" in result.retried[0]
    assert destination_db.fetch("SELECT id FROM raw.notes") == [(1,)]


def test_a_run_that_fails_for_good_says_after_how_many_attempts(make_trial: MakeTrial) -> None:
    trial = make_trial(cells.FULL_APPEND, resources={"max_retries": 1})
    trial.prepare()
    proxy = trial.destination_proxy
    begin = Moment("^BEGIN")
    proxy.arm(begin, lambda: proxy.arm(begin))
    report = work(trial.job())
    assert report.error is not None
    assert (report.error["kind"], report.error["retryable"]) == (str(Kind.TRANSIENT_NETWORK), True)
    with open_state(trial.pipeline, {}) as state:
        [run] = state.runs(INTERRUPTED, "events", limit=1)
    assert (run.status, run.attempts) == ("failed", 2)
    trial.run_undisturbed()
    trial.restart()
    trial.assert_equal()


# Two streams of one pipeline

SHOP = """
    CREATE TABLE users (id bigint, email text); INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 500) i;
    CREATE TABLE orders (id bigint, total int); INSERT INTO orders SELECT i, i * 3 FROM generate_series(1, 800) i;
"""
ORDERS_COPY = Moment('^COPY .*"orders"', "answered")


@pytest.fixture
def shop(source_db: Database, destination_db: Database) -> Iterator[tuple[Proxy, Proxy]]:
    source_db.execute(SHOP)
    with Proxy(source_db) as source, Proxy(destination_db) as destination:
        yield source, destination


def write_shop(folder: Path, shop: tuple[Proxy, Proxy], databases: tuple[Database, Database], **options: Any) -> Path:
    (source, destination), (source_db, destination_db) = shop, databases
    return write_pipeline(
        folder,
        source.config(source_db),
        destination.config(destination_db, schema="raw"),
        ["users", "orders"],
        **options,
    )


def copies(proxy: Proxy, table: str) -> int:
    """How often clients wrote, or read, that table."""
    return sum(sql.startswith("COPY") and f'"{table}"' in sql for sql in proxy.statements)


def test_the_command_line_repeats_a_failed_stream_and_no_other(
    tmp_path: Path, shop: tuple[Proxy, Proxy], source_db: Database, destination_db: Database
) -> None:
    source, destination = shop
    path = write_shop(tmp_path, shop, (source_db, destination_db), resources={"max_retries": 2, "parallelism": 1})
    source.arm(ORDERS_COPY)
    done = rapidbyte("run", path, "--json")
    assert done.returncode == 0, done.stderr
    told = {stream["stream"]: stream for stream in json.loads(done.stdout)["streams"]}
    assert (told["users"]["attempts"], told["orders"]["attempts"]) == (1, 2)
    assert "orders: attempt 1 of 3 failed" in done.stderr
    assert_each_row_once(destination_db)
    assert (copies(source, "users"), copies(source, "orders")) == (1, 2)
    assert copies(destination, "users") == 1


def test_the_command_line_keeps_a_finished_stream_when_another_one_fails(
    tmp_path: Path, shop: tuple[Proxy, Proxy], source_db: Database, destination_db: Database
) -> None:
    source, _ = shop
    path = write_shop(tmp_path, shop, (source_db, destination_db), resources={"max_retries": 0})
    source.arm(ORDERS_COPY)
    done = rapidbyte("run", path, "--json")
    assert done.returncode == 4
    assert [stream["status"] for stream in json.loads(done.stdout)["streams"]] == ["ok", "failed"]
    assert copies(source, "users") == 1
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 500
    assert rapidbyte("run", path, "--stream", "orders").returncode == 0
    assert copies(source, "users") == 1
    assert_each_row_once(destination_db)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_dagster_shows_a_repeated_streams_attempts_and_reasons_and_repeats_no_other(
    tmp_path: Path,
    shop: tuple[Proxy, Proxy],
    source_db: Database,
    destination_db: Database,
    instance: dg.DagsterInstance,
) -> None:
    source, destination = shop
    path = write_shop(tmp_path, shop, (source_db, destination_db), resources={"max_retries": 2})
    source.arm(ORDERS_COPY)
    result = build_definitions(path).resolve_job_def("shop_job").execute_in_process(instance=instance)
    assert result.success
    events = events_of(instance, result.run_id)
    users, orders = (materialization(events, f"shop/{stream}") for stream in ("users", "orders"))
    assert (users["attempts"], orders["attempts"]) == (1, 2)
    assert "retried" not in users
    assert "source" in orders["retried"]
    log = [record.user_message for record in instance.all_logs(result.run_id)]
    assert any("attempt 1 of 3 failed" in line for line in log)
    assert_each_row_once(destination_db)
    assert (copies(source, "users"), copies(destination, "users")) == (1, 1)


@pytest.mark.full
def test_dagster_executes_only_the_failed_stream_of_a_run_again(
    tmp_path: Path,
    shop: tuple[Proxy, Proxy],
    source_db: Database,
    destination_db: Database,
    instance: dg.DagsterInstance,
) -> None:
    source, destination = shop
    folder = tmp_path / "pipelines"
    folder.mkdir()
    write_shop(folder, shop, (source_db, destination_db), resources={"max_retries": 0})
    job = dg.build_reconstructable_job(
        "tests.integration.assets.project",
        "job_of",
        reconstructable_kwargs={"pipelines": str(folder), "job": "shop_job"},
        reconstructor_working_directory=str(REPOSITORY),
    )
    source.arm(ORDERS_COPY)
    with dg.execute_job(job, instance) as failed:
        assert not failed.success
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 500
    again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    with dg.execute_job(job, instance, reexecution_options=again) as repeated:
        assert repeated.success
    assert_each_row_once(destination_db)
    assert (copies(source, "users"), copies(destination, "users")) == (1, 1)


def assert_each_row_once(destination: Database) -> None:
    assert destination.fetch("SELECT count(*), count(DISTINCT id) FROM raw.users") == [(500, 500)]
    assert destination.fetch("SELECT count(*), count(DISTINCT id) FROM raw.orders") == [(800, 800)]


def rapidbyte(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rapidbyte_dagster.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
    )
