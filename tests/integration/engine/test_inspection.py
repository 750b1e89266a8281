"""What `check_pipeline` makes of connectors that can compare, cannot, or do it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import Finding, check_pipeline
from rapidbyte_dagster.errors import Stage
from tests.integration.engine.written_destination import TAKE, WrittenDestination, drift
from tests.integration.engine.written_source import WrittenSource, a_batch, a_schema
from tests.pipelines import make_pipeline

SOURCE = WrittenSource(description=[a_schema()])
AGREES = WrittenDestination(comparison=[TAKE])

KEY = {
    "kind": "primary_key",
    "column": None,
    "stream": "id",
    "table": "id, tenant",
    "policy": None,
    "action": "left",
    "message": "the table keeps its own key",
}


def pipeline_of(folder: Path, source: WrittenSource, destination: WrittenDestination) -> Pipeline:
    return make_pipeline(
        folder,
        {},
        {},
        ["users", "orders"],
        source_section={"use": source.write(folder)},
        destination_section={"use": destination.write(folder)},
    )


def compared(folder: Path, source: WrittenSource, destination: WrittenDestination) -> list[Finding]:
    """What is told of columns."""
    findings = check_pipeline(pipeline_of(folder, source, destination), {})
    assert [finding.check for finding in findings[:2]] == ["connection", "connection"]
    return findings[2:]


def test_each_stream_is_compared_by_connectors_of_its_own(tmp_path: Path) -> None:
    assert [(finding.stream, finding.level, finding.check) for finding in compared(tmp_path, SOURCE, AGREES)] == [
        ("users", "ok", "schema"),
        ("orders", "ok", "schema"),
    ]


def test_a_destination_that_takes_everything_up_to_the_end_is_served(tmp_path: Path) -> None:
    takes_all = WrittenDestination(comparison=[TAKE, TAKE, TAKE])
    assert [finding.level for finding in compared(tmp_path, SOURCE, takes_all)] == ["ok", "ok"]


def test_connectors_that_cannot_compare_are_not_asked_to(tmp_path: Path) -> None:
    assert compared(tmp_path, WrittenSource(), AGREES) == []
    assert compared(tmp_path, SOURCE, WrittenDestination()) == []


def test_a_change_that_no_policy_decides_about_is_told_without_one(tmp_path: Path) -> None:
    finding, _ = compared(tmp_path, SOURCE, WrittenDestination(comparison=[TAKE, drift(KEY)]))
    assert (finding.level, finding.message, finding.hint, finding.exit_code) == (
        "warning",
        "the table keeps its own key",
        None,
        0,
    )
    assert finding.change is not None
    assert finding.change.table == "id, tenant"


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ([], "emitted no schema message"),
        ([a_schema(), a_schema()], "emitted more than a schema message"),
        ([a_batch(1)], "emitted a record batch before any schema"),
    ],
)
def test_a_source_that_describes_a_stream_wrong_is_told_of_each(
    tmp_path: Path, description: list[bytes], told: str
) -> None:
    findings = compared(tmp_path, WrittenSource(description=description), AGREES)
    assert [(f.stage, f.stream, f.level, f.exit_code, told in f.message) for f in findings] == [
        (Stage.SOURCE, "users", "error", 4, True),
        (Stage.SOURCE, "orders", "error", 4, True),
    ]


def test_a_destination_that_tells_changes_wrong_is_told_of_each(tmp_path: Path) -> None:
    wrong = {**KEY, "kind": "new_column"}
    findings = compared(tmp_path, SOURCE, WrittenDestination(comparison=[TAKE, drift(wrong)]))
    assert [(f.stage, f.stream, f.level, f.exit_code) for f in findings] == [
        (Stage.DESTINATION, "users", "error", 5),
        (Stage.DESTINATION, "orders", "error", 5),
    ]
    assert "told of schema changes in a form that the ABI does not have" in findings[0].message
