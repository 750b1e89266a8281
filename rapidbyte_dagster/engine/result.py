"""What a run tells: while it goes on, and when it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rapidbyte_dagster.state import Checkpoint, SchemaChange, SchemaColumn

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Progress:
    """How far a running stream is; rows and Arrow bytes are those that the source has emitted."""

    stream: str
    rows: int
    bytes: int
    rows_committed: int
    elapsed_seconds: float
    attempt: int


@dataclass(frozen=True)
class StreamResult:
    """A stream that was moved and committed."""

    stream: str
    rows: int
    """Those that are in the table."""
    bytes: int
    """Arrow bytes that went from source to destination."""
    batches: int
    seconds: float
    """From the connectors' start to the last commit, of the attempt that succeeded."""
    attempts: int
    retried: tuple[str, ...]
    """Why earlier attempts failed, oldest first."""
    table: str
    """`schema.table` at the destination."""
    columns: tuple[SchemaColumn, ...]
    primary_key: tuple[str, ...]
    checkpoint: Checkpoint
    arrow_schema: pa.Schema
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds: how long each side waited for the other, and what the connectors measured of themselves."""
    peak_memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes by stage: linear memory of its connectors; and of `channel`, what waited between the stages."""
    rejected: int = 0
    """Rows that are not in the table because of what is in them: the source or the destination left them out."""
    dead_letters: int = 0
    """Those of them that are kept as dead letters."""
    filtered: int | None = None
    """Rows that a transform left out on purpose; None where there is no transform."""
    changes: Mapping[str, int] | None = None
    """Of a capture: rows of the table that were `inserted`, `updated` and `deleted`, and how often it was
    `truncated`."""
    schema_changes: tuple[SchemaChange, ...] = ()
    """How the stream's columns and the table's differed, and what became of that; also what is known for long."""

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds > 0 else 0.0


ProgressListener = Callable[[Progress], None]
LogListener = Callable[[int, str], None]
"""Takes a level of `logging` and one message without secrets; called from the stages' threads."""

DriftListener = Callable[[tuple[SchemaChange, ...]], None]
"""Takes what one commit finds and does, or why there will be none; called from the destination's thread, before it."""


def log_to(logger: logging.Logger) -> LogListener:
    return logger.log


def ignore_log(level: int, message: str) -> None:
    """The `LogListener` of a caller that gave none."""
