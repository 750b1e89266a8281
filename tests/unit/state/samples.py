"""What the tests put into state stores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from rapidbyte_dagster.config import SchemaEvolution
from rapidbyte_dagster.state import (
    ChangeAction,
    ChangeKind,
    Checkpoint,
    DeadLetter,
    LetterCategory,
    SchemaChange,
    SchemaColumn,
    SchemaVersion,
    Watermark,
)

PIPELINE, STREAM = "shop", "users"


def a_change(column: str = "email", action: ChangeAction = ChangeAction.ADDED, ddl: str | None = None) -> SchemaChange:
    """A new column of the stream."""
    return SchemaChange(
        kind=ChangeKind.NEW_COLUMN,
        column=column,
        stream="text",
        policy="ignore" if action is ChangeAction.IGNORED else "add",
        action=action,
        ddl=() if ddl is None else (ddl,),
        message=f"column {column} is new: {action}",
    )


def a_checkpoint(
    sequence: int,
    cursor: object = None,
    rows: int = 10,
    run_id: str = "run",
    changes: Sequence[SchemaChange] = (),
    rejected: int = 0,
    dead_letters: int = 0,
    replaced: bool = False,
    beneath: Watermark | None = None,
    anew_after: int | None = None,
    final: bool = False,
) -> Checkpoint:
    return Checkpoint(
        pipeline=PIPELINE,
        stream=STREAM,
        sequence=sequence,
        cursor=cursor,
        rows=rows,
        bytes=100,
        rejected=rejected,
        dead_letters=dead_letters,
        run_id=run_id,
        committed_at=datetime.now(timezone.utc),
        schema_changes=tuple(changes),
        replaced=replaced,
        beneath=beneath,
        anew_after=anew_after,
        final=final,
    )


def a_letter(
    message: str = "no", category: LetterCategory = LetterCategory.CHECK, record: str = '{"id":1}'
) -> DeadLetter:
    return DeadLetter(record, '{"id":"integer"}', message, category, "destination", datetime.now(timezone.utc))


def a_version(*names: str, run_id: str = "run", policy: SchemaEvolution | None = None) -> SchemaVersion:
    columns = tuple(SchemaColumn(name=name, type="bigint", arrow_type="int64") for name in names)
    return version_of(*columns, run_id=run_id, policy=policy)


def version_of(
    *columns: SchemaColumn, table: str = "raw.users", run_id: str = "run", policy: SchemaEvolution | None = None
) -> SchemaVersion:
    now = datetime.now(timezone.utc)
    return SchemaVersion(table=table, columns=columns, policy=policy, run_id=run_id, recorded_at=now)
