from __future__ import annotations

import dagster as dg
import pytest

from rapidbyte_dagster.assets.drift_check import drift_check_result
from rapidbyte_dagster.config import SchemaEvolution
from rapidbyte_dagster.state import ChangeAction, SchemaChange
from tests.unit.state.samples import a_change

TABLE = dg.AssetKey(["shop", "users"])


def check(*changes: SchemaChange) -> dg.AssetCheckResult:
    return drift_check_result(TABLE, changes, SchemaEvolution())


def test_a_table_that_has_the_streams_columns_passes() -> None:
    result = check()
    assert result.passed
    assert (result.asset_key, result.check_name) == (TABLE, "schema_drift")
    assert result.description == "No difference was found."
    assert result.metadata["changes"].value == 0
    assert "diff" not in result.metadata


@pytest.mark.parametrize("action", ["added", "kept", "widened", "cast", "relaxed", "tightened"])
def test_what_the_policy_lets_the_table_follow_passes_with_the_diff(action: str) -> None:
    result = check(a_change("email", ChangeAction(action)))
    assert result.passed
    assert result.description == f"1 found: 1 {action}"
    assert "`email`" in str(result.metadata["diff"].value)


@pytest.mark.parametrize("action", ["unfilled", "ignored", "nulled", "left"])
def test_what_is_left_aside_warns_with_the_diff(action: str) -> None:
    result = check(a_change("name"), a_change("email", ChangeAction(action)))
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert result.description == f"2 found: 1 added, 1 {action}; column email is new: {action}"
    assert result.metadata["changes"].value == 2
    assert "`email`" in str(result.metadata["diff"].value)


def test_what_is_refused_fails_whatever_else_was_found() -> None:
    changes = [a_change("email", ChangeAction.REFUSED), a_change("name"), a_change("city", ChangeAction.IGNORED)]
    result = check(*changes)
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert result.description == "3 found: 1 refused, 1 added, 1 ignored; column email is new: refused"


def test_what_a_run_would_do_is_not_told_as_done() -> None:
    result = drift_check_result(TABLE, [a_change("email")], SchemaEvolution(), before_run=True)
    assert result.description == "1 found, and by the next run 1 added"


def test_a_description_shows_names_as_they_are() -> None:
    result = check(a_change("<b>*x*</b>", ChangeAction.LEFT))
    assert result.description == r"1 found: 1 left; column \<b>\*x\*\</b> is new: left"


def test_the_policy_is_told_with_every_result() -> None:
    assert str(check().metadata["policy"].value).startswith("new_column: add, removed_column: ignore")


def test_the_description_of_many_changes_stays_short() -> None:
    result = check(*(a_change(f"c{number}", ChangeAction.IGNORED) for number in range(50)))
    assert result.description is not None
    assert result.description.startswith("50 found: 50 ignored; column c0 is new: ignored; ")
    assert result.description.endswith("; and 47 more")
    assert str(result.metadata["diff"].value).count("\n") == 51
