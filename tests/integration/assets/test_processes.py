"""Streams as Dagster runs them in processes of their own: the multiprocess executor, the command line, signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import dagster as dg
import pytest

from rapidbyte_dagster import load_pipeline
from rapidbyte_dagster.state import open_state
from tests.integration.assets.project import (
    COMMAND_SECONDS,
    REPOSITORY,
    Project,
    events_of,
    materialized,
    step_failure,
)
from tests.quick import few

# Each row takes this long on the source's server: the stream would go on for minutes.
ENDLESS = {"name": "orders", "filter": "pg_sleep(0.1) is not null"}

STOP_SECONDS = 4.0
"""The engine and the servers stop within two; the rest is Dagster's, which passes the signal on, on a busy machine."""


def execute(project: Project, instance: dg.DagsterInstance, run_config: object = None) -> dg.JobExecutionResult:
    job = dg.build_reconstructable_job(
        "tests.integration.assets.project",
        "job_of",
        reconstructable_kwargs={"pipelines": str(project.pipelines), "job": "shop_job"},
        reconstructor_working_directory=str(REPOSITORY),
    )
    return dg.execute_job(job, instance, run_config=run_config)


def test_the_multiprocess_executor_runs_each_stream_in_its_own_process(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.add_pipeline("users", "orders", "no_such_table", write_mode="replace")
    with execute(project, instance) as result:
        events = events_of(instance, result.run_id)
        assert not result.success
    assert (project.rows("users"), project.rows("orders")) == (1000, 5000)
    tables = {key for key in materialized(events) if key.count("/") == 1}
    assert tables == {"shop/users", "shop/orders"}
    assert "no_such_table" in step_failure(events, "shop__no_such_table").description
    assert any("multiprocess" in (event.message or "") for event in events)


@pytest.mark.full
def test_each_run_of_a_process_has_the_environment_of_its_own_time(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.add_pipeline({"name": "users", "filter": "id <= ${LAST_USER}"}, write_mode="replace")
    for last in (10, 20):
        monkeypatch.setenv("LAST_USER", str(last))
        with execute(project, instance) as result:
            assert result.success
        assert project.rows("users") == last


@pytest.mark.parametrize("parallelism", few([2, 1]))
def test_parallelism_bounds_the_streams_that_run_at_once(
    project: Project, instance: dg.DagsterInstance, parallelism: int
) -> None:
    slow = "id <= 15 and pg_sleep(0.1) is not null"
    streams = [{"name": "users", "filter": slow}, {"name": "orders", "filter": slow}]
    project.add_pipeline(*streams, write_mode="replace", resources={"parallelism": parallelism})
    with execute(project, instance) as result:
        assert result.success
        records = instance.all_logs(result.run_id)
    running = most = 0
    for record in records:
        event = record.dagster_event
        if event is not None and event.is_step_start:
            running += 1
            most = max(most, running)
        elif event is not None and (event.is_step_success or event.is_step_failure):
            running -= 1
    assert most == parallelism


def test_run_config_may_choose_one_process_for_all_streams(project: Project, instance: dg.DagsterInstance) -> None:
    project.add_pipeline("users", write_mode="replace")
    with execute(project, instance, {"execution": {"config": {"in_process": {}}}}) as result:
        assert result.success
        messages = [event.message or "" for event in events_of(instance, result.run_id)]
    assert any("Executing steps in process" in message for message in messages)
    assert project.rows("users") == 1000


@pytest.mark.full
def test_the_materialize_command_copies_a_selection(project: Project) -> None:
    project.add_pipeline("users", "orders", write_mode="replace")
    ran = project.dagster("asset", "materialize", "-f", "definitions.py", "--select", "shop/users")
    assert ran.returncode == 0, ran.stderr
    assert project.rows("users") == 1000
    assert project.destination.fetch_value("select to_regclass('raw.orders')") is None


def test_the_job_command_shows_why_a_stream_failed_and_no_secret(project: Project) -> None:
    project.variables["WRONG_PASSWORD"] = "hunter2-very-secret"
    project.add_pipeline("users", password_variable="WRONG_PASSWORD")
    ran = project.dagster("job", "execute", "-f", "definitions.py", "-j", "shop_job")
    assert ran.returncode != 0
    shown = ran.stdout + ran.stderr
    assert "password authentication failed" in shown
    assert "hunter2-very-secret" not in shown


def test_valid_definitions_validate(project: Project) -> None:
    project.add_pipeline("users")
    del project.variables["SHOP_PASSWORD"]
    ran = project.dagster("definitions", "validate", "-f", "definitions.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def wait_until(what: str, holds: object, seconds: float = COMMAND_SECONDS) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.1)


class Interrupting:
    """Raises an interruption where Python cannot pass it on: it only prints what a finalizer raises."""

    def __del__(self) -> None:
        raise dg.DagsterExecutionInterruptedError


def test_an_interruption_that_strikes_in_a_finalizer_stops_the_stream_all_the_same(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.add_pipeline(ENDLESS, "users", write_mode="append", dagster={"retry_policy": {"max_retries": 3}})
    job = project.definitions(executor=dg.in_process_executor).resolve_job_def("shop_job")

    def interrupt() -> None:
        query = "select count(*) from pg_stat_activity where datname = %s and query like 'COPY%%pg_sleep%%'"
        wait_until("the stream reads", lambda: project.destination.fetch_value(query, [project.source.name]) > 0)
        (record,) = instance.get_run_records()
        instance.report_run_canceling(record.dagster_run)
        Interrupting()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        job.execute_in_process(instance=instance)
    interrupting.join()
    (record,) = instance.get_run_records()
    assert record.dagster_run.status is dg.DagsterRunStatus.CANCELED
    events = events_of(instance, record.dagster_run.run_id)
    assert [event.step_key for event in events if event.is_step_failure] == ["shop__orders"]
    assert not [event for event in events if event.is_step_up_for_retry]
    assert materialized(events) == set()


def hear_signals() -> None:
    """What a shell starts in the background is deaf to Ctrl-C, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("executor", "number", "whole_group"),
    [("multiprocess", signal.SIGINT, True), ("in_process", signal.SIGTERM, False)],
    ids=["Ctrl-C reaches every process", "SIGTERM reaches the one"],
)
def test_a_signal_to_the_job_command_stops_its_stream(
    project: Project, instance: dg.DagsterInstance, executor: str, number: signal.Signals, whole_group: bool
) -> None:
    project.add_pipeline(ENDLESS, write_mode="append")
    config = project.folder / "run.yaml"
    config.write_text(f"execution:\n  config:\n    {executor}: {{}}\n")
    command = ["job", "execute", "-f", "definitions.py", "-j", "shop_job", "-c", str(config)]

    def sessions() -> list[str]:
        query = "select query from pg_stat_activity where datname = any(%s) and pid <> pg_backend_pid()"
        databases = [project.source.name, project.destination.name]
        return [text for (text,) in project.destination.fetch(query, [databases])]

    run = subprocess.Popen(
        [sys.executable, "-m", "dagster", *command],
        cwd=project.folder,
        env=project.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=hear_signals,
    )
    try:
        wait_until("the stream reads", lambda: any("pg_sleep" in text for text in sessions()))
        asked = time.monotonic()
        os.killpg(run.pid, number) if whole_group else run.send_signal(number)
        wait_until("no session is left", lambda: not sessions())
        took = time.monotonic() - asked
        run.wait(timeout=COMMAND_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    (record,) = instance.get_run_records()
    # Dagster calls a run canceled where it was asked for its end, and not its process.
    assert record.dagster_run.status is dg.DagsterRunStatus.FAILURE
    assert took < STOP_SECONDS
    events = events_of(instance, record.dagster_run.run_id)
    assert materialized(events) == set()
    assert any("No user initiated termination request was found" in (event.message or "") for event in events)
    assert project.destination.fetch_value("select to_regclass('raw.orders')") is None or project.rows("orders") == 0
    pipeline = load_pipeline(project.pipelines / "shop.yaml")
    with open_state(pipeline, project.environ) as state:
        assert [kept.status for kept in state.runs("shop", "orders")] == ["cancelled"]
