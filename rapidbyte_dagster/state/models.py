"""What the state store remembers of a stream, as frozen models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from rapidbyte_dagster.config import SchemaEvolution


def utc_now() -> datetime:
    """As the times of records are."""
    return datetime.now(timezone.utc)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class ChangeKind(str, Enum):
    """What differs between a stream's columns and its table's."""

    __str__ = str.__str__

    NEW_COLUMN = "new_column"
    REMOVED_COLUMN = "removed_column"
    TYPE_CHANGE = "type_change"
    NULLABILITY_CHANGE = "nullability_change"
    PRIMARY_KEY = "primary_key"
    """Of the source table. No policy decides about it: the destination's key stays."""


class ChangeAction(str, Enum):
    """What became of it."""

    __str__ = str.__str__

    ADDED = "added"
    """The table got the column."""
    UNFILLED = "unfilled"
    """… and has NULL in rows that were there, which may have a value at the source."""
    IGNORED = "ignored"
    """A new column is left out; a removed one stays and gets NULL, and the policy would rather not know of it."""
    KEPT = "kept"
    """The table keeps a removed column, and NULL is written."""
    WIDENED = "widened"
    """The table's column has the stream's type now, which holds every value that was there."""
    CAST = "cast"
    """Values are cast into the type that the column has; one that does not fit is a data error."""
    NULLED = "nulled"
    """Values are cast into the type that the column has; for one that does not fit NULL is written."""
    RELAXED = "relaxed"
    """The table's column lost its NOT NULL."""
    TIGHTENED = "tightened"
    """The table's column got NOT NULL."""
    LEFT = "left"
    """The table stays as it is, although the stream differs."""
    REFUSED = "refused"
    """The policy is to fail: no row was moved."""

    @property
    def severity(self) -> Literal["ok", "warning", "error"]:
        """How much a person should be bothered with it."""
        if self is ChangeAction.REFUSED:
            return "error"
        # What the destination has is then not what the source has.
        beside = (ChangeAction.UNFILLED, ChangeAction.IGNORED, ChangeAction.NULLED, ChangeAction.LEFT)
        return "warning" if self in beside else "ok"


class SchemaChange(_Record):
    """One difference between a stream and its table, and what the policy did about it."""

    kind: ChangeKind
    column: str | None = None
    """None for the primary key."""
    stream: str | None = None
    """As the stream has it: a type, `nullable` or `not null`, a key; None for a column that it does not have."""
    table: str | None = None
    """As the table had it."""
    policy: str | None = None
    """The value in force of the axis `kind`; None for the primary key."""
    action: ChangeAction
    ddl: tuple[str, ...] = ()
    """The statements that changed the table."""
    message: str
    """All of it as a sentence, in the connector's words."""


class SchemaEvent(_Record):
    """What one commit found and did: an entry of a schema's history."""

    changes: tuple[SchemaChange, ...]
    run_id: str
    sequence: int
    """Of the checkpoint that was committed together with the DDL."""
    at: datetime


class Watermark(_Record):
    """What the destination says it committed last, read from the transaction log of the data itself."""

    sequence: NonNegativeInt
    cursor: Any = None
    run_id: str | None = None
    """The run that committed it; None where nobody wrote that down."""
    final: bool = False
    """Whether that commit was the last of its run: the stream was read to its end."""


class Checkpoint(_Record):
    """A point that a stream can resume from: everything before it is committed at the destination."""

    pipeline: str
    stream: str
    sequence: int
    """Counts the stream's commits upwards, from 1; numbers of commits that did not happen stay out."""
    cursor: Any = None
    """The source connector's own resume position, any JSON value; None for a full refresh."""
    rows: int
    """Rows committed by this checkpoint alone: those that are in the table."""
    bytes: int
    """Arrow bytes committed by this checkpoint alone."""
    rejected: int = 0
    """Rows that are not in the table because of what is in them: the source or the destination left them out."""
    dead_letters: int = 0
    """Those of them that are kept as dead letters."""
    run_id: str
    committed_at: datetime
    schema_changes: tuple[SchemaChange, ...] = ()
    """What the table's columns went through in this commit, in the same transaction as its rows."""
    replaced: bool = False
    """Whether its rows are all that the table has had from then on: the source was read anew."""
    beneath: Watermark | None = None
    """Of a replay: the watermark that it covers, as the last run of the stream, or somebody who moved it, left it."""
    anew_after: int | None = None
    """Of a run that merges all that the source has: the number of the last checkpoint before it began to read. None
    where the run goes on from a cursor that was stored before it."""
    final: bool = False
    """Whether the source was read to its end."""


class Committed(NamedTuple):
    """What several checkpoints of one run have committed together."""

    checkpoints: int = 0
    rows: int = 0
    bytes: int = 0
    rejected: int = 0
    dead_letters: int = 0


class LetterCategory(str, Enum):
    """What is wrong with a row that was set aside."""

    __str__ = str.__str__

    NOT_NULL = "not_null"
    CHECK = "check"
    UNIQUE = "unique"
    FOREIGN_KEY = "foreign_key"
    EXCLUSION = "exclusion"
    OUT_OF_RANGE = "out_of_range"
    TOO_LONG = "too_long"
    INVALID_TEXT = "invalid_text"
    NULL_KEY = "null_key"
    """NULL in the key of an upsert."""
    CAST = "cast"
    """A value does not fit the type that the table's column has kept."""
    TRIGGER = "trigger"
    """A trigger's function refused it."""
    DECODE = "decode"
    """The source sent what is no value of its type."""
    OVERSIZED = "oversized"
    RULE = "rule"
    """A rule of a transform refuses it."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One row that was set aside, and why. Its texts are JSON already: the row is never looked into again."""

    record_json: str
    """An object of the row's columns, lossless: `null`, true and false, whole numbers; all else as PostgreSQL's text.
    `null` where the row could not be told."""
    types_json: str
    """An object of the columns' PostgreSQL types."""
    message: str
    category: LetterCategory
    stage: str
    failed_at: datetime
    sqlstate: str | None = None
    constraint: str | None = None
    column: str | None = None

    @property
    def size(self) -> int:
        """Characters of what it is made of."""
        return len(self.record_json) + len(self.types_json) + len(self.message)


class LetterChoice(_Record):
    """Some of a stream's dead letters: those that meet every condition that is given."""

    run_id: str | None = None
    """Set aside by that run."""
    categories: tuple[LetterCategory, ...] = ()
    """Of one of these."""
    ids: tuple[int, ...] = ()
    """One of these."""
    failed_before: datetime | None = None
    waiting: bool | None = None
    """True: those that a replay would still take. False: those that nothing waits for, because they were replayed, or
    because all that the source had was read anew since, to replace the table or to be merged into it."""


@dataclass(frozen=True, slots=True)
class MadeSlot:
    """A replication slot that a pipeline has made, and what tells it from one that somebody else gives its name."""

    name: str
    server: str | None
    """What the source's server calls itself; None where it does not tell."""
    position: str | None = None
    """An LSN: how far it was confirmed when it was last seen. None while it is being made."""


@dataclass(frozen=True, slots=True)
class MarkedLetter:
    """A dead letter on its way back, by its number."""

    id: int
    record_json: str
    types_json: str | None

    @property
    def size(self) -> int:
        """Characters of what it is made of."""
        return len(self.record_json) + len(self.types_json or "")


class DeadLetterCounts(NamedTuple):
    """How many dead letters a stream has."""

    total: int
    by_category: Mapping[str, int]
    waiting: int
    """Those that a replay would take: not replayed, and not of rows that a later run has read anew."""


class DeadLetterPreview(NamedTuple):
    """A dead letter to look at: texts that may be long are cut."""

    id: int
    failed_at: str
    error_category: str
    error_message: str
    column_name: str | None
    record_json: str
    record_characters: int
    """Of the whole row."""


class ResumePoint(_Record):
    """Where a run starts: the last committed sequence (0: never) and the cursor that belongs to it."""

    sequence: int = 0
    cursor: Any = None


class SchemaColumn(_Record):
    name: str
    type: str
    """The column's type at the destination, as its database writes it."""
    nullable: bool = True
    arrow_type: str | None = None
    """As the stream brings it; None for a column that the stream does not have."""
    stream_nullable: bool | None = None
    """Whether the stream's column may hold NULL; None where nobody wrote that down."""


class SchemaVersion(_Record):
    """The shape of a destination table, from the run that first saw it."""

    table: str
    columns: tuple[SchemaColumn, ...]
    primary_key: tuple[str, ...] = ()
    policy: SchemaEvolution | None = None
    """In force when it was written; None in what older versions wrote down."""
    stream_key: tuple[str, ...] | None = None
    """The source table's own key, as the stream told it; None where it told none, or nobody wrote it down."""
    run_id: str
    recorded_at: datetime

    @property
    def fingerprint(self) -> str:
        """Equal exactly when table, columns and key are equal: 16 hexadecimal digits."""
        shape = [self.table, [c.model_dump() for c in self.columns], self.primary_key]
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


class SchemaState(_Record):
    """A stream's current schema, the policy in force, and how it came to be so."""

    pipeline: str
    stream: str
    current: SchemaVersion | None = None
    versions: tuple[SchemaVersion, ...] = ()
    """Every shape that the table had, oldest first; the last one is `current`."""
    history: tuple[SchemaEvent, ...] = ()
    """Every change that was found, oldest first. What is found again and only left aside is not repeated."""

    @property
    def policy(self) -> SchemaEvolution | None:
        return self.current.policy if self.current else None

    @property
    def fingerprint(self) -> str | None:
        return self.current.fingerprint if self.current else None

    def columns_brought_to(self, table: str) -> tuple[SchemaColumn, ...] | None:
        """Every column that the stream ever brought to `table`, each as it was the last time; None when it never ran
        there. `table` is a name without its schema."""
        versions = [version for version in self.versions if version.table.endswith(f".{table}")]
        brought = {column.name: column for version in versions for column in version.columns if column.arrow_type}
        return tuple(brought.values()) if versions else None


class RunRecord(_Record):
    """One attempt-spanning run of one stream, or somebody's moving of its cursor."""

    run_id: str
    pipeline: str
    stream: str
    kind: Literal["run", "replay"] = "run"
    """Whether it moved rows from the source, or dead letters."""
    status: str
    """running, ok, failed or cancelled; reset or rewound where only the cursor was moved."""
    started_at: datetime
    ended_at: datetime | None = None
    rows: int = 0
    bytes: int = 0
    rejected: int = 0
    dead_letters: int = 0
    attempts: int = 0
    error: str | None = None
