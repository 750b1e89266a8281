"""Rows that a real table refuses, from database to database through Dagster: nothing is lost between the two."""

# No postponed annotations here: Dagster reads those of an op's function.

import json
import os
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from rapidbyte_dagster import build_pipeline_assets, default_resources, load_pipeline
from rapidbyte_dagster.engine import ReplayResult, replay_dead_letters
from rapidbyte_dagster.state import open_state
from tests.integration.assets.project import Project, materialization

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
DLQ = dg.AssetKey(["shop", "users", "dlq"])
CHECK = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["shop", "users"]), "dead_letters"))


@pytest.fixture
def strict(project: Project) -> Project:
    """A table that takes no user 7, and no address twice; user 9 has that of user 8."""
    project.source.execute("update users set email = (select email from users where id = 8) where id = 9")
    project.destination.execute(
        "create schema raw; create table raw.users (id bigint primary key, email text not null unique,"
        " created_at timestamptz not null, constraint no_seven check (id <> 7))"
    )
    return project


def materialize(project: Project, *more: dg.AssetsDefinition, **options: Any) -> dg.ExecuteInProcessResult:
    (path,) = project.pipelines.iterdir()
    assets = [*build_pipeline_assets(load_pipeline(path)), *more]
    return dg.materialize(assets, resources=default_resources(), raise_on_error=False, **options)


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [
        data
        for event in result.all_events
        if isinstance(data := event.event_specific_data, dg.AssetCheckEvaluation) and data.check_name == "dead_letters"
    ]
    return found


def test_refused_rows_are_told_kept_and_loaded_by_the_next_asset(strict: Project) -> None:
    strict.add_pipeline("users", write_mode="append", destination_section={"on_data_error": "dlq"})
    loaded: list[pa.Table] = []

    @dg.asset(ins={"letters": dg.AssetIn(DLQ)})
    def report(letters: pa.Table) -> None:
        loaded.append(letters)

    result = materialize(strict, report)
    assert result.success
    assert strict.rows("users") == 998
    found = check_of(result)
    assert (found.passed, found.severity) == (False, WARN)
    assert found.description is not None
    assert found.description.startswith("2 of 1,000 rows left out (0.20%): 1 check, 1 unique.")
    told = materialization(result.all_events, "shop/users/dlq")
    assert (told["dead_letters"], told["new_dead_letters_check"], told["new_dead_letters_unique"]) == (2, 1, 1)
    assert "no_seven" in told["newest"]
    rows = {row["error_category"]: row for row in loaded[0].to_pylist()}
    assert json.loads(rows["check"]["record_json"])["id"] == 7
    assert (rows["check"]["constraint_name"], rows["unique"]["sqlstate"]) == ("no_seven", "23505")
    alone = check_of(materialize(strict, selection=CHECK))
    assert not alone.passed
    assert alone.description is not None
    assert "Dead letters that wait, of all runs: 2." in alone.description


def test_the_check_alone_passes_once_the_cause_is_repaired_and_the_letters_are_replayed(strict: Project) -> None:
    section = {"on_data_error": "dlq", "dead_letters": {"fail_above": "0.1%"}}
    strict.add_pipeline("users", write_mode="append", destination_section=section)
    run = materialize(strict)
    assert check_of(run).severity is ERROR
    pipeline = load_pipeline(strict.pipelines / "shop.yaml")

    def replay(run_id: str) -> ReplayResult:
        with open_state(pipeline, os.environ) as state:
            return replay_dead_letters(pipeline, pipeline.streams[0], state=state, run_id=run_id)

    strict.destination.execute("alter table raw.users drop constraint no_seven")
    assert replay("first").failed_again == 1
    found = check_of(materialize(strict, selection=CHECK))
    # One of a thousand is no more than the limit of a failure.
    assert (found.passed, found.severity) == (False, WARN)
    assert found.description is not None
    assert found.description.startswith(f"Last run `{run.run_id[:8]}`")
    assert "Of these, 0 still wait for a replay. Dead letters that wait, of all runs: 1." in found.description

    strict.destination.execute("alter table raw.users drop constraint users_email_key")
    assert replay("second").rows == 1
    assert strict.rows("users") == 1000
    assert check_of(materialize(strict, selection=CHECK)).passed
    told = materialization(materialize(strict, selection=[DLQ.to_user_string()]).all_events, "shop/users/dlq")
    assert (told["dead_letters"], told["waiting_dead_letters"]) == (3, 0)


def test_the_job_that_replays_shows_the_check_and_the_dead_letters_as_they_are_then(strict: Project) -> None:
    strict.add_pipeline("users", write_mode="append", destination_section={"on_data_error": "dlq"})
    assert not check_of(materialize(strict)).passed
    job = strict.definitions().resolve_job_def("shop_replay_dead_letters")
    strict.destination.execute("alter table raw.users drop constraint no_seven")
    result = job.execute_in_process()
    told = materialization(result.all_events, "shop/users/dlq")
    assert (told["dead_letters"], told["waiting_dead_letters"], told["new_dead_letters_unique"]) == (3, 1, 1)
    assert "`unique`" in told["newest"]
    assert not check_of(result).passed
    strict.destination.execute("alter table raw.users drop constraint users_email_key")
    found = check_of(job.execute_in_process())
    assert found.passed
    assert found.asset_key == dg.AssetKey(["shop", "users"])
    assert found.description is not None
    assert found.description.endswith("Dead letters that wait, of all runs: 0.")


def test_refused_rows_that_are_only_counted_are_judged_by_the_limits(strict: Project) -> None:
    section = {"on_data_error": "skip", "dead_letters": {"warn_above": "0.2%", "fail_above": 5}}
    strict.add_pipeline("users", write_mode="append", destination_section=section)
    result = materialize(strict)
    assert result.success
    assert strict.rows("users") == 998
    assert check_of(result).passed
    assert materialization(result.all_events, "shop/users/dlq")["dead_letters"] == 0
    strict.destination.execute("delete from raw.users where id > 100")
    result = materialize(strict)
    assert result.success
    found = check_of(result)
    assert (found.passed, found.severity) == (False, ERROR)
    assert found.description == "100 of 1,000 rows left out (10.00%). More than fail_above allows: 5."
