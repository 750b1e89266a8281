"""What the stores have in common: the statements, in the SQL that SQLite and PostgreSQL share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from pydantic import TypeAdapter
from typing_extensions import Self

from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state.dead_letter_sql import IS_COMMITTED, Append, Gather, chunks, letter_row, letters_of
from rapidbyte_dagster.state.models import (
    Checkpoint,
    Committed,
    DeadLetter,
    DeadLetterCounts,
    DeadLetterPreview,
    ResumePoint,
    RunRecord,
    SchemaChange,
    SchemaEvent,
    SchemaState,
    SchemaVersion,
    Watermark,
    utc_now,
)
from rapidbyte_dagster.state.texts import as_text, storable

if TYPE_CHECKING:
    import pyarrow as pa

_SELECT_RUNS = (
    "SELECT run_id, pipeline_name, stream_name, status, started_at, ended_at, row_count, byte_count, attempts,"
    " error_message, rejected_count, dead_letter_count FROM _rapidbyte_runs"
)
_RUN_FIELDS = (
    "run_id",
    "pipeline",
    "stream",
    "status",
    "started_at",
    "ended_at",
    "rows",
    "bytes",
    "attempts",
    "error",
    "rejected",
    "dead_letters",
)

_CHANGES: Final = TypeAdapter(tuple[SchemaChange, ...])

# What a bigint holds: beyond it a database would not even look.
_LARGEST_SEQUENCE = 2**63 - 1


class Rows(Protocol):
    """What a statement gave back: a cursor of either library."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


class Execute(Protocol):
    """Runs one statement; `?` in it stands for a parameter."""

    def __call__(self, statement: str, parameters: tuple[Any, ...] = (), /) -> Rows: ...


T = TypeVar("T")


class SqlStateStore(ABC):
    """See `StateStore`. A backend brings its transactions and its connection."""

    @abstractmethod
    def _write(self, pipeline: str, stream: str, work: Callable[[Execute], T]) -> T:
        """`work` in one transaction, while nobody else writes this stream's rows.

        It may be called again, from the start, when nobody knows whether its transaction was committed.
        """

    @abstractmethod
    def _read(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """The rows of one query."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Checkpoints

    def reconcile(self, pipeline: str, stream: str, watermark: Watermark | None) -> ResumePoint:
        committed = watermark.sequence if watermark else 0
        committer = watermark.run_id if watermark else None
        # Above every number that either side knows of, so that a prepared one is not taken for a committed one.
        highest = committed

        def follow(execute: Execute) -> None:
            nonlocal highest
            # Before anything is discarded: its commit may still be under way in a server that nobody can ask yet.
            (known,) = execute(
                "SELECT max(sequence) FROM _rapidbyte_checkpoints WHERE pipeline_name = ? AND stream_name = ?",
                (pipeline, stream),
            ).fetchone()
            highest = max(highest, known or 0)
            execute(
                "UPDATE _rapidbyte_checkpoints SET status = 'committed', committed_at = ?"
                " WHERE pipeline_name = ? AND stream_name = ? AND status = 'prepared'"
                " AND sequence <= ? AND run_id = coalesce(?, run_id)",
                (_now(), pipeline, stream, committed, committer),
            )
            # Nor can anybody go back to what was committed and is gone again. Without any watermark nobody can tell.
            lost = committed if watermark else _LARGEST_SEQUENCE
            execute(
                "DELETE FROM _rapidbyte_checkpoints"
                " WHERE pipeline_name = ? AND stream_name = ? AND (status = 'prepared' OR sequence > ?)",
                (pipeline, stream, lost),
            )
            execute(
                f"DELETE FROM _rapidbyte_dlq WHERE pipeline_name = ? AND stream_name = ? AND NOT {IS_COMMITTED}",
                (pipeline, stream),
            )

        self._write(pipeline, stream, follow)
        return ResumePoint(sequence=highest, cursor=watermark.cursor if watermark else None)

    def prepare(self, checkpoint: Checkpoint) -> None:
        row = (
            checkpoint.pipeline,
            checkpoint.stream,
            checkpoint.sequence,
            json.dumps(checkpoint.cursor),
            checkpoint.rows,
            checkpoint.bytes,
            checkpoint.run_id,
            _now(),
            _CHANGES.dump_json(checkpoint.schema_changes).decode() if checkpoint.schema_changes else None,
            checkpoint.rejected,
            checkpoint.dead_letters,
        )

        def insert(execute: Execute) -> int:
            # A unique key alone would refuse to hear the same thing twice.
            return execute(
                "INSERT INTO _rapidbyte_checkpoints AS known VALUES (?, ?, ?, 'prepared', ?, ?, ?, ?, ?, NULL, ?, ?, ?)"
                " ON CONFLICT (pipeline_name, stream_name, sequence) DO UPDATE SET prepared_at = known.prepared_at"
                " WHERE known.run_id = excluded.run_id AND known.cursor_json = excluded.cursor_json"
                " AND known.row_count = excluded.row_count AND known.byte_count = excluded.byte_count"
                " AND coalesce(known.schema_changes_json, '') = coalesce(excluded.schema_changes_json, '')"
                " AND known.rejected_count = excluded.rejected_count"
                " AND known.dead_letter_count = excluded.dead_letter_count",
                row,
            ).rowcount

        self._gather_dead_letters(checkpoint)
        if self._write(checkpoint.pipeline, checkpoint.stream, insert) != 1:
            raise StateError(
                f"checkpoint {checkpoint.sequence} of {checkpoint.pipeline}/{checkpoint.stream} cannot be prepared:"
                " it is another run's",
                stream=checkpoint.stream,
                hint="two runs of one stream were at work at once: nothing of this one is committed, run it again",
            )

    def finalise(self, pipeline: str, stream: str, sequence: int) -> None:
        def mark(execute: Execute) -> int:
            return execute(
                "UPDATE _rapidbyte_checkpoints SET status = 'committed', committed_at = coalesce(committed_at, ?)"
                " WHERE pipeline_name = ? AND stream_name = ? AND sequence = ?",
                (_now(), pipeline, stream, sequence),
            ).rowcount

        if self._write(pipeline, stream, mark) != 1:
            raise StateError(
                f"checkpoint {sequence} of {pipeline}/{stream} was committed but never prepared",
                stream=stream,
                hint="the data is safe: the next run follows the destination's watermark",
            )

    def latest_checkpoint(self, pipeline: str, stream: str) -> Checkpoint | None:
        found = self.checkpoints(pipeline, stream, limit=1)
        return found[0] if found else None

    def checkpoints(self, pipeline: str, stream: str, limit: int = 100) -> list[Checkpoint]:
        return self._checkpoints(pipeline, stream, "status = 'committed'", limit=limit)

    def checkpoint(self, pipeline: str, stream: str, sequence: int) -> Checkpoint | None:
        if not 0 < sequence <= _LARGEST_SEQUENCE:
            return None
        found = self._checkpoints(pipeline, stream, "status = 'committed' AND sequence = ?", sequence, limit=1)
        return found[0] if found else None

    def prepared_checkpoint(self, pipeline: str, stream: str) -> Checkpoint | None:
        found = self._checkpoints(pipeline, stream, "status = 'prepared'", limit=1)
        return found[0] if found else None

    def _checkpoints(
        self, pipeline: str, stream: str, condition: str, *parameters: Any, limit: int
    ) -> list[Checkpoint]:
        rows = self._read(
            "SELECT sequence, cursor_json, row_count, byte_count, run_id, coalesce(committed_at, prepared_at),"
            " schema_changes_json, rejected_count, dead_letter_count"
            f" FROM _rapidbyte_checkpoints WHERE pipeline_name = ? AND stream_name = ? AND {condition}"
            " ORDER BY sequence DESC LIMIT ?",
            (pipeline, stream, *parameters, limit),
        )
        return [
            Checkpoint(
                pipeline=pipeline,
                stream=stream,
                sequence=sequence,
                cursor=json.loads(cursor),
                rows=row_count,
                bytes=byte_count,
                run_id=run_id,
                committed_at=datetime.fromisoformat(committed_at),
                schema_changes=_CHANGES.validate_json(changes) if changes else (),
                rejected=rejected,
                dead_letters=dead_letters,
            )
            for sequence, cursor, row_count, byte_count, run_id, committed_at, changes, rejected, dead_letters in rows
        ]

    def committed(self, pipeline: str, stream: str, run_id: str, *, after: int = 0) -> Committed:
        [sums] = self._read(
            "SELECT count(*), coalesce(sum(row_count), 0), coalesce(sum(byte_count), 0),"
            " coalesce(sum(rejected_count), 0), coalesce(sum(dead_letter_count), 0) FROM _rapidbyte_checkpoints"
            " WHERE pipeline_name = ? AND stream_name = ? AND status = 'committed' AND run_id = ? AND sequence > ?",
            (pipeline, stream, run_id, after),
        )
        # In PostgreSQL a sum of bigints is a numeric.
        return Committed(*map(int, sums))

    # Schemas

    def record_schema(self, pipeline: str, stream: str, version: SchemaVersion) -> None:
        def append(execute: Execute) -> None:
            current = execute(
                "SELECT version, fingerprint, schema_json FROM _rapidbyte_schemas"
                " WHERE pipeline_name = ? AND stream_name = ? ORDER BY version DESC LIMIT 1",
                (pipeline, stream),
            ).fetchone()
            number, fingerprint, text = current or (0, "", "")
            if fingerprint == version.fingerprint and _version(text).policy == version.policy:
                return
            execute(
                "INSERT INTO _rapidbyte_schemas VALUES (?, ?, ?, ?, ?)",
                (pipeline, stream, number + 1, version.fingerprint, version.model_dump_json()),
            )

        self._write(pipeline, stream, append)

    def schema_state(self, pipeline: str, stream: str) -> SchemaState:
        rows = self._read(
            "SELECT schema_json FROM _rapidbyte_schemas WHERE pipeline_name = ? AND stream_name = ? ORDER BY version",
            (pipeline, stream),
        )
        versions = tuple(_version(text) for (text,) in rows)
        return SchemaState(
            pipeline=pipeline,
            stream=stream,
            current=versions[-1] if versions else None,
            versions=versions,
            history=self._schema_events(pipeline, stream),
        )

    def _schema_events(self, pipeline: str, stream: str) -> tuple[SchemaEvent, ...]:
        # Without the cursors, which may be large.
        rows = self._read(
            "SELECT schema_changes_json, run_id, sequence, committed_at FROM _rapidbyte_checkpoints"
            " WHERE pipeline_name = ? AND stream_name = ? AND status = 'committed' AND schema_changes_json IS NOT NULL"
            " ORDER BY sequence",
            (pipeline, stream),
        )
        return tuple(
            SchemaEvent(changes=_CHANGES.validate_json(changes), run_id=run_id, sequence=sequence, at=at)
            for changes, run_id, sequence, at in rows
        )

    # Dead letters

    def add_dead_letters(
        self, pipeline: str, stream: str, letters: Sequence[DeadLetter], *, run_id: str, sequence: int
    ) -> None:
        for chunk in chunks(letters):
            rows = [letter_row(letter, pipeline, stream, run_id, sequence) for letter in chunk]
            self._write(pipeline, stream, Append(rows, pipeline, stream, run_id))

    def _gather_dead_letters(self, checkpoint: Checkpoint) -> None:
        """Those that it covers beside its own number's. In transactions of their own: until the checkpoint is committed
        nobody sees them."""
        gather = Gather(checkpoint)
        while checkpoint.dead_letters and self._write(checkpoint.pipeline, checkpoint.stream, gather):
            pass

    def dead_letters(self, pipeline: str, stream: str, run_id: str | None = None) -> pa.Table:
        from rapidbyte_dagster.state.dead_letters import COLUMNS, to_table

        condition, parameters = letters_of(pipeline, stream, run_id)
        return to_table(
            self._read(f"SELECT {', '.join(COLUMNS)} FROM _rapidbyte_dlq WHERE {condition} ORDER BY id", parameters)
        )

    def dead_letter_counts(self, pipeline: str, stream: str, run_id: str | None = None) -> DeadLetterCounts:
        condition, parameters = letters_of(pipeline, stream, run_id)
        rows = self._read(
            "SELECT error_category, count(*), count(*) - count(replayed_by_run) FROM _rapidbyte_dlq"
            f" WHERE {condition} GROUP BY error_category ORDER BY error_category",
            parameters,
        )
        return DeadLetterCounts(
            total=sum(count for _, count, _ in rows),
            by_category={category: count for category, count, _ in rows},
            waiting=sum(waiting for _, _, waiting in rows),
        )

    def dead_letter_previews(
        self, pipeline: str, stream: str, run_id: str | None = None, *, limit: int, characters: int
    ) -> list[DeadLetterPreview]:
        condition, parameters = letters_of(pipeline, stream, run_id)
        rows = self._read(
            "SELECT id, failed_at, error_category, substr(error_message, 1, ?), column_name, substr(record_json, 1, ?),"
            f" length(record_json) FROM _rapidbyte_dlq WHERE {condition} ORDER BY id DESC LIMIT ?",
            (characters, characters, *parameters, limit),
        )
        return [DeadLetterPreview(*row) for row in rows]

    def dead_letter_runs(self, pipeline: str, stream: str) -> list[str]:
        condition, parameters = letters_of(pipeline, stream, None)
        rows = self._read(
            f"SELECT run_id FROM _rapidbyte_dlq WHERE {condition} GROUP BY run_id ORDER BY min(id)", parameters
        )
        return [run_id for (run_id,) in rows]

    # Runs

    def record_run(self, run: RunRecord) -> None:
        row = (
            run.run_id,
            run.pipeline,
            run.stream,
            run.status,
            as_text(run.started_at),
            as_text(run.ended_at) if run.ended_at else None,
            run.rows,
            run.bytes,
            run.attempts,
            storable(run.error) if run.error is not None else None,
            run.rejected,
            run.dead_letters,
        )

        def upsert(execute: Execute) -> None:
            execute(
                "INSERT INTO _rapidbyte_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (run_id, pipeline_name, stream_name) DO UPDATE SET status = excluded.status,"
                " started_at = excluded.started_at, ended_at = excluded.ended_at, row_count = excluded.row_count,"
                " byte_count = excluded.byte_count, attempts = excluded.attempts,"
                " error_message = excluded.error_message, rejected_count = excluded.rejected_count,"
                " dead_letter_count = excluded.dead_letter_count",
                row,
            )

        self._write(run.pipeline, run.stream, upsert)

    def run(self, run_id: str, pipeline: str, stream: str) -> RunRecord | None:
        found = self._read(
            f"{_SELECT_RUNS} WHERE run_id = ? AND pipeline_name = ? AND stream_name = ?", (run_id, pipeline, stream)
        )
        return _run_record(found[0]) if found else None

    def runs(self, pipeline: str, stream: str, limit: int = 100) -> list[RunRecord]:
        rows = self._read(
            f"{_SELECT_RUNS} WHERE pipeline_name = ? AND stream_name = ? ORDER BY started_at DESC, run_id LIMIT ?",
            (pipeline, stream, limit),
        )
        return [_run_record(row) for row in rows]


def _version(text: str) -> SchemaVersion:
    return SchemaVersion.model_validate_json(text)


def _run_record(row: tuple[Any, ...]) -> RunRecord:
    return RunRecord.model_validate(dict(zip(_RUN_FIELDS, row, strict=True)))


def _now() -> str:
    return as_text(utc_now())
