from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import dagster as dg
import pyarrow as pa

from rapidbyte_dagster.assets.metadata import table_metadata
from rapidbyte_dagster.engine import Start, StreamResult
from rapidbyte_dagster.state import Checkpoint, SchemaColumn

SOURCE = dg.AssetKey(["shop", "source", "public", "users"])

RESULT = StreamResult(
    stream="users",
    rows=1000,
    bytes=4 * 1024 * 1024,
    batches=2,
    seconds=2.0,
    attempts=2,
    retried=("source: connection reset [transient_network]\n  hint: `wait`",),
    table="raw.users",
    columns=(
        SchemaColumn(name="id", type="bigint", arrow_type="int64", nullable=False),
        SchemaColumn(name="email", type="character varying(80)", arrow_type="string"),
    ),
    primary_key=("id",),
    checkpoint=Checkpoint(
        pipeline="shop",
        stream="users",
        sequence=7,
        rows=1000,
        bytes=4 * 1024 * 1024,
        run_id="r",
        committed_at=datetime(2024, 1, 1, tzinfo=timezone.utc),
    ),
    arrow_schema=pa.schema([("id", pa.int64())]),
    timings={"source_blocked_seconds": 0.5},
    peak_memory={"source": 1024, "destination": 2048},
)


def test_the_numbers_of_a_run_are_numbers_that_dagster_plots() -> None:
    metadata = table_metadata(RESULT, source=SOURCE, replaced=False, start=Start.RESUME, checkpoints=3)
    numbers = {name: value for name, value in metadata.items() if isinstance(value, (int, float))}
    assert numbers == {
        "rows": 1000,
        "bytes": 4 * 1024 * 1024,
        "batches": 2,
        "duration_seconds": 2.0,
        "rows_per_second": 500.0,
        "megabytes_per_second": 2.0,
        "rejected": 0,
        "dead_letters": 0,
        "schema_changes": 0,
        "attempts": 2,
        "checkpoint_sequence": 7,
        "checkpoints_committed": 3,
        "timing_source_blocked_seconds": 0.5,
        "peak_memory_bytes_destination": 2048,
        "peak_memory_bytes_source": 1024,
    }


def test_a_table_that_was_replaced_has_a_row_count_and_one_that_was_appended_to_has_none() -> None:
    assert (
        table_metadata(RESULT, source=SOURCE, replaced=True, start=Start.RESUME, checkpoints=3)["dagster/row_count"]
        == 1000
    )
    assert "dagster/row_count" not in table_metadata(
        RESULT, source=SOURCE, replaced=False, start=Start.RESUME, checkpoints=3
    )


def test_an_empty_run_tells_its_zeros() -> None:
    metadata = table_metadata(
        replace(RESULT, rows=0, bytes=0, seconds=0.0), source=SOURCE, replaced=True, start=Start.RESUME, checkpoints=3
    )
    assert (metadata["rows"], metadata["rows_per_second"], metadata["dagster/row_count"]) == (0, 0.0, 0)


def test_the_column_schema_has_the_destinations_types_nullability_and_key() -> None:
    schema = table_metadata(RESULT, source=SOURCE, replaced=False, start=Start.RESUME, checkpoints=3)[
        "dagster/column_schema"
    ]
    assert isinstance(schema, dg.TableSchema)
    key, email = schema.columns
    assert (key.name, key.type, key.constraints.nullable, key.constraints.unique) == ("id", "bigint", False, True)
    assert key.constraints.other == ["primary key"]
    assert (email.name, email.type, email.constraints.nullable) == ("email", "character varying(80)", True)
    assert schema.constraints is not None
    assert schema.constraints.other == ["primary key (id)"]


def test_a_column_of_a_wider_key_is_not_unique_by_itself() -> None:
    wide = replace(RESULT, primary_key=("id", "email"))
    schema = table_metadata(wide, source=SOURCE, replaced=False, start=Start.RESUME, checkpoints=3)[
        "dagster/column_schema"
    ]
    assert [column.constraints.unique for column in schema.columns] == [False, False]
    assert schema.constraints.other == ["primary key (id, email)"]


def test_each_column_comes_from_the_source_tables_column_of_the_same_name() -> None:
    lineage = table_metadata(RESULT, source=SOURCE, replaced=False, start=Start.RESUME, checkpoints=3)[
        "dagster/column_lineage"
    ]
    assert lineage.deps_by_column == {
        name: [dg.TableColumnDep(asset_key=SOURCE, column_name=name)] for name in ("id", "email")
    }


def test_a_start_is_told_when_it_is_not_the_usual_one_and_a_cursor_when_there_is_one() -> None:
    usual = table_metadata(RESULT, source=SOURCE, replaced=False, start=Start.RESUME, checkpoints=3)
    assert not {"start", "cursor_value"} & set(usual)
    cursor = {"field": "updated_at", "type": "timestamptz", "value": "2024-01-02 03:04:05+00", "seen": ["x"] * 9999}
    moved = replace(RESULT, checkpoint=RESULT.checkpoint.model_copy(update={"cursor": cursor}))
    metadata = table_metadata(moved, source=SOURCE, replaced=False, start=Start.RESET, checkpoints=3)
    assert (metadata["start"], metadata["cursor_value"]) == ("reset", "updated_at = 2024-01-02 03:04:05+00")


def test_the_reasons_of_earlier_attempts_are_shown_on_a_line_each() -> None:
    metadata = table_metadata(RESULT, source=SOURCE, replaced=False, start=Start.RESUME, checkpoints=3)
    assert metadata["retried"].value == "1. `` source: connection reset [transient_network]   hint: `wait` ``"
