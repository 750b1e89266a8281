"""What is remembered between runs: checkpoints, dead letters, schemas, runs."""

from rapidbyte_dagster.state.cursors import cursor_text, shortened
from rapidbyte_dagster.state.models import (
    Checkpoint,
    Committed,
    ResumePoint,
    RunRecord,
    SchemaColumn,
    SchemaState,
    SchemaVersion,
    Watermark,
    utc_now,
)
from rapidbyte_dagster.state.store import StateStore, open_state

__all__ = [
    "Checkpoint",
    "Committed",
    "ResumePoint",
    "RunRecord",
    "SchemaColumn",
    "SchemaState",
    "SchemaVersion",
    "StateStore",
    "Watermark",
    "cursor_text",
    "open_state",
    "shortened",
    "utc_now",
]
