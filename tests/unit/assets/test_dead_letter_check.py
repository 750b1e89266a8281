from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal

import dagster as dg
import pytest

from rapidbyte_dagster.assets.dead_letter_check import (
    dead_letter_check_result,
    dead_letter_check_spec,
    dead_letter_look_result,
)
from rapidbyte_dagster.assets.dead_letter_figures import RunFigures
from rapidbyte_dagster.config import DeadLetterLimits
from rapidbyte_dagster.config.dead_letter_limits import Share

TABLE = dg.AssetKey(["shop", "users"])
LIMITS = DeadLetterLimits(warn_above=0)
BEGUN = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def figures(
    rows: int, left_out: int, categories: Mapping[str, int] | None = None, waiting: int | None = None
) -> RunFigures:
    """Of a run that kept what it left out, all of which waits unless it says otherwise."""
    return RunFigures(
        run_id="0123456789abcdef",
        started_at=BEGUN,
        rows=rows,
        left_out=left_out,
        dead_letters=left_out,
        by_category=categories or {},
        waiting=left_out if waiting is None else waiting,
    )


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (LIMITS, "Warns above 0."),
        (DeadLetterLimits(warn_above=1000, fail_above=Share(Decimal("0.1"))), "Warns above 1,000, fails above 0.1% of"),
    ],
)
def test_the_check_says_what_it_allows_before_it_runs(limits: DeadLetterLimits, told: str) -> None:
    spec = dead_letter_check_spec(TABLE, limits)
    assert (spec.asset_key, spec.name, spec.blocking) == (TABLE, "dead_letters", False)
    assert spec.description is not None
    assert told in spec.description


@pytest.mark.parametrize(
    ("rows", "left_out", "told"),
    [
        (0, 0, "No row was left out of 0 rows."),
        (1, 0, "No row was left out of 1 row."),
        (0, 2, "2 of 2 rows left out (100.00%). More than warn_above allows: 0."),
        (9_999, 1, "1 of 10,000 rows left out (0.01%). More than warn_above allows: 0."),
        (2_999_999, 1, "1 of 3,000,000 rows left out (less than 0.01%). More than warn_above allows: 0."),
    ],
)
def test_a_share_is_told_in_few_digits_and_never_as_nothing(rows: int, left_out: int, told: str) -> None:
    assert dead_letter_check_result(TABLE, LIMITS, figures(rows, left_out)).description == told


def test_figures_are_numbers_and_categories_a_table() -> None:
    metadata = dead_letter_check_result(TABLE, LIMITS, figures(2_999_997, 3, {"check": 1, "not_null": 2})).metadata
    assert {name: metadata[name].value for name in ("rows", "left_out", "left_out_percent")} == {
        "rows": 2_999_997,
        "left_out": 3,
        "left_out_percent": 0.0001,
    }
    assert str(metadata["categories"].value).splitlines()[2:] == ["| `check` | 1 |", "| `not_null` | 2 |"]


def test_between_runs_the_worse_of_both_counts() -> None:
    limits = DeadLetterLimits(warn_above=Share(Decimal(1)), fail_above=5)
    result = dead_letter_look_result(TABLE, limits, figures(90, 2), 6)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert result.description == (
        "Last run `01234567`, begun 2024-01-02 03:04:05 UTC: 2 of 92 rows left out (2.17%)."
        " Dead letters that wait, of all runs: 6. More than fail_above allows (5): the dead letters that wait."
    )


def test_between_runs_purged_letters_are_not_held_against_their_run() -> None:
    result = dead_letter_look_result(TABLE, LIMITS, figures(90, 10, waiting=0), 0)
    assert result.passed
    assert result.description is not None
    assert "Of these, 0 still wait for a replay." in result.description
