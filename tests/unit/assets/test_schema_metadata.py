from __future__ import annotations

from datetime import datetime, timedelta, timezone

import dagster as dg
from markdown_it import MarkdownIt

from rapidbyte_dagster.assets.schema_metadata import CHANGES_SHOWN, schema_metadata
from rapidbyte_dagster.config import SchemaEvolution
from rapidbyte_dagster.state import (
    ChangeAction,
    ChangeKind,
    SchemaChange,
    SchemaColumn,
    SchemaEvent,
    SchemaState,
    SchemaVersion,
)

RUN, EARLIER_RUN = "0b15946c-5a5e-4b1e-8f0e-000000000000", "2443887a-1111-4b1e-8f0e-000000000000"
AT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))

VERSION = SchemaVersion(
    table="raw.users",
    columns=(
        SchemaColumn(name="id", type="bigint", arrow_type="int64", nullable=False),
        SchemaColumn(name="no|te", type="character varying(80)", arrow_type="string"),
        SchemaColumn(name="loaded_at", type="timestamp with time zone"),
    ),
    primary_key=("id",),
    policy=SchemaEvolution(),
    run_id=RUN,
    recorded_at=AT,
)

ADDED = SchemaChange(
    kind=ChangeKind.NEW_COLUMN,
    column="no|te",
    stream="character varying(80)",
    policy="add",
    action=ChangeAction.ADDED,
    ddl=('alter table "raw"."users" add column "no|te" character varying(80)',),
    message='column "no|te" is new and was added',
)
KEY = SchemaChange(
    kind=ChangeKind.PRIMARY_KEY, stream="(id, email)", table="(id)", action=ChangeAction.LEFT, message="another key"
)


def event(*changes: SchemaChange, run_id: str = EARLIER_RUN, hours: int = 0) -> SchemaEvent:
    return SchemaEvent(changes=changes, run_id=run_id, sequence=1, at=AT + timedelta(hours=hours))


def metadata_of(*history: SchemaEvent, version: SchemaVersion = VERSION) -> dict[str, object]:
    state = SchemaState(pipeline="shop", stream="users", current=version, versions=(version,), history=history)
    return schema_metadata(state, version, RUN)


def rows_of(value: object) -> list[list[str]]:
    """The rows of a Markdown table, each cell as it is shown."""
    assert isinstance(value, dg.MarkdownMetadataValue)
    assert value.value is not None
    rows: list[list[str]] = []
    for token in MarkdownIt().enable("table").parse(value.value):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 2:
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


def test_the_current_schema_and_the_policy_in_force_are_told() -> None:
    metadata = metadata_of()
    assert (metadata["version"], metadata["columns"], metadata["fingerprint"]) == (1, 3, VERSION.fingerprint)
    assert metadata["policy"] == (
        "new_column: add, removed_column: ignore, type_change: fail, nullability_change: allow"
    )
    assert isinstance(metadata["dagster/column_schema"], dg.TableSchema)
    assert isinstance(metadata["recorded_at"], dg.TimestampMetadataValue)


def test_a_version_that_knows_no_policy_tells_none() -> None:
    assert "policy" not in metadata_of(version=VERSION.model_copy(update={"policy": None}))


def test_each_column_has_its_postgresql_and_its_arrow_type() -> None:
    assert rows_of(metadata_of()["column_types"]) == [
        ["column", "PostgreSQL type", "Arrow type", "nullable", "primary key"],
        ["id", "bigint", "int64", "no", "yes"],
        ["no|te", "character varying(80)", "string", "yes", ""],
        ["loaded_at", "timestamp with time zone", "", "yes", ""],
    ]


def test_the_counters_are_whole_numbers_also_when_nothing_changed() -> None:
    metadata = metadata_of()
    assert (metadata["changes"], metadata["new_changes"]) == (0, 0)
    metadata = metadata_of(event(ADDED, KEY), event(ADDED, run_id=RUN))
    assert (metadata["changes"], metadata["new_changes"]) == (3, 1)


def test_a_history_without_changes_says_so() -> None:
    value = metadata_of()["history"]
    assert isinstance(value, dg.MarkdownMetadataValue)
    assert value.value == "No change was found yet."


def test_every_change_has_a_row_with_what_was_found_and_done_newest_first() -> None:
    header, *rows = rows_of(metadata_of(event(KEY), event(ADDED, run_id=RUN, hours=1))["history"])
    assert header == ["when", "run", "column", "change", "in the stream", "in the table", "what the policy does", "DDL"]
    assert rows == [
        [
            "2024-01-02 02:04:05 UTC",
            "0b15946c",
            "no|te",
            "new column",
            "character varying(80)",
            "",
            "added (new_column: add)",
            'alter table "raw"."users" add column "no|te" character varying(80)',
        ],
        ["2024-01-02 01:04:05 UTC", "2443887a", "", "primary key", "(id, email)", "(id)", "left", ""],
    ]


def test_a_long_history_shows_its_newest_changes_and_how_many_are_left_out() -> None:
    value = metadata_of(*[event(ADDED, KEY, hours=hour) for hour in range(CHANGES_SHOWN)])["history"]
    assert len(rows_of(value)) == 1 + CHANGES_SHOWN
    assert isinstance(value, dg.MarkdownMetadataValue)
    assert value.value is not None
    assert value.value.endswith(f"\n\nAnd {CHANGES_SHOWN} older ones.")
