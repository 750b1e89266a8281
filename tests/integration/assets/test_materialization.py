"""Streams as Dagster runs them in one process, from a real database to a real database."""

# No postponed annotations here: Dagster reads those of an op's function.

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from rapidbyte_dagster import (
    Checkpoint,
    RapidbyteResource,
    SchemaState,
    build_pipeline_assets,
    default_resources,
    load_pipeline,
    rapidbyte_stream_asset,
)
from tests.integration.assets.project import Project, events_of, materialization, materialized, step_failure

USERS = {"shop/users", "shop/users/checkpoint", "shop/users/schema", "shop/users/dlq"}


def materialize(project: Project, **options: Any) -> dg.ExecuteInProcessResult:
    """Every asset of the project's only pipeline, or a selection of them."""
    (path,) = project.pipelines.iterdir()
    assets = [*build_pipeline_assets(load_pipeline(path)), *options.pop("more", [])]
    return dg.materialize(assets, resources=default_resources(), **options)


def test_a_stream_is_copied_and_its_four_assets_are_materialised(project: Project) -> None:
    project.add_pipeline("users", write_mode="replace")
    events = materialize(project).all_events
    assert project.rows("users") == 1000
    assert project.destination.fetch("select email from raw.users where id = 7") == [("user7@example.com",)]
    assert materialized(events) == USERS


def test_the_table_tells_what_was_moved_and_its_shape(project: Project) -> None:
    project.add_pipeline("users", write_mode="replace")
    metadata = materialization(materialize(project).all_events, "shop/users")
    assert metadata["rows"] == 1000
    assert metadata["dagster/row_count"] == 1000
    assert metadata["dead_letters"] == 0
    assert metadata["attempts"] == 1
    assert metadata["bytes"] > 0
    assert metadata["rows_per_second"] > 0
    assert metadata["duration_seconds"] > 0
    assert metadata["peak_memory_bytes_source"] > 0
    assert metadata["dagster/table_name"] == f"{project.destination.name}.raw.users"
    assert metadata["dagster/storage_kind"] == "postgres"
    columns = metadata["dagster/column_schema"].columns
    assert [(column.name, column.type, column.constraints.nullable) for column in columns] == [
        ("id", "bigint", False),
        ("email", "text", False),
        ("created_at", "timestamp with time zone", False),
    ]
    assert columns[0].constraints.unique
    lineage = metadata["dagster/column_lineage"].deps_by_column
    assert lineage["email"] == [
        dg.TableColumnDep(asset_key=dg.AssetKey(["shop", "source", "public", "users"]), column_name="email")
    ]


def test_the_kept_assets_tell_what_the_state_store_holds(project: Project) -> None:
    project.add_pipeline("users", write_mode="replace")
    events = materialize(project).all_events
    sequence = materialization(events, "shop/users")["checkpoint_sequence"]
    assert materialization(events, "shop/users/checkpoint")["sequence"] == sequence
    assert materialization(events, "shop/users/schema")["columns"] == 3
    assert materialization(events, "shop/users/dlq")["dead_letters"] == 0


def test_an_empty_table_is_told_as_zero_rows(project: Project) -> None:
    project.add_pipeline("empty", write_mode="replace")
    metadata = materialization(materialize(project).all_events, "shop/empty")
    assert (metadata["rows"], metadata["dagster/row_count"]) == (0, 0)
    assert project.rows("empty") == 0


def test_an_append_adds_rows_and_claims_no_row_count(project: Project) -> None:
    project.add_pipeline("users", write_mode="append")
    project.source.execute("alter table users drop constraint users_pkey")
    first = materialization(materialize(project).all_events, "shop/users")
    materialize(project)
    assert project.rows("users") == 2000
    assert first["rows"] == 1000
    assert "dagster/row_count" not in first


def test_the_table_alone_can_be_selected(project: Project) -> None:
    project.add_pipeline("users", "orders", write_mode="replace")
    events = materialize(project, selection=["shop/users"]).all_events
    assert materialized(events) == {"shop/users"}
    assert project.rows("users") == 1000
    assert project.destination.fetch_value("select to_regclass('raw.orders')") is None


def test_a_kept_asset_alone_moves_no_rows(project: Project) -> None:
    project.add_pipeline("users", write_mode="append")
    materialize(project)
    events = materialize(project, selection=["shop/users/checkpoint"]).all_events
    assert materialized(events) == {"shop/users/checkpoint"}
    assert project.rows("users") == 1000


def test_a_downstream_asset_loads_all_that_is_kept_in_the_same_run(project: Project) -> None:
    loaded: dict[str, Any] = {}

    @dg.asset(
        ins={part: dg.AssetIn(dg.AssetKey(["shop", "users", part])) for part in ("checkpoint", "schema", "dlq")},
        deps=[dg.AssetKey(["shop", "users"])],
    )
    def report(checkpoint: Checkpoint, schema: SchemaState, dlq: pa.Table) -> None:
        loaded.update(checkpoint=checkpoint, schema=schema, dlq=dlq)

    project.add_pipeline("users", write_mode="replace")
    materialize(project, more=[report])
    assert loaded["checkpoint"].rows == 1000
    assert loaded["schema"].current.table == "raw.users"
    assert loaded["schema"].current.primary_key == ("id",)
    assert loaded["dlq"].num_rows == 0


def test_a_pipelines_job_runs_in_process(project: Project) -> None:
    project.add_pipeline("users", "orders", write_mode="replace")
    result = project.definitions().resolve_job_def("shop_job").execute_in_process()
    assert result.success
    assert (project.rows("users"), project.rows("orders")) == (1000, 5000)


def test_progress_and_the_result_are_in_the_runs_log(project: Project, instance: dg.DagsterInstance) -> None:
    # Every row waits, so that the run takes long enough to be asked how far it is.
    slow = {"name": "users", "filter": "id <= 100 and pg_sleep(0.02) is not null"}
    project.add_pipeline(slow, write_mode="replace")
    definitions = project.definitions(resources={"rapidbyte": RapidbyteResource(log_interval_seconds=0.3)})
    result = definitions.resolve_job_def("shop_job").execute_in_process(instance=instance)
    messages = [record.user_message for record in instance.all_logs(result.run_id)]
    assert any("users: " in message and "rows/s" in message and "committed)," in message for message in messages)
    assert any(message.startswith("users: 100 rows committed in ") for message in messages)


def test_a_wrong_password_fails_its_own_step_with_kind_and_hint_and_shows_no_secret(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG_PASSWORD", "hunter2-very-secret")
    project.add_pipeline("users", write_mode="replace")
    project.add_pipeline("orders", name="crm", password_variable="WRONG_PASSWORD", write_mode="replace")
    definitions = project.definitions()
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    events = events_of(instance, result.run_id)
    failure = step_failure(events, "crm__orders")
    assert "password authentication failed" in failure.description
    metadata = {name: value.value for name, value in failure.metadata.items()}
    assert (metadata["kind"], metadata["stage"], metadata["stream"]) == ("auth", "source", "orders")
    assert metadata["sqlstate"] == "28P01"
    assert metadata["hint"]
    assert materialized(events) >= USERS
    assert project.rows("users") == 1000
    shown = "\n".join(str(record) for record in instance.all_logs(result.run_id))
    assert "hunter2-very-secret" not in shown
    assert str(project.source.config["password"]) not in shown


def test_a_missing_variable_fails_the_step_and_names_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.add_pipeline("users", password_variable="NEVER_SET_PASSWORD")
    result = materialize(project, raise_on_error=False)
    failure = step_failure(result.all_events, "shop__users")
    assert "NEVER_SET_PASSWORD" in failure.description
    assert failure.metadata["kind"].value == "config"


def test_a_failed_stream_keeps_no_asset_and_leaves_the_others_alone(project: Project) -> None:
    project.add_pipeline("users", "no_such_table", write_mode="replace")
    result = materialize(project, raise_on_error=False)
    assert not result.success
    assert materialized(result.all_events) == USERS
    failure = step_failure(result.all_events, "shop__no_such_table")
    assert "no_such_table" in failure.description
    assert failure.metadata["kind"].value == "not_found"


def test_the_failure_of_a_step_shows_no_chain_of_causes(project: Project, instance: dg.DagsterInstance) -> None:
    project.add_pipeline("no_such_table")
    job = project.definitions().resolve_job_def("shop_job")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    (event,) = [event for event in events_of(instance, result.run_id) if event.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    assert error.cause is None
    assert error.context is None


def test_a_retry_policy_repeats_a_step_only_when_its_kind_may_pass(project: Project) -> None:
    path = project.add_pipeline("no_such_table")
    bodies = 0

    @rapidbyte_stream_asset(pipeline=path, stream="no_such_table", retry_policy=dg.RetryPolicy(max_retries=3, delay=0))
    def stream(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
        nonlocal bodies
        bodies += 1
        yield from rapidbyte.run(context)

    result = dg.materialize([stream], resources=default_resources(), raise_on_error=False)
    assert not result.success
    assert bodies == 1


def test_a_decorated_body_may_work_before_and_after_the_stream(project: Project) -> None:
    path = project.add_pipeline("users", write_mode="replace")
    steps: list[str] = []

    @rapidbyte_stream_asset(pipeline=path, stream="users", name="my_users", op_tags={"team": "data"})
    def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
        steps.append("before")
        for result in rapidbyte.run(context):
            assert result.asset_key is not None
            steps.append(result.asset_key.to_user_string())
            yield result
        steps.append("after")

    assert (users.op.name, users.op.tags["team"]) == ("my_users", "data")
    assert dg.materialize([users], resources=default_resources()).success
    assert steps == ["before", "shop/users", "shop/users/checkpoint", "shop/users/schema", "shop/users/dlq", "after"]


def test_the_resource_opens_a_pipelines_state_store(project: Project) -> None:
    path = project.add_pipeline("users", write_mode="replace")
    materialize(project)
    pipeline = load_pipeline(path)
    with RapidbyteResource().state(pipeline) as state:
        checkpoint = state.latest_checkpoint("shop", "users")
    assert checkpoint is not None
    assert checkpoint.rows == 1000
