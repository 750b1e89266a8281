"""The check `schema_drift` and what else Dagster tells of changed tables: real runs, from database to database."""

# No postponed annotations here: Dagster reads those of an op's function.

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster import (
    RapidbyteResource,
    RapidbyteTranslator,
    StreamTranslatorData,
    build_pipeline_assets,
    default_resources,
    load_pipeline,
    rapidbyte_stream_asset,
)
from tests.integration.assets.project import (
    REPOSITORY,
    Project,
    events_of,
    materialization,
    materialized,
    step_failure,
)

USERS = dg.AssetKey(["shop", "users"])
CHECK_ALONE = dg.AssetSelection.checks(dg.AssetCheckKey(USERS, "schema_drift"))
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def add_pipeline(project: Project, *streams: str, **policy: str) -> Any:
    """The project's pipeline with a policy for schema changes; writing it again changes that."""
    section = {"schema_evolution": policy} if policy else {}
    return project.add_pipeline(*(streams or ("users",)), write_mode="append", destination_section=section)


def materialize(project: Project, **options: Any) -> dg.ExecuteInProcessResult:
    (path,) = project.pipelines.iterdir()
    assets = build_pipeline_assets(load_pipeline(path))
    return dg.materialize(assets, resources=default_resources(), raise_on_error=False, **options)


def evaluations(events: Sequence[dg.DagsterEvent]) -> list[dg.AssetCheckEvaluation]:
    return [data for event in events if isinstance(data := event.event_specific_data, dg.AssetCheckEvaluation)]


def evaluation(events: Sequence[dg.DagsterEvent]) -> dg.AssetCheckEvaluation:
    (found,) = evaluations(events)
    return found


def metadata_of(found: dg.AssetCheckEvaluation) -> Mapping[str, Any]:
    return {name: value.value for name, value in found.metadata.items()}


@pytest.fixture
def copied(project: Project) -> Project:
    """Stream `users`, moved once; what the source's table goes through afterwards is up to the test."""
    project.source.execute("alter table users drop constraint users_pkey")
    add_pipeline(project)
    assert materialize(project).success
    return project


def columns(project: Project) -> list[str]:
    query = (
        "select column_name from information_schema.columns where table_schema = 'raw' and table_name = 'users'"
        " order by ordinal_position"
    )
    return [name for (name,) in project.destination.fetch(query)]


def test_a_stream_without_changes_passes_and_counts_zero(copied: Project) -> None:
    result = materialize(copied)
    found = evaluation(result.all_events)
    assert found.passed
    assert (found.asset_key, found.check_name, found.blocking) == (USERS, "schema_drift", False)
    assert metadata_of(found)["changes"] == 0
    assert materialization(result.all_events, "shop/users")["schema_changes"] == 0
    schema = materialization(result.all_events, "shop/users/schema")
    assert (schema["version"], schema["changes"], schema["new_changes"]) == (1, 0, 0)


def test_a_first_run_finds_no_drift(project: Project) -> None:
    add_pipeline(project)
    assert evaluation(materialize(project).all_events).passed


def test_an_evaluation_belongs_to_the_materialisation_of_its_own_run(
    copied: Project, instance: dg.DagsterInstance
) -> None:
    result = materialize(copied, instance=instance)
    found = evaluation(events_of(instance, result.run_id))
    assert found.target_materialization_data is not None
    assert found.target_materialization_data.run_id == result.run_id


def test_an_added_column_passes_and_is_told_by_all_three(copied: Project) -> None:
    copied.source.execute("alter table users add column city varchar(40)")
    events = materialize(copied).all_events
    assert columns(copied) == ["id", "email", "created_at", "city"]
    found = evaluation(events)
    assert found.passed
    assert metadata_of(found)["changes"] == 1
    (row,) = metadata_of(found)["diff"].splitlines()[2:]
    assert row.startswith("| `city` | new column | `character varying(40)` |  | added (new_column: add) | `")
    assert "add column" in row.lower()
    assert materialization(events, "shop/users")["schema_changes"] == 1
    schema = materialization(events, "shop/users/schema")
    assert (schema["version"], schema["columns"], schema["changes"], schema["new_changes"]) == (2, 4, 1, 1)
    assert "| `city` | new column |" in schema["history"]
    assert "| `city` | `character varying(40)` | `string` | yes |  |" in schema["column_types"]
    assert schema["policy"].startswith("new_column: add, ")

    events = materialize(copied).all_events
    assert metadata_of(evaluation(events))["changes"] == 0
    schema = materialization(events, "shop/users/schema")
    assert (schema["version"], schema["changes"], schema["new_changes"]) == (2, 1, 0)


def test_an_ignored_column_warns_in_every_run_and_is_one_change_in_the_history(copied: Project) -> None:
    add_pipeline(copied, new_column="ignore")
    copied.source.execute("alter table users add column city text default 'here'")
    for recorded in (1, 0):
        events = materialize(copied).all_events
        assert materialized(events) >= {"shop/users", "shop/users/schema"}
        found = evaluation(events)
        assert (found.passed, found.severity) == (False, WARN)
        assert found.description is not None
        assert found.description.startswith("1 found: 1 ignored; ")
        assert "| `city` | new column | `text` |  | ignored (new_column: ignore) |" in metadata_of(found)["diff"]
        schema = materialization(events, "shop/users/schema")
        assert (schema["changes"], schema["new_changes"]) == (1, recorded)
    assert columns(copied) == ["id", "email", "created_at"]


def test_values_that_do_not_fit_and_become_null_warn(copied: Project) -> None:
    add_pipeline(copied, type_change="null")
    copied.source.execute("alter table users alter column id type text using 'x' || id")
    found = evaluation(materialize(copied).all_events)
    assert (found.passed, found.severity) == (False, WARN)
    assert "| `id` | type | `text` | `bigint` | nulled (type_change: null) |" in metadata_of(found)["diff"]


def test_a_refused_change_fails_the_check_and_then_the_run(copied: Project, instance: dg.DagsterInstance) -> None:
    add_pipeline(copied, new_column="fail")
    copied.source.execute("alter table users add column city text, alter column email drop not null")
    result = materialize(copied, instance=instance)
    assert not result.success
    events = events_of(instance, result.run_id)
    found = evaluation(events)
    assert (found.passed, found.severity) == (False, ERROR)
    assert metadata_of(found)["changes"] == 2
    assert "| `city` | new column | `text` |  | refused (new_column: fail) |" in metadata_of(found)["diff"]
    assert metadata_of(found)["policy"].startswith("new_column: fail, ")
    failure = step_failure(events, "shop__users")
    assert "city" in failure.description
    assert failure.metadata["kind"].value == "schema"
    order = [event.event_type_value for event in events]
    assert order.index("ASSET_CHECK_EVALUATION") < order.index("STEP_FAILURE")
    assert materialized(events) == set()
    assert copied.rows("users") == 1000
    assert columns(copied) == ["id", "email", "created_at"]


def test_a_run_that_fails_otherwise_says_nothing_of_drift(copied: Project, instance: dg.DagsterInstance) -> None:
    copied.source.execute("alter table users add column city text")
    copied.destination.execute("alter table raw.users add check (id < 0) not valid")
    result = materialize(copied, instance=instance)
    assert step_failure(result.all_events, "shop__users").metadata["kind"].value == "data"
    assert evaluations(events_of(instance, result.run_id)) == []


def test_a_body_of_ones_own_passes_the_failed_check_on_and_is_not_tried_again(
    copied: Project, instance: dg.DagsterInstance
) -> None:
    path = add_pipeline(copied, new_column="fail")
    copied.source.execute("alter table users add column city text")
    bodies = 0

    @rapidbyte_stream_asset(pipeline=path, stream="users", retry_policy=dg.RetryPolicy(max_retries=3, delay=0))
    def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
        nonlocal bodies
        bodies += 1
        yield from rapidbyte.run(context)

    result = dg.materialize([users], resources=default_resources(), raise_on_error=False, instance=instance)
    found = evaluation(events_of(instance, result.run_id))
    assert (found.passed, found.severity) == (False, ERROR)
    assert bodies == 1


def test_a_body_sees_the_check_inside_of_the_tables_result(copied: Project) -> None:
    seen: list[Any] = []

    @rapidbyte_stream_asset(pipeline=add_pipeline(copied), stream="users")
    def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
        for result in rapidbyte.run(context):
            seen.append(result)
            yield result

    events = dg.materialize([users], resources=default_resources()).all_events
    assert all(isinstance(result, dg.MaterializeResult) for result in seen)
    assert [result.check_name for result in seen[0].check_results] == ["schema_drift"]
    assert evaluation(events).passed


def test_a_table_that_is_selected_alone_is_checked(copied: Project) -> None:
    events = materialize(copied, selection=["shop/users"]).all_events
    assert materialized(events) == {"shop/users"}
    assert evaluation(events).passed


@pytest.mark.parametrize(("policy", "succeeds"), [("ignore", True), ("fail", False)])
def test_a_check_that_is_not_selected_says_nothing(copied: Project, policy: str, succeeds: bool) -> None:
    add_pipeline(copied, new_column=policy)
    copied.source.execute("alter table users add column city text")
    result = materialize(copied, selection=dg.AssetSelection.assets(USERS).without_checks())
    assert result.success is succeeds
    assert evaluations(result.all_events) == []
    assert copied.rows("users") == (2000 if succeeds else 1000)


def test_kept_assets_alone_are_not_checked(copied: Project) -> None:
    result = materialize(copied, selection=["shop/users/schema", "shop/users/checkpoint"])
    assert result.success
    assert evaluations(result.all_events) == []


def test_a_job_may_have_the_check_alone(copied: Project) -> None:
    job = dg.define_asset_job("drift", selection=CHECK_ALONE)
    definitions = dg.Definitions.merge(copied.definitions(), dg.Definitions(jobs=[job]))
    events = definitions.resolve_job_def("drift").execute_in_process().all_events
    assert materialized(events) == set()
    assert evaluation(events).passed
    assert copied.rows("users") == 1000


@pytest.mark.parametrize(
    ("policy", "passed", "severity", "action"),
    [("add", True, WARN, "added"), ("ignore", False, WARN, "ignored"), ("fail", False, ERROR, "refused")],
)
def test_the_check_alone_tells_what_a_run_would_do_and_does_nothing(
    copied: Project, policy: str, passed: bool, severity: dg.AssetCheckSeverity, action: str
) -> None:
    add_pipeline(copied, new_column=policy)
    copied.source.execute("alter table users add column city text")
    result = materialize(copied, selection=CHECK_ALONE)
    assert result.success
    assert materialized(result.all_events) == set()
    found = evaluation(result.all_events)
    assert (found.passed, found.severity) == (passed, severity)
    assert found.description is not None
    assert found.description.startswith(f"1 found, and by the next run 1 {action}")
    assert f"| `city` | new column | `text` |  | {action} (new_column: {policy}) |" in metadata_of(found)["diff"]
    assert columns(copied) == ["id", "email", "created_at"]
    assert copied.rows("users") == 1000


def test_the_check_alone_passes_where_nothing_differs_and_where_there_is_no_table(copied: Project) -> None:
    assert evaluation(materialize(copied, selection=CHECK_ALONE).all_events).passed
    copied.destination.execute("drop table raw.users")
    assert evaluation(materialize(copied, selection=CHECK_ALONE).all_events).passed
    assert columns(copied) == []


def test_the_check_beside_kept_assets_moves_no_rows(copied: Project) -> None:
    kept = dg.AssetSelection.assets(dg.AssetKey(["shop", "users", "schema"]))
    events = materialize(copied, selection=CHECK_ALONE | kept).all_events
    assert materialized(events) == {"shop/users/schema"}
    assert evaluation(events).passed
    assert copied.rows("users") == 1000


def test_the_check_alone_fails_its_step_where_it_cannot_look(copied: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2-very-secret")
    result = materialize(copied, selection=CHECK_ALONE)
    failure = step_failure(result.all_events, "shop__users")
    assert (failure.metadata["kind"].value, failure.metadata["stream"].value) == ("auth", "users")
    assert "hunter2-very-secret" not in failure.description
    assert evaluations(result.all_events) == []


class Prefixed(RapidbyteTranslator):
    def get_asset_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(key=spec.key.with_prefix("warehouse"))


def test_the_check_follows_the_tables_key(copied: Project) -> None:
    definitions = copied.definitions(translator=Prefixed())
    events = definitions.resolve_job_def("shop_job").execute_in_process().all_events
    assert evaluation(events).asset_key == dg.AssetKey(["warehouse", "shop", "users"])


def test_jobs_have_the_checks_of_their_streams(project: Project) -> None:
    add_pipeline(project, "users", "orders")
    events = project.definitions().resolve_job_def("shop_job").execute_in_process().all_events
    assert {found.asset_key.to_user_string() for found in evaluations(events)} == {"shop/users", "shop/orders"}
    own = dg.Definitions.merge(
        project.definitions(), dg.Definitions(jobs=[dg.define_asset_job("own", selection=["shop/orders"])])
    )
    events = own.resolve_job_def("own").execute_in_process().all_events
    assert evaluation(events).asset_key == dg.AssetKey(["shop", "orders"])


@pytest.mark.full
def test_step_processes_report_their_checks(project: Project, instance: dg.DagsterInstance) -> None:
    project.source.execute("alter table users drop constraint users_pkey")
    add_pipeline(project, "users", "orders", new_column="fail")
    job = dg.build_reconstructable_job(
        "tests.integration.assets.project",
        "job_of",
        reconstructable_kwargs={"pipelines": str(project.pipelines), "job": "shop_job"},
        reconstructor_working_directory=str(REPOSITORY),
    )
    with dg.execute_job(job, instance) as result:
        assert result.success
    project.source.execute("alter table users add column city text; truncate orders")
    with dg.execute_job(job, instance) as result:
        assert not result.success
        found = {str(e.asset_key.path[-1]): e for e in evaluations(events_of(instance, result.run_id))}
    assert found["orders"].passed
    assert (found["users"].passed, found["users"].severity) == (False, ERROR)
