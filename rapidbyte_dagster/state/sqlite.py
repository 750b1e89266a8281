"""The state store in one SQLite file, for pipelines that run on one machine."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state.migrations import MIGRATIONS
from rapidbyte_dagster.state.models import (
    Checkpoint,
    ResumePoint,
    RunRecord,
    SchemaState,
    SchemaVersion,
    Watermark,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from rapidbyte_dagster.config import Pipeline

# How long one writer waits for another, in seconds: steps of one run write for milliseconds at a time, so a store
# that stays locked this long is held by something else (a backup, a stopped process).
BUSY_TIMEOUT_SECONDS = 30.0

# Between two attempts at the switch to WAL mode, which takes the winner about a millisecond.
WAL_RETRY_SECONDS = 0.01

UNREACHABLE_HINT = "check that the folder exists, is writable and has space, or set `state.path` in the pipeline file"
# SQLite tells with its plain DatabaseError that the content is not what it should be, and nothing else.
DAMAGED_HINT = (
    "the file is damaged, or no state store: move it away and the next run starts a new one,"
    " which follows the destination's watermarks"
)

_SELECT_RUNS = (
    "SELECT run_id, pipeline_name, stream_name, status, started_at, ended_at, row_count, byte_count, attempts,"
    " error_message FROM _rapidbyte_runs"
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
)

DEFAULT_FOLDER = ".rapidbyte"
FILE_NAME = "state.db"


def default_path(pipeline: Pipeline, environ: Mapping[str, str]) -> Path:
    """The SQLite file of `pipeline`: see `open_state`."""
    base = pipeline.path.parent
    configured = pipeline.state.resolve_path(environ)
    if configured is not None:
        return base / Path(configured).expanduser()
    home = environ.get("DAGSTER_HOME")
    return (Path(home).expanduser() / "rapidbyte" if home else base / DEFAULT_FOLDER) / FILE_NAME


class SqliteStateStore:
    """See `StateStore`. One connection under one lock: the store is touched a few times per checkpoint."""

    def __init__(self, path: Path, shown: str | None = None) -> None:
        """`shown` stands for `path` in messages: the environment's part of a path is not to be seen."""
        self._path = path
        self._shown = shown or str(path)
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._failure("cannot be opened", error) from error
        try:
            # WAL lets the UI read while a run writes; FULL makes a prepared checkpoint survive a power cut.
            self._enter_wal_mode()
            self._connection.execute("PRAGMA synchronous = FULL")
            self._migrate()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._failure("cannot be used", error) from error
        except StateError:
            self._connection.close()
            raise

    def __enter__(self) -> SqliteStateStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # Checkpoints

    def reconcile(self, pipeline: str, stream: str, watermark: Watermark | None) -> ResumePoint:
        committed = watermark.sequence if watermark else 0
        committer = watermark.run_id if watermark else None
        with self._transaction() as db:
            # Before anything is discarded: its commit may still be under way in a server that nobody can ask yet.
            (highest,) = db.execute(
                "SELECT max(sequence) FROM _rapidbyte_checkpoints WHERE pipeline_name = ? AND stream_name = ?",
                (pipeline, stream),
            ).fetchone()
            db.execute(
                "UPDATE _rapidbyte_checkpoints SET status = 'committed', committed_at = ?"
                " WHERE pipeline_name = ? AND stream_name = ? AND status = 'prepared'"
                " AND (sequence < ? OR (sequence = ? AND run_id = coalesce(?, run_id)))",
                (_now(), pipeline, stream, committed, committed, committer),
            )
            db.execute(
                "DELETE FROM _rapidbyte_checkpoints"
                " WHERE pipeline_name = ? AND stream_name = ? AND status = 'prepared'",
                (pipeline, stream),
            )
        # Never reuse a number that either side has seen, so that a prepared one cannot be taken for a committed one.
        return ResumePoint(sequence=max(committed, highest or 0), cursor=watermark.cursor if watermark else None)

    def prepare(self, checkpoint: Checkpoint) -> None:
        with self._transaction() as db:
            # A unique key alone would refuse to hear the same thing twice.
            written = db.execute(
                "INSERT INTO _rapidbyte_checkpoints AS known VALUES (?, ?, ?, 'prepared', ?, ?, ?, ?, ?, NULL)"
                " ON CONFLICT (pipeline_name, stream_name, sequence) DO UPDATE SET prepared_at = known.prepared_at"
                " WHERE known.run_id = excluded.run_id AND known.cursor_json = excluded.cursor_json"
                " AND known.row_count = excluded.row_count AND known.byte_count = excluded.byte_count",
                (
                    checkpoint.pipeline,
                    checkpoint.stream,
                    checkpoint.sequence,
                    json.dumps(checkpoint.cursor),
                    checkpoint.rows,
                    checkpoint.bytes,
                    checkpoint.run_id,
                    _now(),
                ),
            ).rowcount
        if written != 1:
            raise StateError(
                f"checkpoint {checkpoint.sequence} of {checkpoint.pipeline}/{checkpoint.stream} cannot be prepared:"
                " it is another run's",
                stream=checkpoint.stream,
                hint="two runs of one stream were at work at once: nothing of this one is committed, run it again",
            )

    def finalise(self, pipeline: str, stream: str, sequence: int) -> None:
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE _rapidbyte_checkpoints SET status = 'committed', committed_at = coalesce(committed_at, ?)"
                " WHERE pipeline_name = ? AND stream_name = ? AND sequence = ?",
                (_now(), pipeline, stream, sequence),
            ).rowcount
        if changed != 1:
            raise StateError(
                f"checkpoint {sequence} of {pipeline}/{stream} was committed but never prepared",
                stream=stream,
                hint="the data is safe: the next run follows the destination's watermark",
            )

    def latest_checkpoint(self, pipeline: str, stream: str) -> Checkpoint | None:
        found = self.checkpoints(pipeline, stream, limit=1)
        return found[0] if found else None

    def checkpoints(self, pipeline: str, stream: str, limit: int = 100) -> list[Checkpoint]:
        rows = self._read(
            "SELECT sequence, cursor_json, row_count, byte_count, run_id, committed_at FROM _rapidbyte_checkpoints"
            " WHERE pipeline_name = ? AND stream_name = ? AND status = 'committed' ORDER BY sequence DESC LIMIT ?",
            (pipeline, stream, limit),
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
            )
            for sequence, cursor, row_count, byte_count, run_id, committed_at in rows
        ]

    # Schemas

    def record_schema(self, pipeline: str, stream: str, version: SchemaVersion) -> None:
        with self._transaction() as db:
            current = db.execute(
                "SELECT version, fingerprint FROM _rapidbyte_schemas"
                " WHERE pipeline_name = ? AND stream_name = ? ORDER BY version DESC LIMIT 1",
                (pipeline, stream),
            ).fetchone()
            if current is not None and current[1] == version.fingerprint:
                return
            number = (current[0] if current else 0) + 1
            db.execute(
                "INSERT INTO _rapidbyte_schemas VALUES (?, ?, ?, ?, ?)",
                (pipeline, stream, number, version.fingerprint, version.model_dump_json()),
            )

    def schema_state(self, pipeline: str, stream: str) -> SchemaState:
        rows = self._read(
            "SELECT schema_json FROM _rapidbyte_schemas WHERE pipeline_name = ? AND stream_name = ? ORDER BY version",
            (pipeline, stream),
        )
        history = tuple(SchemaVersion.model_validate_json(text) for (text,) in rows)
        return SchemaState(pipeline=pipeline, stream=stream, current=history[-1] if history else None, history=history)

    # Dead letters

    def dead_letters(self, pipeline: str, stream: str, run_id: str | None = None) -> pa.Table:
        from rapidbyte_dagster.state.dead_letters import COLUMNS, to_table

        condition = "pipeline_name = ? AND stream_name = ?" + ("" if run_id is None else " AND run_id = ?")
        parameters = (pipeline, stream) if run_id is None else (pipeline, stream, run_id)
        return to_table(
            self._read(f"SELECT {', '.join(COLUMNS)} FROM _rapidbyte_dlq WHERE {condition} ORDER BY id", parameters)
        )

    # Runs

    def record_run(self, run: RunRecord) -> None:
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO _rapidbyte_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run.run_id,
                    run.pipeline,
                    run.stream,
                    run.status,
                    run.started_at.isoformat(),
                    run.ended_at.isoformat() if run.ended_at else None,
                    run.rows,
                    run.bytes,
                    run.attempts,
                    run.error,
                ),
            )

    def run(self, run_id: str, pipeline: str, stream: str) -> RunRecord | None:
        found = self._read(
            f"{_SELECT_RUNS} WHERE run_id = ? AND pipeline_name = ? AND stream_name = ?", (run_id, pipeline, stream)
        )
        return _run_record(found[0]) if found else None

    def runs(self, pipeline: str, stream: str, limit: int = 100) -> list[RunRecord]:
        rows = self._read(
            f"{_SELECT_RUNS} WHERE pipeline_name = ? AND stream_name = ? ORDER BY started_at DESC LIMIT ?",
            (pipeline, stream, limit),
        )
        return [_run_record(row) for row in rows]

    # The file

    def _enter_wal_mode(self) -> None:
        """SQLite's own patience does not cover this switch: of several processes that open a new file, one wins."""
        deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(WAL_RETRY_SECONDS)
            else:
                return

    def _migrate(self) -> None:
        with self._transaction() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise StateError(
                    f"state store {self._shown} was written by a newer version of rapidbyte-dagster"
                    f" (format {version}, this one knows {len(MIGRATIONS)})",
                    hint="upgrade rapidbyte-dagster, or point `state.path` at another file",
                )
            if version == 0 and db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                raise StateError(
                    f"{self._shown} is a database of something else, and no state store",
                    hint="point `state.path` at a file of its own",
                )
            for step in MIGRATIONS[version:]:
                for statement in filter(None, map(str.strip, step.split(";"))):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                # IMMEDIATE takes the write lock at once: a later upgrade from reader to writer cannot wait its turn.
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failure("cannot be written", error) from error
            finally:
                # Whatever interrupted it, a signal handler included: the next one begins with nothing open.
                with suppress(sqlite3.Error):
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")

    def _read(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        with self._lock:
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._failure("cannot be read", error) from error

    def _failure(self, what: str, error: Exception) -> StateError:
        # An OSError's own text holds the path as well.
        reason = error.strerror if isinstance(error, OSError) else error
        return StateError(
            f"the state store {self._shown} {what}: {reason}",
            hint=DAMAGED_HINT if type(error) is sqlite3.DatabaseError else UNREACHABLE_HINT,
        )


def _run_record(row: tuple[Any, ...]) -> RunRecord:
    return RunRecord.model_validate(dict(zip(_RUN_FIELDS, row, strict=True)))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
