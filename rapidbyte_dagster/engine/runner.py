"""One stream's run: plan it, attempt it, try again where that helps, and write down how it went."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from rapidbyte_dagster.config import Pipeline, Redactor, Stream, SyncMode
from rapidbyte_dagster.engine.answers import Snapshot, WrittenColumn
from rapidbyte_dagster.engine.arrow_stream import stream_key
from rapidbyte_dagster.engine.attempt import Attempt, AttemptOutcome, Moved
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.fate import Fate, with_fate
from rapidbyte_dagster.engine.pace import at_most_every
from rapidbyte_dagster.engine.plan import PipelinePlan, plan_pipeline
from rapidbyte_dagster.engine.result import (
    DriftListener,
    LogListener,
    Progress,
    ProgressListener,
    StreamResult,
    ignore_log,
)
from rapidbyte_dagster.engine.retry import RetryPolicy
from rapidbyte_dagster.engine.start import Start
from rapidbyte_dagster.errors import RapidbyteError, RunCancelled, StateError, UsageError
from rapidbyte_dagster.state import (
    Checkpoint,
    Committed,
    RunRecord,
    SchemaChange,
    SchemaColumn,
    SchemaVersion,
    StateStore,
    utc_now,
)

# How often a listener hears of progress, in seconds: lively on a terminal, cheap for the run.
PROGRESS_SECONDS = 0.2


def run_stream(
    pipeline: Pipeline,
    stream: Stream,
    *,
    state: StateStore,
    run_id: str,
    environ: Mapping[str, str] = os.environ,
    start: Start = Start.RESUME,
    repeats: Collection[str] = (),
    on_progress: ProgressListener | None = None,
    on_log: LogListener | None = None,
    on_drift: DriftListener | None = None,
    cancel: CancelToken | None = None,
    snapshot: Snapshot | None = None,
    piece_bytes: int | None = None,
) -> StreamResult:
    """Moves `stream` from source to destination and commits it.

    `start` says what becomes of the cursor that an incremental stream has stored. `repeats` are the ids of failed runs,
    started alike, that this one takes up again: a reset does not forget what they have committed. `on_drift` hears of
    every difference between the stream's columns and its table's, also of one that makes the run fail.

    Blocks the calling thread in short waits, so that signals reach it; `cancel`, or any exception raised in this
    thread meanwhile, stops the run within two seconds and rolls back what is not committed.

    A stream of sync_mode cdc is only loaded by this, as of `snapshot`, which somebody else holds; its changes are its
    slot's (`run_slot`). `piece_bytes`: how much of a table is committed at once of such a load, where a later run can
    go on with it; None: all of it.

    Raises a leaf of `RapidbyteError` that names the stream and shows no secret.
    """
    run = _StreamRun(
        pipeline,
        stream,
        state=state,
        run_id=run_id,
        start=start,
        repeats=repeats,
        on_progress=on_progress or _ignore_progress,
        on_log=on_log or ignore_log,
        on_drift=on_drift or _ignore_drift,
        cancel=cancel or CancelToken(),
        snapshot=snapshot,
        piece_bytes=piece_bytes,
    )
    return run.execute(environ)


class _StreamRun:
    def __init__(
        self,
        pipeline: Pipeline,
        stream: Stream,
        *,
        state: StateStore,
        run_id: str,
        start: Start,
        repeats: Collection[str],
        on_progress: ProgressListener,
        on_log: LogListener,
        on_drift: DriftListener,
        cancel: CancelToken,
        snapshot: Snapshot | None,
        piece_bytes: int | None,
    ) -> None:
        if stream.sync_mode is SyncMode.CDC and snapshot is None:
            raise UsageError(
                "a stream of sync_mode cdc is run together with the others of its replication slot",
                stream=stream.name,
                hint="use `run_slot`, or the assets that `build_pipeline_assets` makes of the pipeline",
            )
        self._snapshot = snapshot
        self._piece_bytes = piece_bytes
        self._pipeline = pipeline
        self._stream = stream
        self._state = state
        self._run_id = run_id
        self._start = start
        self._repeats = repeats
        self._on_progress = on_progress
        self._on_log = on_log
        self._on_drift = on_drift
        self._cancel = cancel
        self._redactor = Redactor(frozenset())
        self._attempt = 0
        self._retried: list[str] = []
        self._changes: dict[SchemaChange, int] = {}
        """What earlier attempts have found, each change once, with the number of the checkpoint that would cover it."""
        self._filtered: dict[int, int] = {}
        """Rows that earlier attempts have filtered, by the number of the barrier that follows them."""
        self._started_after: int | None = None
        """The number of the checkpoint that was the last one when the run began, once an attempt heard of it."""
        self._record = RunRecord(
            run_id=run_id, pipeline=pipeline.name, stream=stream.name, status="running", started_at=utc_now()
        )

    def execute(self, environ: Mapping[str, str]) -> StreamResult:
        try:
            return self._execute(environ)
        except RapidbyteError as error:
            failure = told(error, self._redactor, self._stream.name)
            self._write_end("cancelled" if isinstance(error, RunCancelled) else "failed", error=str(failure))
        except BaseException as error:
            # Not ours: somebody interrupted this thread, or a listener failed in it.
            self._write_end("failed" if isinstance(error, Exception) else "cancelled", error=type(error).__name__)
            raise
        # Out here it has no context: that would hold the unredacted text.
        raise failure

    def _execute(self, environ: Mapping[str, str]) -> StreamResult:
        self._state.record_run(self._record)
        plan = plan_pipeline(self._pipeline, environ, self._stream)
        self._redactor = plan.redactor
        outcome = self._attempt_until_done(plan)
        try:
            result = self._conclude(outcome)
            self._record_end("ok", result)
            if result.dead_letters:
                aside = (
                    "1 row was set aside as a dead letter"
                    if result.dead_letters == 1
                    else f"{result.dead_letters:,} rows were set aside as dead letters"
                )
                self._on_log(logging.WARNING, aside)
        except StateError as error:
            raise with_fate(error, Fate.COMMITTED) from error
        return result

    def _attempt_until_done(self, plan: PipelinePlan) -> AttemptOutcome:
        policy = RetryPolicy(self._pipeline.resources.max_retries)
        unconfirmed: Moved | None = None
        while True:
            self._attempt += 1
            if self._cancel.cancelled:
                raise RunCancelled("the run was cancelled before it began")
            attempt = Attempt(
                plan,
                self._stream,
                state=self._state,
                run_id=self._run_id,
                start=self._start,
                repeats=self._repeats,
                on_log=self._on_log,
                on_drift=self._on_drift,
                on_complete=self._complete,
                unconfirmed=unconfirmed,
                snapshot=self._snapshot,
                piece_bytes=self._piece_bytes,
            )
            try:
                return attempt.run(self._ticker(attempt), self._cancel)
            except RapidbyteError as error:
                wait = policy.wait_before_retry(error, self._attempt)
                if wait is None:
                    raise
                failure = error
            finally:
                if self._started_after is None:
                    self._started_after = attempt.started_after
                self._forget(attempt.committed_before)
            unconfirmed = attempt.unconfirmed
            self._changes.update(attempt.schema_changes)
            self._filtered.update(attempt.filtered)
            reason = str(told(failure, self._redactor, self._stream.name))
            self._retried.append(reason)
            self._on_log(
                logging.WARNING,
                f"attempt {self._attempt} of {policy.max_retries + 1} failed, next in {wait:.1f} s: {reason}",
            )
            if self._cancel.wait(wait):
                cancelled = RunCancelled("the run was cancelled while it waited for its next attempt")
                fate = Fate.ROLLED_BACK if unconfirmed is None else Fate.UNKNOWN
                raise with_fate(cancelled, fate)

    def _forget(self, committed: int | None) -> None:
        """What was rolled back with an earlier attempt, once the next one knows what was committed."""
        if committed is not None:
            self._changes = {change: number for change, number in self._changes.items() if number <= committed}
            self._filtered = {number: rows for number, rows in self._filtered.items() if number <= committed}

    def _ticker(self, attempt: Attempt) -> Callable[[], None]:
        """Tells the listener how far `attempt` is, a few times per second."""

        def tell(now: float) -> None:
            self._on_progress(
                Progress(
                    stream=self._stream.name,
                    rows=attempt.rows,
                    bytes=attempt.bytes,
                    rows_committed=attempt.rows_committed,
                    elapsed_seconds=now - attempt.started,
                    attempt=self._attempt,
                )
            )

        return at_most_every(PROGRESS_SECONDS, tell)

    def _complete(self, moved: Moved) -> None:
        """Writes the end of the run down, and that of the run before where this one completed it."""
        moved = self._in_all(moved)
        self._record_end("ok", moved)
        completed = moved.checkpoint.run_id
        if completed == self._run_id:
            return
        run = self._state.run(completed, self._pipeline.name, self._stream.name)
        if run is not None:
            ended = {"status": "ok", "ended_at": run.ended_at or utc_now(), "error": None}
            self._state.record_run(run.model_copy(update={**ended, **_counts(moved.checkpoint)}))

    def _in_all(self, moved: Moved) -> Moved:
        """With what earlier attempts of this run had committed before they failed."""
        if self._attempt == 1 or self._started_after is None or moved.checkpoint.sequence <= self._started_after:
            return moved
        committed = self._committed(moved.checkpoint.run_id)
        return replace(moved, **_counts(committed))

    def _committed(self, run_id: str) -> Committed:
        """What `run_id` committed since this run began, and not what an earlier execution of the same id did."""
        if self._started_after is None:
            # No attempt got as far as to commit.
            return Committed()
        return self._state.committed(self._pipeline.name, self._stream.name, run_id, after=self._started_after)

    def _conclude(self, outcome: AttemptOutcome) -> StreamResult:
        moved, written = self._in_all(outcome.moved), outcome.written
        columns = tuple(schema_column(column, moved.schema) for column in written.columns)
        result = StreamResult(
            stream=self._stream.name,
            rows=moved.rows,
            bytes=moved.bytes,
            rejected=moved.rejected,
            dead_letters=moved.dead_letters,
            filtered=None if moved.filtered is None else sum({**self._filtered, **moved.filtered}.values()),
            batches=moved.batches,
            seconds=moved.seconds,
            attempts=self._attempt,
            retried=tuple(self._retried),
            # The schema may come from the environment, and what does is never shown.
            table=self._redactor.redact(f"{written.schema_}.{written.table}"),
            columns=columns,
            primary_key=written.primary_key or (),
            checkpoint=moved.checkpoint,
            arrow_schema=moved.schema,
            timings=moved.timings,
            peak_memory=moved.peak_memory,
            schema_changes=tuple(dict.fromkeys((*self._changes, *moved.schema_changes))),
        )
        version = SchemaVersion(
            table=result.table,
            columns=columns,
            primary_key=result.primary_key,
            policy=self._pipeline.destination.schema_evolution,
            stream_key=stream_key(moved.schema),
            run_id=self._run_id,
            recorded_at=utc_now(),
        )
        if moved.schema.names:
            # A run that only completes another one has seen no row, and not what Arrow types they are of.
            self._state.record_schema(self._pipeline.name, self._stream.name, version)
        return result

    def _write_end(self, status: str, *, error: str) -> None:
        """The run's own error matters more than a store that cannot write it down."""
        try:
            committed = self._committed(self._run_id)
            self._record_end(status, committed, error=error)
        except RapidbyteError as failure:
            self._on_log(logging.ERROR, str(told(failure, self._redactor, self._stream.name)))

    def _record_end(self, status: str, done: Moved | Committed | StreamResult, *, error: str | None = None) -> None:
        self._record = self._record.model_copy(
            update={
                "status": status,
                "ended_at": utc_now(),
                **_counts(done),
                "attempts": self._attempt,
                "error": error,
            }
        )
        self._state.record_run(self._record)


def _counts(done: Moved | Committed | Checkpoint | StreamResult) -> dict[str, Any]:
    """What was moved, by the names that all of these have for it."""
    return {"rows": done.rows, "bytes": done.bytes, "rejected": done.rejected, "dead_letters": done.dead_letters}


def _ignore_progress(progress: Progress) -> None:
    pass


def _ignore_drift(changes: tuple[SchemaChange, ...]) -> None:
    pass


def schema_column(column: WrittenColumn, stream: pa.Schema) -> SchemaColumn:
    """A column of the table, and what the stream brought for it."""
    brought = stream.field(column.name) if column.name in stream.names else None
    return SchemaColumn(
        name=column.name,
        type=column.type,
        nullable=column.nullable,
        arrow_type=str(brought.type) if brought is not None else None,
        stream_nullable=brought.nullable if brought is not None else None,
    )
