"""Runs as a running `dagster dev` launches, re-executes and terminates them: what one stream does to the others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster import Checkpoint, load_pipeline
from rapidbyte_dagster.state import open_state
from tests.integration.assets.dagster_dev import DagsterDev
from tests.integration.assets.project import Project, materialized, step_failure
from tests.postgres_server import Database, unique_name

IN_PROCESS: dict[str, Any] = {"execution": {"config": {"in_process": {}}}}

K8S = {"dagster-k8s/config": '{"container_config": {"resources": {"limits": {"cpu": 1}}}}'}

STOP_SECONDS = 2.0
"""From the moment at which a run's processes are told to stop until no session of theirs is left on the server."""
DAGSTER_SECONDS = 3.0
"""From the request to that moment, on a busy machine; Dagster's own. Less than half a second on a quiet one."""
WAIT_SECONDS = 60.0

ROWS = 40
TABLES = f"""
    create table users as select n as id from generate_series(1, {ROWS}) as n;
    create table orders as select n as id from generate_series(1, {ROWS}) as n;
    create table held as select n as id from generate_series(1, {ROWS}) as n;
    create table ticks as select n as id from generate_series(1, 300) as n;
    create table amount as select 1000000000::bigint as n;
    create view numbers as select generate_series(1, (select n from amount)) as id;
"""
SLOW_TICKS = """
    create schema raw;
    create table raw.ticks (id int);
    create function raw.slow() returns trigger language plpgsql as $$ begin
        perform pg_sleep(0.02); return new;
    end $$;
    create trigger slow before insert on raw.ticks for each row execute function raw.slow();
"""


@pytest.fixture(scope="module")
def dev(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    source, destination = (Database(postgres, unique_name(side)) for side in ("source", "destination"))
    for database in (source, destination):
        postgres.create_database(database.name)
    source.execute(TABLES)
    destination.execute(SLOW_TICKS)
    project = Project(tmp_path_factory.mktemp("launched") / "project", source, destination)
    project.create()
    project.variables["SHOP_PASSWORD"] = str(source.config["password"])
    project.add_pipeline("users", "orders", "late")
    # A policy that would begin a terminated step anew.
    retries = {"retry_policy": {"max_retries": 3}}
    often = {"parallelism": 3, "checkpoint_interval_rows": 20, "max_batch_bytes": 512}
    ticks = {"name": "ticks", "sync_mode": "incremental", "cursor_field": "id"}
    masked = {"use": "mask", "streams": ["numbers"], "config": {"salt": "${MASK_SALT}", "columns": {"id": "hash"}}}
    project.variables["MASK_SALT"] = "a salt of these tests"
    project.add_pipeline("numbers", "held", ticks, name="halted", dagster=retries, resources=often, transforms=[masked])
    pool = {"pool": "warehouse", "op_tags": {name: json.loads(value) for name, value in K8S.items()}}
    for name, table in (("first", "users"), ("second", "orders")):
        slow = {"name": table, "table": f"{name}_{table}", "filter": "pg_sleep(0.05) is not null"}
        project.add_pipeline(slow, name=name, dagster=pool)
    with DagsterDev(project) as dev:
        yield dev
    for database in (source, destination):
        postgres.drop_database(database.name)


@pytest.fixture(scope="module")
def failed(dev: DagsterDev) -> str:
    """The id of a run of three streams, one of which has no table; all were told to replace what is there."""
    anew = {"ops": {f"shop__{name}": {"config": {"full_refresh": True}} for name in ("users", "orders", "late")}}
    run = dev.launch("shop_job", config=anew)
    assert dev.wait(run) is dg.DagsterRunStatus.FAILURE
    return run


def events(dev: DagsterDev, run_id: str) -> list[dg.DagsterEvent]:
    return [record.dagster_event for record in dev.events(run_id) if record.dagster_event is not None]


def steps(events: Sequence[dg.DagsterEvent]) -> set[str]:
    """Those that were begun."""
    return {event.step_key for event in events if event.is_step_start and event.step_key}


def tables(events: Sequence[dg.DagsterEvent]) -> set[str]:
    return {key for key in materialized(events) if key.count("/") == 1}


def planned_tags(dev: DagsterDev, run_id: str, step: str) -> Mapping[str, str]:
    """What the run's executor knew of the step."""
    run = dev.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.execution_plan_snapshot_id is not None
    plan = dev.instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    (found,) = [each for each in plan.steps if each.key == step]
    return dict(found.tags or {})


def test_a_failing_stream_fails_its_own_step_and_the_others_stay_materialised(dev: DagsterDev, failed: str) -> None:
    told = events(dev, failed)
    assert tables(told) == {"shop/users", "shop/orders"}
    assert {event.step_key for event in told if event.is_step_failure} == {"shop__late"}
    assert "there is no table public.late" in step_failure(told, "shop__late").description
    assert (dev.project.rows("users"), dev.project.rows("orders")) == (ROWS, ROWS)


def test_a_re_execution_from_failure_or_asset_failure_reads_only_the_failed_stream(
    dev: DagsterDev, failed: str
) -> None:
    source = dev.project.source
    source.execute("create table late as select 1 as id")
    before = reads(source)
    for strategy in ("FROM_ASSET_FAILURE", "FROM_FAILURE"):
        run = dev.reexecute(failed, strategy)
        assert dev.wait(run) is dg.DagsterRunStatus.SUCCESS
        told = events(dev, run)
        assert steps(told) == {"shop__late"}
        assert tables(told) == {"shop/late"}
        assert dev.project.rows("late") == 1
    assert {table for table, number in reads(source).items() if number != before.get(table, 0)} == {"late"}


@pytest.mark.full
def test_a_selection_with_run_config_reads_only_what_is_selected(dev: DagsterDev, failed: str) -> None:
    before = reads(dev.project.source)
    anew = {"ops": {"shop__users": {"config": {"reset": True}}}}
    run = dev.launch("shop_job", assets=["shop/users"], config={**IN_PROCESS, **anew})
    assert dev.wait(run) is dg.DagsterRunStatus.SUCCESS
    told = events(dev, run)
    assert steps(told) == {"shop__users"}
    assert materialized(told) == {"shop/users"}
    assert (dev.project.rows("users"), dev.project.rows("orders")) == (2 * ROWS, ROWS)
    after = reads(dev.project.source)
    assert {table for table, number in after.items() if number != before[table]} == {"users"}


@pytest.mark.full
def test_tags_of_the_file_reach_the_executor_and_its_pool_bounds_the_streams_of_two_runs(dev: DagsterDev) -> None:
    dev.instance.event_log_storage.set_concurrency_slots("warehouse", 1)
    runs = [dev.launch(f"{name}_job", config=IN_PROCESS) for name in ("first", "second")]
    spans = []
    for run in runs:
        assert dev.wait(run) is dg.DagsterRunStatus.SUCCESS
        (step,) = steps(events(dev, run))
        assert K8S.items() <= planned_tags(dev, run, step).items(), "an executor is not told"
        moments = {
            record.dagster_event.event_type: record.timestamp
            for record in dev.events(run)
            if record.dagster_event is not None and record.dagster_event.step_key == step
        }
        spans.append((moments[dg.DagsterEventType.STEP_START], moments[dg.DagsterEventType.STEP_SUCCESS]))
    earlier, later = sorted(spans)
    assert earlier[1] <= later[0], "both ran at once"


def test_a_terminated_run_stops_streams_that_compute_and_that_wait_and_the_next_one_completes(dev: DagsterDev) -> None:
    project = dev.project
    with held_table(project) as sessions:
        # One of them computes, in its transform too; one waits for its source, one for its destination.
        run = dev.launch("halted_job")
        wait_until("all three are at work", lambda: sessions() >= 5 and checkpoint(project) is not None)
        assert_terminated_in_time(dev, run, sessions)
        assert {event.step_key for event in events(dev, run) if event.is_step_failure} == {
            f"halted__{name}" for name in ("numbers", "held", "ticks")
        }
        assert is_empty(project, "numbers")
        assert is_empty(project, "held")
        assert_checkpoint_is_what_is_there(project)

        run = dev.launch("halted_job", assets=["halted/numbers"], config=IN_PROCESS)
        wait_until("the stream is at work", lambda: sessions() >= 2)
        assert_terminated_in_time(dev, run, sessions)
        assert is_empty(project, "numbers")
    project.source.execute(f"update amount set n = {ROWS}")
    project.destination.execute("drop trigger slow on raw.ticks")
    run = dev.launch("halted_job", config=IN_PROCESS)
    assert dev.wait(run) is dg.DagsterRunStatus.SUCCESS
    for table, rows in (("numbers", ROWS), ("held", ROWS), ("ticks", 300)):
        query = f"select count(*), count(distinct id) from raw.{table}"
        assert project.destination.fetch(query) == [(rows, rows)], table
    assert_checkpoint_is_what_is_there(project)


def assert_terminated_in_time(dev: DagsterDev, run: str, sessions: Callable[[], int]) -> None:
    asked = time.time()
    gone_at: list[float] = []

    def watch() -> None:
        wait_until("no session is left", lambda: not sessions(), pause=0.02)
        gone_at.append(time.time())

    watcher = threading.Thread(target=watch)
    watcher.start()
    dev.terminate(run)
    watcher.join()
    assert dev.wait(run) is dg.DagsterRunStatus.CANCELED
    told = [record for record in dev.events(run) if record.timestamp >= asked]
    # The run's process says so before it tells those of its steps; in one process the step itself is interrupted.
    stopped = min(
        record.timestamp
        for record in told
        if (event := record.dagster_event) is not None
        and (event.is_step_failure or "received termination signal" in (event.message or ""))
    )
    (gone,) = gone_at
    assert gone - stopped < STOP_SECONDS
    assert stopped - asked < DAGSTER_SECONDS
    assert not [event for event in events(dev, run) if event.is_step_up_for_retry]
    assert materialized(events(dev, run)) == set()


@contextmanager
def held_table(project: Project) -> Iterator[Callable[[], int]]:
    """Nobody else reads the table meanwhile. Gives what counts the sessions of runs in the project's databases."""
    query = "select count(*) from pg_stat_activity where datname = any(%s) and pid <> all(%s)"
    with project.source.connect() as holder, project.source.connect(superuser=True) as watch, holder.transaction():
        holder.execute("lock table held in access exclusive mode")
        names = [project.source.name, project.destination.name]
        own = [holder.info.backend_pid, watch.info.backend_pid]
        yield lambda: watch.execute(query, [names, own]).fetchall()[0][0]


def wait_until(what: str, holds: Callable[[], bool], *, pause: float = 0.1) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s in vain: {what}"
        time.sleep(pause)


def reads(source: Database) -> Mapping[str, int]:
    """How often each table was read from its beginning to its end."""
    source.execute("select pg_stat_force_next_flush()")
    return dict(source.fetch("select relname, coalesce(seq_scan, 0) from pg_stat_user_tables"))


def is_empty(project: Project, table: str) -> bool:
    missing = project.destination.fetch_value(f"select to_regclass('raw.{table}') is null")
    return bool(missing) or project.rows(table) == 0


def checkpoint(project: Project) -> Checkpoint | None:
    pipeline = load_pipeline(Path(project.pipelines / "halted.yaml"))
    with open_state(pipeline, project.environ) as state:
        return state.latest_checkpoint("halted", "ticks")


def assert_checkpoint_is_what_is_there(project: Project) -> None:
    """The cursor that is kept is that of the last row at the destination, and no row came without its checkpoint."""
    found = checkpoint(project)
    assert found is not None
    assert found.cursor is not None
    [(rows, highest)] = project.destination.fetch("select count(*), max(id) from raw.ticks")
    assert rows == highest == int(found.cursor["value"])
