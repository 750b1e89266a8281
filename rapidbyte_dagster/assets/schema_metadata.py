"""What the `…/schema` asset tells: a table's columns, the policy in force, and every change that was found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets import markdown
from rapidbyte_dagster.assets.metadata import table_schema

if TYPE_CHECKING:
    from rapidbyte_dagster.config import SchemaEvolution
    from rapidbyte_dagster.state import SchemaChange, SchemaState, SchemaVersion

# The newest changes that the asset shows; the value it loads as has all of them.
CHANGES_SHOWN = 20

# Hexadecimal digits of a run's id: what Dagster's UI shows of it.
_RUN_ID_SHOWN = 8

_KINDS = {
    "new_column": "new column",
    "removed_column": "removed column",
    "type_change": "type",
    "nullability_change": "nullability",
    "primary_key": "primary key",
}
_CHANGE_HEADER = ("column", "change", "in the stream", "in the table", "what the policy does", "DDL")


def schema_metadata(schema: SchemaState, current: SchemaVersion, run_id: str) -> dict[str, Any]:
    """The metadata of a schema's materialisation in run `run_id`. The counts are whole numbers so that they plot."""
    return {
        "version": len(schema.versions),
        "fingerprint": current.fingerprint,
        # Older versions did not write it down.
        **({"policy": policy_text(current.policy)} if current.policy is not None else {}),
        "columns": len(current.columns),
        "recorded_at": dg.MetadataValue.timestamp(current.recorded_at),
        "changes": sum(len(event.changes) for event in schema.history),
        "new_changes": sum(len(event.changes) for event in schema.history if event.run_id == run_id),
        "history": dg.MetadataValue.md(_history(schema)),
        "column_types": dg.MetadataValue.md(_column_types(current)),
        "dagster/column_schema": table_schema(current.columns, current.primary_key),
    }


def policy_text(policy: SchemaEvolution) -> str:
    """What it says of each of its four axes, on one line."""
    return ", ".join(f"{axis}: {value}" for axis, value in policy.model_dump(mode="json").items())


def changes_table(changes: Iterable[SchemaChange]) -> str:
    """`changes` as a Markdown table."""
    return markdown.table(_CHANGE_HEADER, map(_change_cells, changes))


def _history(schema: SchemaState) -> str:
    newest = [(event, change) for event in reversed(schema.history) for change in event.changes]
    if not newest:
        return "No change was found yet."
    shown = newest[:CHANGES_SHOWN]
    rows = (
        [markdown.time(event.at), markdown.code(event.run_id[:_RUN_ID_SHOWN]), *_change_cells(c)] for event, c in shown
    )
    older = f"\n\nAnd {len(newest) - len(shown)} older ones." if len(newest) > len(shown) else ""
    return markdown.table(("when", "run", *_CHANGE_HEADER), rows) + older


def _change_cells(change: SchemaChange) -> list[str]:
    kind = str(change.kind)
    return [
        markdown.code(change.column or ""),
        _KINDS.get(kind, kind),
        markdown.code(change.stream or ""),
        markdown.code(change.table or ""),
        f"{change.action} ({kind}: {change.policy})" if change.policy else str(change.action),
        " ".join(map(markdown.code, change.ddl)),
    ]


def _column_types(version: SchemaVersion) -> str:
    key = set(version.primary_key)
    rows = (
        [
            markdown.code(column.name),
            markdown.code(column.type),
            markdown.code(column.arrow_type or ""),
            "yes" if column.nullable else "no",
            "yes" if column.name in key else "",
        ]
        for column in version.columns
    )
    return markdown.table(("column", "PostgreSQL type", "Arrow type", "nullable", "primary key"), rows)
