"""Rows that a real table refuses, from database to database through Dagster: nothing is lost between the two."""

# No postponed annotations here: Dagster reads those of an op's function.

import json
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from rapidbyte_dagster import build_pipeline_assets, default_resources, load_pipeline
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
