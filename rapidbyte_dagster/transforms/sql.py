"""transform-sql: the verbs of a transform, around one statement.

next ── schema ──▶ Projection ──▶ emit its schema
     ── batch ───▶ … apply ─────▶ emit batches; rows that it fails on: error, warning or dead letters
     ── barrier ─▶ barrier: how many were left out
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

import pyarrow as pa
from typing_extensions import Self

from rapidbyte_dagster.config.manifest import Manifest
from rapidbyte_dagster.errors import ConfigError, ErrorInfo, InternalError, Kind, RapidbyteError, Stage, error_from
from rapidbyte_dagster.runtime import Barrier, End, Host, LogLevel, Message, Sandbox
from rapidbyte_dagster.runtime.outcome import Reporter
from rapidbyte_dagster.transforms.duckdb_engine import Engine
from rapidbyte_dagster.transforms.printed import Unprintable, pg_type, printed
from rapidbyte_dagster.transforms.projection import Failure, Projection
from rapidbyte_dagster.transforms.statement import Statement

LETTERS_BYTES: Final = 4 * 1024 * 1024
"""About what one `emit_dlq_batch` holds."""

_FAIL_HINT: Final = "TRY_CAST and TRY give NULL instead; `on_data_error: dlq` keeps such rows aside"


class SqlTransform:
    """One at work. A context manager; `call` is for one thread at a time, `cancel` for any."""

    def __init__(self, manifest: Manifest, *, host: Host, sandbox: Sandbox, stage: Stage) -> None:
        self.stage = stage
        self._host = host
        self._sandbox = sandbox
        self._report = Reporter(manifest.name, stage, sandbox)
        self._stop: Kind | None = None
        self._timer: threading.Timer | None = None
        self._engine: Engine | None = None
        self._statement: Statement | None = None
        self._peak_memory = 0

    @property
    def peak_memory(self) -> int:
        """The most bytes of Arrow that it held at once: a batch, and what was made of it."""
        return self._peak_memory

    @property
    def stopped(self) -> RapidbyteError | None:
        return None if self._stop is None else self._report.stopped(self._stop)

    def __enter__(self) -> Self:
        if self._sandbox.timeout_seconds is not None:
            self._timer = threading.Timer(self._sandbox.timeout_seconds, self.cancel, (Kind.TIMEOUT,))
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._engine is not None:
            self._engine.close()

    def cancel(self, reason: Kind = Kind.CANCELLED) -> None:
        """Whoever waits for a statement sees it within a slice of their wait; the host's own waits are the host's."""
        self._stop = self._stop or reason

    def call(self, verb: str, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Raises `RapidbyteError`, or `StreamAborted` where the host did."""
        if (stopped := self.stopped) is not None:
            raise stopped
        try:
            match verb:
                case "rb_open":
                    return self._open(argument["config"])
                case "rb_check":
                    return {"findings": []}
                case "rb_transform":
                    return self._transform(argument)
                case "rb_close":
                    return {}
        except MemoryError as error:
            raise self._report.out_of_memory("DuckDB needs more for a batch") from error
        except ConfigError as error:
            raise error_from(replace(error.info, stage=self.stage)) from error
        raise InternalError(f"transform-sql has no verb {verb}", stage=self.stage)

    def _open(self, config: Mapping[str, Any]) -> dict[str, Any]:
        self._engine = Engine(self._sandbox.max_memory, lambda: self.stopped)
        self._statement = Statement(self._engine, config["query"])
        return {"whole_run": False}

    def _transform(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        assert self._engine is not None, "rb_open comes first"
        assert self._statement is not None
        run = _Run(self._host, self._engine, self._statement, argument, self._failed)
        try:
            run.to_the_end()
        finally:
            self._peak_memory = max(self._peak_memory, run.peak_memory)
        return {"rows": run.rows}

    def _failed(self, kind: Kind, message: str, hint: str | None = None) -> RapidbyteError:
        return error_from(ErrorInfo(kind, message, self.stage, hint=hint))


class _Run:
    """One `rb_transform`."""

    def __init__(
        self, host: Host, engine: Engine, statement: Statement, argument: Mapping[str, Any], failed: Any
    ) -> None:
        self._host = host
        self._engine = engine
        self._statement = statement
        self._failed = failed
        self._on_data_error = argument["stream"]["on_data_error"]
        self._replay = bool(argument["replay"])
        self._max_batch_bytes = int(argument["max_batch_bytes"])
        self._given: pa.Schema | None = None
        self._projection: Projection | None = None
        self._emitted: pa.Schema | None = None
        self._seen = 0
        """Rows that came, so far."""
        self._rejected = self._filtered = 0
        """Since the last barrier."""
        self._left_out = 0
        self._first_reason = ""
        self.rows = 0
        self.peak_memory = 0

    def to_the_end(self) -> None:
        while True:
            match self._host.next():
                case Message(data):
                    self._take(data)
                case Barrier(data):
                    sequence = json.loads(data)["sequence"]
                    left_out = {"rejected": self._rejected, "filtered": self._filtered}
                    self._host.barrier({"sequence": sequence, **left_out})
                    self._rejected = self._filtered = 0
                case End():
                    break
        if self._left_out and self._on_data_error == "skip":
            told = f"{self._left_out} rows were left out; the first: {self._first_reason}"
            self._host.log(LogLevel.WARNING, told)

    def _take(self, data: bytes | bytearray) -> None:
        message = pa.ipc.read_message(pa.py_buffer(data))
        if message.type == "schema":
            self._given = pa.ipc.read_schema(message)
            self._projection = Projection(self._engine, self._statement, self._given, replay=self._replay)
            if self._emitted is None or not self._emitted.equals(self._projection.schema, check_metadata=True):
                self._emitted = self._projection.schema
                self._host.emit(self._emitted.serialize().to_pybytes())
            return
        assert self._given is not None, "the host lets no batch through before a schema"
        assert self._projection is not None
        batch = pa.ipc.read_record_batch(message, self._given)
        if self._projection.is_identity:
            self.rows += batch.num_rows
            self._seen += batch.num_rows
            self._host.emit(data)
            return
        for outcome in self._projection.apply(batch):
            self.peak_memory = max(self.peak_memory, len(data) + sum(each.nbytes for each in outcome.batches))
            if outcome.failures:
                self._set_aside(outcome.part, outcome.failures)
            self._filtered += outcome.filtered
            self._seen += outcome.part.num_rows
            for each in _joined(outcome.batches):
                self._emit(each)

    def _emit(self, batch: pa.RecordBatch) -> None:
        """In pieces where it has grown."""
        if batch.nbytes > self._max_batch_bytes and batch.num_rows > 1:
            half = batch.num_rows // 2
            self._emit(batch.slice(0, half))
            self._emit(batch.slice(half))
            return
        self.rows += batch.num_rows
        self._host.emit(batch.serialize().to_pybytes())

    def _set_aside(self, batch: pa.RecordBatch, failures: list[Failure]) -> None:
        if self._on_data_error == "fail":
            number = self._seen + failures[0].row + 1
            raise self._failed(Kind.DATA, f"row {number} of the run: {'; '.join(failures[0].reasons)}", hint=_FAIL_HINT)
        self._rejected += len(failures)
        self._left_out += len(failures)
        self._first_reason = self._first_reason or "; ".join(failures[0].reasons)
        if self._on_data_error == "dlq":
            for letters in _letters(batch, failures):
                self._host.emit_dlq_batch({"letters": letters})


def _letters(batch: pa.RecordBatch, failures: list[Failure]) -> Iterator[list[dict[str, Any]]]:
    """One letter for each, a few megabytes at a time."""
    types = {field.name: pg_type(field) for field in batch.schema}
    letters: list[dict[str, Any]] = []
    size = 0
    for failure in failures:
        reasons = list(failure.reasons)
        try:
            record = printed(batch, failure.row)
        except Unprintable as why:
            record = None
            reasons.append(f"the row cannot be told: {why}")
        letters.append(
            {
                "record": record,
                "types": types,
                "message": "; ".join(reasons),
                "category": failure.category,
                "sqlstate": None,
                "constraint": None,
                "column": failure.column,
            }
        )
        size += sum(len(value) if isinstance(value, str) else 8 for value in (record or {}).values())
        if size >= LETTERS_BYTES:
            yield letters
            letters, size = [], 0
    if letters:
        yield letters


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Pieces of one batch as one again."""
    return batches if len(batches) < 2 else pa.Table.from_batches(batches).combine_chunks().to_batches()
