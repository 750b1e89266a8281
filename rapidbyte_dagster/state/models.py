"""What the state store remembers of a stream, as frozen models."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeInt


def utc_now() -> datetime:
    """As the times of records are."""
    return datetime.now(timezone.utc)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Checkpoint(_Record):
    """A point that a stream can resume from: everything before it is committed at the destination."""

    pipeline: str
    stream: str
    sequence: int
    """Counts the stream's commits upwards, from 1; numbers of commits that did not happen stay out."""
    cursor: Any = None
    """The source connector's own resume position, any JSON value; None for a full refresh."""
    rows: int
    """Rows committed by this checkpoint alone."""
    bytes: int
    """Arrow bytes committed by this checkpoint alone."""
    run_id: str
    committed_at: datetime


class Committed(NamedTuple):
    """What several checkpoints of one run have committed together."""

    checkpoints: int = 0
    rows: int = 0
    bytes: int = 0


class Watermark(_Record):
    """What the destination says it committed last, read from the transaction log of the data itself."""

    sequence: NonNegativeInt
    cursor: Any = None
    run_id: str | None = None
    """The run that committed it; None where nobody wrote that down."""
    final: bool = False
    """Whether that commit was the last of its run: the stream was read to its end."""


class ResumePoint(_Record):
    """Where a run starts: the last committed sequence (0: never) and the cursor that belongs to it."""

    sequence: int = 0
    cursor: Any = None


class SchemaColumn(_Record):
    name: str
    type: str
    """The column's type at the destination, as its database writes it."""
    arrow_type: str | None = None
    nullable: bool = True


class SchemaVersion(_Record):
    """The shape of a destination table, from the run that first saw it."""

    table: str
    columns: tuple[SchemaColumn, ...]
    primary_key: tuple[str, ...] = ()
    run_id: str
    recorded_at: datetime

    @property
    def fingerprint(self) -> str:
        """Equal exactly when table, columns and key are equal: 16 hexadecimal digits."""
        shape = [self.table, [c.model_dump() for c in self.columns], self.primary_key]
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


class SchemaState(_Record):
    """A stream's current schema and those before it, oldest first."""

    pipeline: str
    stream: str
    current: SchemaVersion | None = None
    history: tuple[SchemaVersion, ...] = ()


class RunRecord(_Record):
    """One attempt-spanning run of one stream, or somebody's moving of its cursor."""

    run_id: str
    pipeline: str
    stream: str
    status: str
    """running, ok, failed or cancelled; reset or rewound where only the cursor was moved."""
    started_at: datetime
    ended_at: datetime | None = None
    rows: int = 0
    bytes: int = 0
    attempts: int = 0
    error: str | None = None
