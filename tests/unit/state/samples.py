"""What the tests put into state stores."""

from __future__ import annotations

from datetime import datetime, timezone

from rapidbyte_dagster.state import Checkpoint, SchemaColumn, SchemaVersion

PIPELINE, STREAM = "shop", "users"


def a_checkpoint(sequence: int, cursor: object = None, rows: int = 10, run_id: str = "run") -> Checkpoint:
    return Checkpoint(
        pipeline=PIPELINE,
        stream=STREAM,
        sequence=sequence,
        cursor=cursor,
        rows=rows,
        bytes=100,
        run_id=run_id,
        committed_at=datetime.now(timezone.utc),
    )


def a_version(*names: str, run_id: str = "run") -> SchemaVersion:
    columns = tuple(SchemaColumn(name=name, type="bigint") for name in names)
    return SchemaVersion(table="raw.users", columns=columns, run_id=run_id, recorded_at=datetime.now(timezone.utc))
