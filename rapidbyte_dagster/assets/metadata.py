"""What a materialisation tells of its run: numbers that Dagster plots, and the table's shape and lineage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets import markdown

if TYPE_CHECKING:
    from rapidbyte_dagster.engine import Start, StreamResult
    from rapidbyte_dagster.state import Checkpoint, SchemaColumn

_MEGABYTE = 1024 * 1024


def table_metadata(
    result: StreamResult, *, source: dg.AssetKey | None, replaced: bool, start: Start, checkpoints: int
) -> dict[str, Any]:
    """The metadata of a table's materialisation. Seconds, bytes and rows are plain numbers so that they plot.

    `replaced`: the run wrote the whole table, so that its rows are the table's row count; after an append nobody
    counted. `checkpoints` is how many of them the run committed. The table's name is left to the asset's definition: at
    run time it may hold values of the environment.
    """
    metadata: dict[str, Any] = {
        "rows": result.rows,
        "bytes": result.bytes,
        "batches": result.batches,
        "duration_seconds": round(result.seconds, 3),
        "rows_per_second": round(result.rows_per_second, 1),
        "megabytes_per_second": round(result.bytes / _MEGABYTE / result.seconds, 1) if result.seconds > 0 else 0.0,
        "rejected": result.rejected,
        **({"filtered": result.filtered} if result.filtered is not None else {}),
        "dead_letters": result.dead_letters,
        "schema_changes": len(result.schema_changes),
        "attempts": result.attempts,
        "checkpoint_sequence": result.checkpoint.sequence,
        "checkpoints_committed": checkpoints,
        **cursor_value(result.checkpoint),
        **{f"timing_{name}": round(float(value), 3) for name, value in sorted(result.timings.items())},
        **{f"peak_memory_bytes_{stage}": value for stage, value in sorted(result.peak_memory.items())},
        "dagster/column_schema": table_schema(result.columns, result.primary_key),
    }
    if start != "resume":
        metadata["start"] = str(start)
    if result.retried:
        metadata["retried"] = dg.MetadataValue.md("\n".join(f"1. {markdown.code(reason)}" for reason in result.retried))
    if replaced:
        metadata["dagster/row_count"] = result.rows
    if source is not None:
        metadata["dagster/column_lineage"] = column_lineage(source, (column.name for column in result.columns))
    return metadata


def cursor_value(checkpoint: Checkpoint) -> dict[str, str]:
    """Where an incremental stream goes on, as a line of text; nothing where a checkpoint has no cursor."""
    from rapidbyte_dagster.state import cursor_text

    return {} if checkpoint.cursor is None else {"cursor_value": cursor_text(checkpoint.cursor)}


def table_schema(columns: Iterable[SchemaColumn], primary_key: Iterable[str]) -> dg.TableSchema:
    """`columns` with the destination's own types; the key shows on its columns and on the table."""
    key = tuple(primary_key)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.type,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable,
                    unique=key == (column.name,),
                    other=["primary key"] if column.name in key else [],
                ),
            )
            for column in columns
        ],
        constraints=dg.TableConstraints(other=[f"primary key ({', '.join(key)})"] if key else []),
    )


def column_lineage(source: dg.AssetKey, columns: Iterable[str]) -> dg.TableColumnLineage:
    """Each column comes from the source table's column of the same name."""
    return dg.TableColumnLineage(
        deps_by_column={name: [dg.TableColumnDep(asset_key=source, column_name=name)] for name in columns}
    )
