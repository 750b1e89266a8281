"""The job that replays dead letters, as Dagster runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.state import DeadLetter, LetterCategory, open_state, utc_now
from tests.integration.assets.project import Project, events_of, materialization, materialized, step_failure

OP = "shop_replay_dead_letters_op"


@pytest.fixture
def shop(project: Project) -> Project:
    """Two streams whose tables are loaded."""
    project.add_pipeline("users", "orders", destination_section={"on_data_error": "dlq"})
    assert project.definitions().resolve_job_def("shop_job").execute_in_process().success
    return project


def set_aside(project: Project, stream: str, *records: Mapping[str, Any]) -> None:
    pipeline = load_pipeline(project.pipelines / "shop.yaml")
    number = "integer" if stream == "orders" else "bigint"
    types = {"id": number, "email": "text", "user_id": "bigint", "created_at": "timestamp with time zone"}
    letters = [
        DeadLetter(
            json.dumps(record),
            json.dumps({name: types[name] for name in record}),
            "no",
            LetterCategory.CHECK,
            "destination",
            utc_now(),
        )
        for record in records
    ]
    with open_state(pipeline, {"DAGSTER_HOME": str(project.dagster_home)}) as state:
        last = state.latest_checkpoint("shop", stream)
        assert last is not None
        state.add_dead_letters("shop", stream, letters, run_id=last.run_id, sequence=last.sequence)


def user(number: int) -> dict[str, Any]:
    return {"id": number, "email": f"user{number}", "created_at": "2024-01-01 00:00:00+00"}


def replay(project: Project, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    job = project.definitions().resolve_job_def("shop_replay_dead_letters")
    run_config = {"ops": {OP: {"config": config}}} if config else None
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)


def test_the_job_replays_whatever_waits_and_materialises_what_changed(
    shop: Project, instance: dg.DagsterInstance
) -> None:
    set_aside(shop, "users", user(2001), user(2002))
    result = replay(shop, instance)
    assert result.success
    assert shop.rows("users") == 1002
    events = events_of(instance, result.run_id)
    assert materialized(events) == {"shop/users", "shop/users/dlq"}
    assert materialization(events, "shop/users") == {
        "replayed_dead_letters": 2,
        "rows": 2,
        "failed_again": 0,
        "checkpoint_sequence": 2,
    }
    dlq = materialization(events, "shop/users/dlq")
    assert (dlq["dead_letters"], dlq["waiting_dead_letters"]) == (2, 0)
    again = replay(shop, instance)
    assert again.success
    assert materialized(events_of(instance, again.run_id)) == set()
    assert shop.rows("users") == 1002


def test_the_job_replays_what_is_chosen(shop: Project, instance: dg.DagsterInstance) -> None:
    set_aside(shop, "users", user(2001), user(2002))
    set_aside(shop, "orders", {"user_id": 1, "id": 9001})
    assert replay(shop, instance, streams=["orders"]).success
    assert (shop.rows("users"), shop.rows("orders")) == (1000, 5001)
    assert replay(shop, instance, ids=[2]).success
    assert shop.rows("users") == 1001
    assert replay(shop, instance, categories=["cast"], run_id="nobody's").success
    assert shop.rows("users") == 1001
    for config, told in (
        ({"streams": ["usres"]}, "has no stream 'usres'; "),
        ({"categories": ["chekc"]}, "categories: found 'chekc'; allowed: not_null, check"),
        ({"ids": [777]}, "no dead letter 777"),
    ):
        result = replay(shop, instance, **config)
        assert not result.success
        assert told.split(";")[0] in step_failure(events_of(instance, result.run_id), OP).description


def test_a_stream_that_fails_does_not_keep_the_others_from_theirs(shop: Project, instance: dg.DagsterInstance) -> None:
    set_aside(shop, "users", user(2001))
    set_aside(shop, "orders", {"user_id": 1, "id": 9001})
    shop.destination.execute("DROP TABLE raw.users")
    result = replay(shop, instance)
    assert not result.success
    assert shop.rows("orders") == 5001
    failure = step_failure(events_of(instance, result.run_id), OP)
    assert "raw.users is gone" in failure.description
    assert failure.metadata["stream"].value == "users"


def test_only_pipelines_that_set_rows_aside_have_the_job(project: Project) -> None:
    project.add_pipeline("users")
    with pytest.raises(dg.DagsterInvariantViolationError):
        project.definitions().resolve_job_def("shop_replay_dead_letters")


@pytest.mark.full
def test_the_job_runs_as_a_user_starts_it(shop: Project, instance: dg.DagsterInstance) -> None:
    """In processes of its own, which build the definitions again."""
    set_aside(shop, "users", user(2001))
    done = shop.dagster("job", "execute", "-f", str(shop.definitions_file), "-j", "shop_replay_dead_letters")
    assert done.returncode == 0, done.stderr
    assert shop.rows("users") == 1001
    assert "users: 1 dead letters replayed, 1 rows are in the table" in done.stderr
