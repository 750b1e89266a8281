"""A slot's sensor and its health check over a real source: what a tick sees, and what it says."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER
from rapidbyte_dagster.assets import slot_sensor, slot_watch
from rapidbyte_dagster.assets.slot_runs import CHANGES_TAG
from tests.integration.assets.project import Project, materialization
from tests.postgres_server import Database

SLOT = "rapidbyte_shop"
JOB = "shop__cdc_job"
KEY = dg.AssetKey(["shop", "cdc", "slot"])
HEALTH = dg.AssetCheckKey(KEY, "slot_health")


class Watched:
    """A pipeline of two captured tables, its sensor, and what its ticks said."""

    def __init__(self, project: Project, instance: dg.DagsterInstance, **options: Any) -> None:
        self.project = project
        self.instance = instance
        captured = [{"name": name, "sync_mode": "cdc"} for name in ("users", "orders")]
        project.add_pipeline(*captured, write_mode="upsert", **options)
        self.definitions = project.definitions()
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        (sensor,) = self.definitions.sensors or ()
        assert isinstance(sensor, dg.SensorDefinition)
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, definitions=self.definitions
        ) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        # A tick that fails keeps the cursor of the one before.
        self.cursor = result.cursor
        return result

    def skips(self) -> str:
        """The reason of a tick that starts nothing."""
        result = self.tick()
        assert not result.run_requests
        assert isinstance(result.skip_reason, dg.SkipReason)
        assert result.skip_reason.skip_message is not None
        return result.skip_reason.skip_message

    def asks_for_a_run(self) -> dg.RunRequest:
        (request,) = self.tick().run_requests or ()
        return request

    def run(self, request: dg.RunRequest | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        tags = dict(request.tags) if request else None
        job = self.definitions.resolve_job_def(JOB)
        return job.execute_in_process(instance=self.instance, tags=tags, **options)

    def settle(self) -> None:
        """Until the server's statistics know of what was committed, and a run has read it."""
        self.project.source.execute("select pg_stat_force_next_flush()")
        while (result := self.tick()).run_requests:
            assert self.run(result.run_requests[0]).success

    def change(self, sql: str) -> None:
        """Changes rows, and lets the server count them at once, which may otherwise take it seconds."""
        self.project.source.execute(f"{sql}; select pg_stat_force_next_flush()")

    def health(self) -> dg.AssetCheckEvaluation:
        """Of the check executed alone."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        result = job.get_subset(asset_selection=set(), asset_check_selection={HEALTH}).execute_in_process(
            instance=self.instance
        )
        (found,) = result.get_asset_check_evaluations()
        return found


@pytest.fixture
def watched(project: Project, instance: dg.DagsterInstance) -> Watched:
    return Watched(project, instance)


@pytest.fixture
def settled(watched: Watched) -> Watched:
    """One of which everything is read."""
    assert watched.run(watched.asks_for_a_run()).success
    watched.settle()
    return watched


def test_changes_start_runs_until_all_is_read(watched: Watched) -> None:
    project = watched.project
    first = watched.asks_for_a_run()
    assert watched.run(first).success
    assert (project.rows("users"), project.rows("orders")) == (1000, 5000)
    watched.settle()
    said = watched.skips()
    assert said.startswith("Nothing to read. Behind by ")
    assert said.endswith("; no change waits.")

    watched.change("insert into users values (1001, 'new@example.com'); delete from orders where id <= 10")
    request = watched.asks_for_a_run()
    assert request.run_key not in (None, first.run_key)
    assert request.tags[CHANGES_TAG] != first.tags[CHANGES_TAG]
    result = watched.run(request)
    assert result.success
    assert (project.rows("users"), project.rows("orders")) == (1001, 4990)
    told = materialization(result.all_events, "shop/users")
    assert (told["rows_inserted"], told["rows_updated"], told["rows_deleted"]) == (1, 0, 0)
    assert materialization(result.all_events, "shop/orders")["rows_deleted"] == 10
    assert materialization(result.all_events, "shop/users/checkpoint")["cursor_value"].startswith("lsn = ")
    (health,) = [found for found in result.get_asset_check_evaluations() if found.check_name == "slot_health"]
    assert (health.asset_key, health.passed) == (KEY, True)
    watched.settle()
    assert watched.skips().startswith("Nothing to read")


def test_a_tick_observes_the_slot_and_so_does_a_run(settled: Watched) -> None:
    (record,) = settled.instance.fetch_observations(KEY, limit=1).records
    observation = record.asset_observation
    assert observation is not None
    told: dict[str, Any] = {name: value.value for name, value in observation.metadata.items()}
    assert told["lag_bytes"] >= 0
    assert told["lag_seconds"] >= 0
    assert told["retained_bytes"] > 0
    assert told["wal_status"] == "reserved"
    assert told["confirmed_flush_lsn"]
    settled.cursor = None
    (event,) = settled.tick().asset_events
    assert isinstance(event, dg.AssetObservation)
    assert event.asset_key == KEY
    assert {"lag_bytes", "lag_seconds"} <= set(event.metadata)
    assert "Behind by" in str(event.description)
    assert not settled.tick().asset_events, "a tick that finds the same observes it only once in a while"


def test_a_tick_decodes_nothing_however_much_there_is_to_read(settled: Watched) -> None:
    source = settled.project.source
    settled.change("insert into users select n, 'x' from generate_series(2000, 60000) as n")
    query = "select total_txns from pg_stat_replication_slots where slot_name = %s"
    decoded = source.fetch_value(query, [SLOT])
    seconds = []
    for _ in range(5):
        started = time.thread_time()
        settled.tick()
        seconds.append(time.thread_time() - started)
    assert source.fetch_value(query, [SLOT]) == decoded
    # Of the processor's time, since the machine may be busy; it is a third of that.
    assert min(seconds) < 0.1, seconds


def test_a_source_that_is_down_or_does_not_answer_is_skipped_with_the_reason(
    own_postgres: EmbeddedPostgres, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", own_postgres.password)
    own_postgres.create_database("shop")
    source = Database(own_postgres, "shop")
    source.execute("create table users (id int primary key); create table orders (id int primary key)")
    project = Project(tmp_path / "down", source, source)
    project.create()
    watched = Watched(project, instance)
    watched.asks_for_a_run()
    before = watched.cursor
    monkeypatch.setattr(slot_sensor, "LOOK_SECONDS", 1.0)
    os.kill(postmaster(own_postgres), signal.SIGSTOP)
    try:
        assert "The slot cannot be looked at" in watched.skips()
    finally:
        os.kill(postmaster(own_postgres), signal.SIGCONT)
    own_postgres.stop()
    said = watched.skips()
    assert "The slot cannot be looked at" in said
    assert "refused" in said
    assert watched.cursor == before


def test_a_wrong_password_fails_the_tick_because_it_does_not_pass_by_itself(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2-very-secret")
    with pytest.raises(Exception, match="password authentication failed") as caught:
        watched.tick()
    assert "hunter2" not in str(caught.value)


@pytest.mark.full
def test_a_failed_run_is_tried_again_later_and_its_successor_has_a_key_of_its_own(watched: Watched) -> None:
    watched.project.destination.execute("create schema raw; create table raw.users (id text[])")
    first = watched.asks_for_a_run()
    assert not watched.run(first, raise_on_error=False).success
    said = watched.skips()
    assert "failed: the next try is in" in said


def test_a_slot_that_is_gone_or_made_anew_fails_ticks_and_health_with_the_way_to_recover(settled: Watched) -> None:
    assert settled.health().passed
    with settled.project.source.connect() as connection:
        connection.execute("select pg_drop_replication_slot(%s)", [SLOT])
    for what in ("is gone", "was made anew"):
        with pytest.raises(Exception, match=what) as caught:
            settled.tick()
        said = str(caught.value)
        assert "users (since " in said
        assert "--stream users --stream orders --full-refresh" in said
        found = settled.health()
        assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
        if what == "is gone":
            settled.project.source.execute("insert into orders values (9999, 1, 1)")
            settled.project.source.execute(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")

    # The way out that they name.
    config = {"ops": {"shop__cdc": {"config": {"full_refresh": ["users", "orders"]}}}}
    assert settled.run(run_config=config).success
    assert settled.project.rows("orders") == settled.project.source.fetch_value("select count(*) from orders")
    settled.settle()
    assert settled.health().passed


@pytest.mark.full
def test_a_stream_whose_changes_are_lost_stops_no_run_for_the_others(
    settled: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = settled.project
    settled.change(f"alter publication {SLOT} drop table users; delete from users where id = 1")
    for left in (4990, 4980):
        settled.change(f"delete from orders where id <= 5000 - {left}")
        monkeypatch.setattr(slot_watch, "LAST_RETRY_SECONDS", 0.0)
        assert not settled.run(settled.asks_for_a_run(), raise_on_error=False).success
        assert (project.rows("orders"), project.rows("users")) == (left, 1000)
        found = settled.health()
        assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert str(found.description).startswith("The publication tells of users no more")
        monkeypatch.setattr(slot_watch, "LAST_RETRY_SECONDS", 3600.0)
        said = settled.skips()
        assert said.startswith("The publication tells of users no more")
        assert "--stream users --full-refresh" in said
        assert "the next try is in" in said

    # The way out that they name.
    config = {"ops": {"shop__cdc": {"config": {"full_refresh": ["users"]}}}}
    assert settled.run(run_config=config).success
    settled.settle()
    assert settled.health().passed
    assert (project.rows("orders"), project.rows("users")) == (4980, 999)


def test_another_consumer_of_the_slot_is_named(settled: Watched) -> None:
    server = settled.project.source.server
    with reading(server, settled.project.source.name) as pid:
        said = settled.skips()
        assert f"Another consumer reads from the slot: the session with process id {pid}" in said
        assert "someone_else" in said
    assert "Another consumer" not in settled.skips()


@pytest.mark.full
def test_beyond_the_limits_of_the_file_the_health_check_warns(project: Project, instance: dg.DagsterInstance) -> None:
    limits = {"max_lag": "1s", "max_lag_bytes": "1kb", "max_retained_wal": "1kb"}
    watched = Watched(project, instance, cdc=limits)
    assert watched.run(watched.asks_for_a_run()).success
    watched.change("insert into users select n, 'x' from generate_series(2000, 3000) as n")
    time.sleep(1.1)
    found = watched.health()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    said = str(found.description)
    for limit in ("max_lag: 1 s", "max_lag_bytes: 1.0 kB", "max_retained_wal: 1.0 kB"):
        assert limit in said
    told: dict[str, Any] = {name: value.value for name, value in found.metadata.items()}
    assert told["lag_bytes"] > 1024
    assert told["lag_seconds"] > 1


def postmaster(server: EmbeddedPostgres) -> int:
    """Its process id: it takes connections, and while it stands still they wait."""
    return int((server.folder / "data" / "postmaster.pid").read_text().splitlines()[0])


class reading:
    """A consumer of the slot in another program; gives the process id of its session at the server."""

    def __init__(self, server: EmbeddedPostgres, database: str) -> None:
        self._dsn = f"{server.dsn(database, user=USER)} replication=database application_name=someone_else"
        self._server = server

    def __enter__(self) -> int:
        self._connection = psycopg.pq.PGconn.connect(self._dsn.encode())
        command = f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 (proto_version '1', publication_names '{SLOT}')"
        result = self._connection.exec_(command.encode())
        assert result.status == psycopg.pq.ExecStatus.COPY_BOTH, self._connection.error_message
        return self._connection.backend_pid

    def __exit__(self, *_: object) -> None:
        self._connection.finish()
        with self._server.connect() as connection:
            query = "select active from pg_replication_slots where slot_name = %s"
            while connection.execute(query, [SLOT]).fetchone() == (True,):
                time.sleep(0.02)
