"""Whether a table is one of dead letters: its columns, held against those that the stores write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rapidbyte_dagster.errors import StateError

# Which columns there have to be, by their SQL types; the key is the database's own kind of number.
COLUMNS: Mapping[str, str] = {
    "stream_name": "text",
    "record_json": "text",
    "error_message": "text",
    "error_category": "text",
    "failed_at": "text",
    "pipeline_name": "text",
    "run_id": "text",
    "stage": "text",
    "column_name": "text",
    "checkpoint_sequence": "bigint",
    "sqlstate": "text",
    "constraint_name": "text",
    "types_json": "text",
    "replayed_by_run": "text",
    "replayed_sequence": "bigint",
}


class FoundColumn(NamedTuple):
    name: str
    type: str
    """In lower case."""
    may_be_absent: bool
    """Whether a row may leave it out: it may be NULL, or gets a value by itself."""
    counts: bool
    """Whether the value that it gets by itself is one of its own in each row."""


def require_shape(table: str, found: Sequence[FoundColumn], *, key_type: str, where: str) -> None:
    """Raises `StateError` for a table that dead letters cannot be kept in. `where` names the store."""
    columns = {column.name: column for column in found}
    faults = []
    for name, wanted in {"id": key_type, **COLUMNS}.items():
        column = columns.pop(name, None)
        if column is None:
            faults.append(f"column {name} is missing")
        elif column.type != wanted:
            faults.append(f"column {name} is {column.type or 'of no type'} and not {wanted}")
        elif name == "id" and not column.counts:
            faults.append("column id does not count by itself")
    faults += [
        f"column {column.name} needs a value of its own" for column in columns.values() if not column.may_be_absent
    ]
    if faults:
        shown = "; ".join(faults[:_FAULTS_SHOWN])
        more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise StateError(
            f"table {table} of {where} is not one of dead letters: {shown}{more}",
            hint="name another one as `dlq_table` under `destination`, which is made then, or move this one away",
        )


_FAULTS_SHOWN = 3
