"""Dead letters as an Arrow table: one row per rejected record, columns as in `_rapidbyte_dlq`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

_FIELDS: list[pa.Field[pa.DataType]] = [
    pa.field("id", pa.int64(), nullable=False),
    pa.field("stream_name", pa.string(), nullable=False),
    pa.field("record_json", pa.string(), nullable=False),
    pa.field("error_message", pa.string(), nullable=False),
    pa.field("error_category", pa.string(), nullable=False),
    pa.field("failed_at", pa.string(), nullable=False),
    pa.field("pipeline_name", pa.string(), nullable=False),
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("stage", pa.string(), nullable=False),
    pa.field("column_name", pa.string()),
    pa.field("checkpoint_sequence", pa.int64()),
    pa.field("sqlstate", pa.string()),
    pa.field("constraint_name", pa.string()),
    pa.field("types_json", pa.string()),
    pa.field("replayed_by_run", pa.string()),
    pa.field("replayed_sequence", pa.int64()),
]

DEAD_LETTER_SCHEMA = pa.schema(_FIELDS)

COLUMNS: tuple[str, ...] = tuple(DEAD_LETTER_SCHEMA.names)


def to_table(rows: Iterable[tuple[Any, ...]]) -> pa.Table:
    """`rows` in the order of `COLUMNS`; no rows give an empty table of the same schema."""
    return pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], schema=DEAD_LETTER_SCHEMA)
