"""What may be asked of one run: full refresh and reset, as the launchpad and the command line give them to an op."""

# No postponed annotations here: Dagster reads those of an op's function.

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster import (
    RapidbyteResource,
    build_pipeline_assets,
    default_resources,
    load_pipeline,
    rapidbyte_stream_asset,
)
from tests.integration.assets.project import REPOSITORY, Project, events_of, materialization, materialized, step_failure

FULL_REFRESH = {"full_refresh": True}
RESET = {"reset": True}


SLOW = {"name": "users", "filter": "id <= 20 and pg_sleep(0.1) is not null"}


@contextmanager
def cut_once(project: Project) -> Iterator[None]:
    """The first stream that reads loses its connection to the source, once."""

    def cut() -> None:
        query = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and query like 'COPY%%'"
        deadline = time.monotonic() + 60
        while not project.destination.fetch(query, [project.source.name]) and time.monotonic() < deadline:
            time.sleep(0.05)

    cutter = threading.Thread(target=cut)
    cutter.start()
    yield
    cutter.join()


def for_users(config: dict[str, Any]) -> dict[str, Any]:
    return {"ops": {"shop__users": {"config": config}}}


def materialize(project: Project, config: dict[str, Any] | None = None, **options: Any) -> dg.ExecuteInProcessResult:
    (path,) = project.pipelines.iterdir()
    assets = build_pipeline_assets(load_pipeline(path))
    return dg.materialize(assets, resources=default_resources(), run_config=for_users(config or {}), **options)


def job_of_project(project: Project) -> Any:
    """`shop_job` as step processes load it again."""
    return dg.build_reconstructable_job(
        "tests.integration.assets.project",
        "job_of",
        reconstructable_kwargs={"pipelines": str(project.pipelines), "job": "shop_job"},
        reconstructor_working_directory=str(REPOSITORY),
    )


@pytest.fixture
def appending(project: Project) -> Project:
    """Two streams that append, both moved once."""
    project.source.execute(
        "alter table users drop constraint users_pkey; alter table orders drop constraint orders_pkey"
    )
    project.add_pipeline("users", "orders", write_mode="append")
    materialize(project)
    return project


def test_a_full_refresh_replaces_the_rows_and_counts_the_table(appending: Project) -> None:
    events = materialize(appending, FULL_REFRESH).all_events
    assert (appending.rows("users"), appending.rows("orders")) == (1000, 10_000)
    metadata = materialization(events, "shop/users")
    assert (metadata["start"], metadata["dagster/row_count"], metadata["checkpoints_committed"]) == (
        "full_refresh",
        1000,
        1,
    )
    others = materialization(events, "shop/orders")
    assert not {"start", "dagster/row_count"} & set(others)


def test_a_reset_writes_in_the_streams_own_mode(appending: Project) -> None:
    metadata = materialization(materialize(appending, RESET).all_events, "shop/users")
    assert appending.rows("users") == 2000
    assert metadata["start"] == "reset"
    assert "dagster/row_count" not in metadata


def test_a_config_of_two_falses_is_that_of_every_run(appending: Project) -> None:
    metadata = materialization(materialize(appending, {"full_refresh": False, "reset": False}).all_events, "shop/users")
    assert appending.rows("users") == 2000
    assert "start" not in metadata


def test_both_at_once_fail_before_anything_moves(appending: Project) -> None:
    result = materialize(appending, {**FULL_REFRESH, **RESET}, raise_on_error=False)
    failure = step_failure(result.all_events, "shop__users")
    assert "asks for full_refresh and reset at once" in failure.description
    assert failure.metadata["kind"].value == "usage"
    assert appending.rows("users") == 1000


def test_what_the_config_does_not_have_is_refused_before_the_run(appending: Project) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="full_refesh"):
        materialize(appending, {"full_refesh": True})
    with pytest.raises(dg.DagsterInvalidConfigError, match="full_refresh"):
        materialize(appending, {"full_refresh": "yes"})


def test_a_selection_stays_one_beside_a_config(appending: Project) -> None:
    events = materialize(appending, FULL_REFRESH, selection=["shop/users"]).all_events
    assert materialized(events) == {"shop/users"}
    assert (appending.rows("users"), appending.rows("orders")) == (1000, 5000)


def test_kept_assets_alone_leave_the_config_aside_and_say_so(appending: Project, instance: dg.DagsterInstance) -> None:
    result = materialize(appending, RESET, selection=["shop/users/checkpoint"], instance=instance)
    assert materialized(result.all_events) == {"shop/users/checkpoint"}
    assert appending.rows("users") == 1000
    messages = [record.user_message for record in instance.all_logs(result.run_id)]
    assert "reset is left aside: the table is not selected, and no row is moved" in messages


def test_the_pipelines_job_takes_the_config_of_one_of_its_ops(appending: Project) -> None:
    job = appending.definitions().resolve_job_def("shop_job")
    assert job.execute_in_process(run_config=for_users(FULL_REFRESH)).success
    assert (appending.rows("users"), appending.rows("orders")) == (1000, 10_000)


def test_the_materialize_command_takes_a_selection_and_a_config(appending: Project) -> None:
    config = json.dumps(for_users(FULL_REFRESH))
    ran = appending.dagster(
        "asset", "materialize", "-f", "definitions.py", "--select", "shop/users", "--config-json", config
    )
    assert ran.returncode == 0, ran.stderr
    assert (appending.rows("users"), appending.rows("orders")) == (1000, 5000)


def test_the_launchpad_describes_both_and_asks_for_neither(appending: Project) -> None:
    (users, _) = build_pipeline_assets(load_pipeline(next(appending.pipelines.iterdir())))
    fields = users.op.config_schema.config_type.fields  # type: ignore[union-attr]
    assert set(fields) == {"full_refresh", "reset"}
    assert all(field.description and field.default_value is False for field in fields.values())


def test_a_body_of_ones_own_takes_the_config_too(appending: Project) -> None:
    @rapidbyte_stream_asset(pipeline=next(appending.pipelines.iterdir()), stream="users")
    def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
        yield from rapidbyte.run(context)

    dg.materialize([users], resources=default_resources(), run_config=for_users(FULL_REFRESH))
    assert appending.rows("users") == 1000


class Greeting(dg.Config):
    name: str = "nobody"


class Wish(dg.Config):
    full_refresh: bool = False
    reset: int = 0
    reason: str


def test_a_body_with_a_config_of_its_own_keeps_it(appending: Project) -> None:
    greeted: list[str] = []

    @rapidbyte_stream_asset(pipeline=next(appending.pipelines.iterdir()), stream="users")
    def users(context: dg.AssetExecutionContext, config: Greeting, rapidbyte: RapidbyteResource) -> Any:
        greeted.append(config.name)
        yield from rapidbyte.run(context)

    dg.materialize([users], resources=default_resources(), run_config=for_users({"name": "you"}))
    assert greeted == ["you"]
    assert appending.rows("users") == 2000


@pytest.mark.parametrize(("wanted", "rows"), [(True, 1000), (False, 2000)])
def test_a_config_of_ones_own_may_ask_for_the_same(appending: Project, wanted: bool, rows: int) -> None:
    @rapidbyte_stream_asset(pipeline=next(appending.pipelines.iterdir()), stream="users")
    def users(context: dg.AssetExecutionContext, config: Wish, rapidbyte: RapidbyteResource) -> Any:
        yield from rapidbyte.run(context)

    # A `reset` that is no truth value means something else to its author.
    wish = Wish(full_refresh=wanted, reset=1, reason="the source was restored")
    dg.materialize([users], resources=default_resources(), run_config=dg.RunConfig({"shop__users": wish}))
    assert appending.rows("users") == rows


def test_an_incremental_stream_goes_on_from_a_full_refresh(project: Project) -> None:
    incremental = {"name": "users", "sync_mode": "incremental", "cursor_field": "id"}
    project.add_pipeline(
        incremental, write_mode="append", resources={"checkpoint_interval_rows": 400, "max_batch_bytes": 4096}
    )
    first = materialization(materialize(project).all_events, "shop/users")
    assert first["cursor_value"] == "id = 1000"
    assert first["checkpoints_committed"] >= 2
    project.source.execute("delete from users where id <= 100; insert into users values (1001, 'new')")
    events = materialize(project, FULL_REFRESH).all_events
    refreshed = materialization(events, "shop/users")
    assert (refreshed["rows"], refreshed["dagster/row_count"], refreshed["checkpoints_committed"]) == (901, 901, 1)
    assert materialization(events, "shop/users/checkpoint")["cursor_value"] == "id = 1001"
    assert project.rows("users") == 901
    project.source.execute("insert into users values (1002, 'newer')")
    last = materialization(materialize(project).all_events, "shop/users")
    assert (last["rows"], last["cursor_value"]) == (1, "id = 1002")
    assert "dagster/row_count" not in last
    assert project.rows("users") == 902


def test_a_reset_upsert_merges_what_it_reads_again(project: Project) -> None:
    incremental = {"name": "users", "sync_mode": "incremental", "cursor_field": "id"}
    project.add_pipeline(incremental, write_mode="upsert")
    materialize(project)
    project.source.execute("update users set email = 'behind the cursor' where id = 5; delete from users where id = 6")
    metadata = materialization(materialize(project, RESET).all_events, "shop/users")
    assert (metadata["rows"], metadata["start"]) == (999, "reset")
    assert project.rows("users") == 1000
    assert project.destination.fetch("select email from raw.users where id = 5") == [("behind the cursor",)]


@pytest.mark.full
def test_the_re_execution_of_a_reset_that_failed_half_way_repeats_no_row(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.source.execute("alter table users drop constraint users_pkey")
    incremental = {"name": "users", "sync_mode": "incremental", "cursor_field": "id"}
    often = {"checkpoint_interval_rows": 300, "max_batch_bytes": 4096}
    project.add_pipeline(incremental, write_mode="append", resources=often)
    materialize(project)
    project.destination.execute("""
        create function raw.refuse() returns trigger language plpgsql as $$ begin
            if new.id = 900 then raise exception 'not this one'; end if; return new;
        end $$;
        create trigger refuse before insert on raw.users for each row execute function raw.refuse();
    """)
    job = job_of_project(project)
    with dg.execute_job(job, instance, run_config=for_users(RESET)) as failed:
        assert not failed.success
    committed = project.rows("users") - 1000
    assert 0 < committed < 900
    project.destination.execute("drop trigger refuse on raw.users")
    again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    with dg.execute_job(job, instance, run_config=for_users(RESET), reexecution_options=again) as repeated:
        assert repeated.success
        metadata = materialization(events_of(instance, repeated.run_id), "shop/users")
    assert (metadata["start"], metadata["rows"]) == ("reset", 1000 - committed)
    assert project.rows("users") == 2000
    # What is asked for anew, of a run that did not fail, begins anew.
    materialize(project, RESET, instance=instance)
    assert project.rows("users") == 3000


def test_the_reasons_of_attempts_that_failed_are_in_the_log_and_the_metadata(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.add_pipeline(SLOW, write_mode="replace")
    with cut_once(project):
        result = materialize(project, instance=instance)
    metadata = materialization(result.all_events, "shop/users")
    assert (metadata["attempts"], metadata["rows"]) == (2, 20)
    assert "terminating connection due to administrator command" in metadata["retried"]
    messages = [record.user_message for record in instance.all_logs(result.run_id)]
    assert any(message.startswith("attempt 1 of 4 failed, next in ") for message in messages)


def test_dagsters_policy_of_the_file_repeats_a_failure_that_may_pass_and_no_other(
    project: Project, instance: dg.DagsterInstance
) -> None:
    policy = {"retry_policy": {"max_retries": 2, "delay": 0.2, "backoff": "exponential"}}
    project.add_pipeline(SLOW, "missing", write_mode="replace", resources={"max_retries": 0}, dagster=policy)
    with cut_once(project):
        result = materialize(project, instance=instance, raise_on_error=False)
    events = result.all_events
    assert [event.step_key for event in events if event.is_step_up_for_retry] == ["shop__users"]
    (retry,) = [event.step_retry_data for event in events if event.is_step_up_for_retry]
    assert retry.seconds_to_wait == 0.2
    assert "terminating connection due to administrator command" in str(retry.error)
    metadata = materialization(events, "shop/users")
    assert (metadata["rows"], metadata["attempts"], project.rows("users")) == (20, 1, 20)
    assert "there is no table public.missing" in step_failure(events, "shop__missing").description
