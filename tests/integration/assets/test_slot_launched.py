"""A slot's sensor in a running `dagster dev`: runs come and go by themselves, one after the other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.assets.op_options import SLOT_TAG
from tests.integration.assets.dagster_dev import DagsterDev
from tests.integration.assets.project import Project, materialized
from tests.postgres_server import Database, unique_name

SLOT = "rapidbyte_live"
TAG = "live__cdc"
WAIT_SECONDS = 90.0
STOP_SECONDS = 10.0
"""From the request to terminate a run until its session has left the slot; two seconds and Dagster's own."""


@pytest.fixture(scope="module")
def dev(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    source, destination = (Database(postgres, unique_name(side)) for side in ("source", "destination"))
    for database in (source, destination):
        postgres.create_database(database.name)
    source.execute("create table users (id int primary key, visits int not null default 0)")
    source.execute("create table orders (id int primary key)")
    project = Project(tmp_path_factory.mktemp("live") / "project", source, destination)
    project.create()
    project.variables["SHOP_PASSWORD"] = str(source.config["password"])
    streams = [{"name": name, "sync_mode": "cdc"} for name in ("users", "orders")]
    project.add_pipeline(*streams, name="live", write_mode="upsert", cdc={"sensor": "running", "interval": "1s"})
    with DagsterDev(project) as dev:
        yield dev
    for database in (source, destination):
        postgres.drop_database(database.name)


def wait_until(what: str, holds: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


def is_mirrored(project: Project) -> bool:
    if project.destination.fetch_value("select to_regclass('raw.users') is null"):
        return False
    query = "select count(*), sum(id::int8 * 1000 + visits) from {}"
    there = project.destination.fetch(query.format("raw.users"))
    return there == project.source.fetch(query.format("users"))


def runs_of_slot(dev: DagsterDev) -> list[dg.RunRecord]:
    """Oldest first."""
    return list(reversed(dev.instance.get_run_records(dg.RunsFilter(tags={SLOT_TAG: TAG}))))


def is_read(project: Project) -> bool:
    query = "select coalesce(bool_or(active), false) from pg_replication_slots where slot_name = %s"
    return bool(project.source.fetch_value(query, [SLOT]))


def tick_messages(dev: DagsterDev) -> list[str]:
    """Newest first, of those that started nothing."""
    (state,) = dev.instance.all_instigator_state()
    ticks = dev.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=20)
    return [tick.skip_reason for tick in ticks if tick.skip_reason]


def test_a_running_sensor_keeps_a_table_in_step_by_runs_that_never_overlap(dev: DagsterDev) -> None:
    project = dev.project
    # The first run makes the slot and an empty table.
    wait_until("the table is there", lambda: is_mirrored(project))
    for number in range(12):
        project.source.execute(
            "insert into users values (%s); select pg_stat_force_next_flush()".replace("%s", str(number))
        )
        project.source.execute("update users set visits = visits + 1")
        time.sleep(0.2)
    wait_until("all changes have arrived", lambda: is_mirrored(project))
    runs = runs_of_slot(dev)
    assert len(runs) >= 2
    wait_until("the last run has ended", lambda: all(run.end_time for run in runs_of_slot(dev)))
    spans = [(run.start_time or 0, run.end_time or 0, run.dagster_run.status) for run in runs_of_slot(dev)]
    assert {status for _, _, status in spans} == {dg.DagsterRunStatus.SUCCESS}
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans)), spans
    wait_until("a tick finds nothing", lambda: any("Nothing to read" in said for said in tick_messages(dev)))


@pytest.mark.full
def test_a_re_execution_from_asset_failure_captures_only_the_stream_that_stopped(dev: DagsterDev) -> None:
    project = dev.project
    wait_until("the tables are there", lambda: is_mirrored(project))
    project.destination.execute("alter table raw.orders add constraint low check (id < 100)")
    project.source.execute("insert into orders values (100); insert into users values (2000)")
    project.source.execute("select pg_stat_force_next_flush()")
    failure = dg.DagsterRunStatus.FAILURE

    def failed() -> list[str]:
        return [run.dagster_run.run_id for run in runs_of_slot(dev) if run.dagster_run.status is failure]

    wait_until("the sensor's run has failed", lambda: bool(failed()))
    (run,) = failed()
    assert tables(dev, run) == {"live/users"}
    assert is_mirrored(project)
    project.destination.execute("alter table raw.orders drop constraint low")
    again = dev.reexecute(run, "FROM_ASSET_FAILURE")
    assert dev.wait(again) is dg.DagsterRunStatus.SUCCESS
    assert tables(dev, again) == {"live/orders"}
    assert project.rows("orders") == 1


def tables(dev: DagsterDev, run: str) -> set[str]:
    """Those that the run has materialised."""
    told = [record.dagster_event for record in dev.events(run) if record.dagster_event is not None]
    return {key for key in materialized(told) if key.count("/") == 1}


@pytest.mark.full
def test_a_terminated_tail_leaves_the_slot_and_the_sensor_has_waited_for_it(dev: DagsterDev) -> None:
    project = dev.project
    wait_until("the table is there", lambda: is_mirrored(project))
    wait_until("no run goes on", lambda: all(run.end_time for run in runs_of_slot(dev)))
    run = dev.launch("live__cdc_job", config={"ops": {TAG: {"config": {"tail_seconds": 600.0}}}})
    wait_until("it reads from the slot", lambda: is_read(project))
    before = len(runs_of_slot(dev))
    project.source.execute("insert into users values (1000); select pg_stat_force_next_flush()")
    wait_until("the tail has applied it", lambda: is_mirrored(project))
    wait_until("the sensor waits", lambda: f"Run {run[:8]} is started" in tick_messages(dev)[0])
    assert len(runs_of_slot(dev)) == before
    dev.terminate(run)
    wait_until("the slot is free", lambda: not is_read(project), STOP_SECONDS)
    assert dev.wait(run) is dg.DagsterRunStatus.CANCELED
    wait_until("the sensor backs off", lambda: "was canceled: the next try is in" in tick_messages(dev)[0])
