"""What is remembered between runs: checkpoints, dead letters, schemas, runs."""

from rapidbyte_dagster.state.cursors import cursor_text, shortened
from rapidbyte_dagster.state.models import (
    ChangeAction,
    ChangeKind,
    Checkpoint,
    Committed,
    DeadLetter,
    DeadLetterCounts,
    DeadLetterPreview,
    LetterCategory,
    ResumePoint,
    RunRecord,
    SchemaChange,
    SchemaColumn,
    SchemaEvent,
    SchemaState,
    SchemaVersion,
    Watermark,
    utc_now,
)
from rapidbyte_dagster.state.store import StateStore, open_existing_state, open_state

__all__ = [
    "ChangeAction",
    "ChangeKind",
    "Checkpoint",
    "Committed",
    "DeadLetter",
    "DeadLetterCounts",
    "DeadLetterPreview",
    "LetterCategory",
    "ResumePoint",
    "RunRecord",
    "SchemaChange",
    "SchemaColumn",
    "SchemaEvent",
    "SchemaState",
    "SchemaVersion",
    "StateStore",
    "Watermark",
    "cursor_text",
    "open_existing_state",
    "open_state",
    "shortened",
    "utc_now",
]
