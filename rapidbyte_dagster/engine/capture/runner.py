"""A run of the streams that share a replication slot: what is missing of them is loaded, then their changes applied.

set up ▶ standing ▶ snapshot ▶ load each stream that never began ▶ capture ▶ … again, where that helps
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from rapidbyte_dagster.config import Pipeline, Redactor, SlotGroup, Stream, WriteMode
from rapidbyte_dagster.engine.answers import AppliedStream, OpenedGroup, Snapshot, read_answer
from rapidbyte_dagster.engine.arrow_stream import stream_key
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.capture.attempt import CaptureAttempt, CaptureOutcome, GroupDriftListener
from rapidbyte_dagster.engine.capture.continuity import lost_changes
from rapidbyte_dagster.engine.capture.ledger import Mark
from rapidbyte_dagster.engine.capture.lsn import format_lsn
from rapidbyte_dagster.engine.capture.slots import SlotSetup, set_up
from rapidbyte_dagster.engine.capture.standing import Standing, standing_of
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.hosts import StageHost
from rapidbyte_dagster.engine.pace import at_most_every
from rapidbyte_dagster.engine.plan import PipelinePlan, plan_pipeline
from rapidbyte_dagster.engine.result import LogListener, Progress, ProgressListener, StreamResult, ignore_log
from rapidbyte_dagster.engine.retry import RetryPolicy
from rapidbyte_dagster.engine.runner import PROGRESS_SECONDS, run_stream, schema_column
from rapidbyte_dagster.engine.start import Start
from rapidbyte_dagster.errors import RapidbyteError, RunCancelled, Stage, UsageError
from rapidbyte_dagster.runtime import Worker
from rapidbyte_dagster.state import Committed, RunRecord, SchemaVersion, StateStore, utc_now

PIECE_BYTES = 1 << 30
"""Of a table that is loaded, what an interruption costs at most for each of those that are on their way."""


@dataclass(frozen=True)
class SlotResult:
    """What a run did for the streams of one slot."""

    group: str
    slot: str
    position: str | None
    """An LSN: every transaction that committed before it is applied, in every stream that goes on; None where none
    does."""
    lag_bytes: int | None
    """Log that came since, and that the slot has still to read; None where the source could not be asked any more."""
    transactions: int
    """That were read, as far as they changed any of the streams' tables."""
    streams: Mapping[str, StreamResult | RapidbyteError]
    """Each stream that was asked for, in the file's order: what was done, or why it stopped."""


def run_slot(
    pipeline: Pipeline,
    group: SlotGroup,
    *,
    state: StateStore,
    run_id: str,
    environ: Mapping[str, str] = os.environ,
    streams: Collection[str] | None = None,
    full_refresh: Collection[str] = (),
    tail_seconds: float | None = None,
    target: str | None = None,
    piece_bytes: int = PIECE_BYTES,
    on_progress: ProgressListener | None = None,
    on_log: LogListener | None = None,
    on_drift: GroupDriftListener | None = None,
    cancel: CancelToken | None = None,
) -> SlotResult:
    """Applies the changes that wait in the slot of `group`, up to the end that its log has when this begins (catch-up),
    up to the LSN `target`, or whatever comes in the next `tail_seconds` (tail).

    `streams`: only these; what the others need stays in the slot. A stream that never ran is loaded first, in a
    snapshot that its changes follow on; those of `full_refresh` are loaded anew, in the place of the rows there. A
    table that is larger than `piece_bytes` is loaded in pieces of about that size; a load that is interrupted goes on
    with those that are missing, in a later attempt or run.

    A stream that fails on its own is an error in the result, and the others go on. Raises a leaf of `RapidbyteError`
    that shows no secret for what stops all of them. Blocks the calling thread in short waits; `cancel`, or
    any exception raised in it, stops the run within two seconds and rolls back what is not committed.
    """
    chosen = [stream for stream in group.streams if streams is None or stream.name in streams]
    if not chosen:
        raise UsageError(
            f"slot group {group.name!r} has none of the streams that were asked for",
            hint=f"its streams are {', '.join(stream.name for stream in group.streams)}",
        )
    run = _SlotRun(
        pipeline,
        group,
        chosen,
        state=state,
        run_id=run_id,
        full_refresh=frozenset(full_refresh),
        tail_seconds=tail_seconds,
        target=target,
        piece_bytes=piece_bytes,
        on_progress=on_progress or (lambda _: None),
        on_log=on_log or ignore_log,
        on_drift=on_drift or (lambda _stream, _changes: None),
        cancel=cancel or CancelToken(),
    )
    return run.execute(environ)


class _SlotRun:
    def __init__(
        self,
        pipeline: Pipeline,
        group: SlotGroup,
        streams: list[Stream],
        *,
        state: StateStore,
        run_id: str,
        full_refresh: frozenset[str],
        tail_seconds: float | None,
        target: str | None,
        piece_bytes: int,
        on_progress: ProgressListener,
        on_log: LogListener,
        on_drift: GroupDriftListener,
        cancel: CancelToken,
    ) -> None:
        self._pipeline = pipeline
        self._group = group
        self._streams = streams
        self._state = state
        self._run_id = run_id
        self._anew = set(full_refresh)
        """Those that are still to be loaded, whatever their position."""
        self._tail_seconds = tail_seconds
        self._target = target
        self._piece_bytes = piece_bytes
        self._on_progress = on_progress
        self._on_log = on_log
        self._on_drift = on_drift
        self._cancel = cancel
        self._redactor = Redactor(frozenset())
        self._started = time.monotonic()
        self._started_at = utc_now()
        self._attempt = 0
        self._has_progressed = False
        """Whether the attempt has committed anything that changed a row."""
        self._retried: list[str] = []
        self._loaded: dict[str, StreamResult] = {}
        self._failed: dict[str, RapidbyteError] = {}
        self._lost: set[str] = set()
        """Those of them whose changes nobody can have any more."""
        self._started_after: dict[str, int] = {}
        """The number of each stream's last checkpoint before this run captured anything of it."""

    def execute(self, environ: Mapping[str, str]) -> SlotResult:
        self._environ = environ
        try:
            for stream in self._streams:
                self._record(stream, "running")
            plan = plan_pipeline(self._pipeline, environ, self._streams[0])
            self._redactor = plan.redactor
            return self._concluded(plan, *self._attempt_until_done(plan))
        except RapidbyteError as error:
            if len(self._streams) > 1 and len(self._failed) == len(self._streams) and error in self._failed.values():
                return self._stopped(plan)
            failure = told(error, self._redactor, error.info.stream)
            status = "cancelled" if isinstance(error, RunCancelled) else "failed"
            self._record_ends(status, str(failure))
        except BaseException as error:
            # Not ours: somebody interrupted this thread, or a listener failed in it.
            self._record_ends("failed" if isinstance(error, Exception) else "cancelled", type(error).__name__)
            raise
        # Out here it has no context: that would hold the unredacted text.
        raise failure

    def _attempt_until_done(self, plan: PipelinePlan) -> tuple[CaptureAttempt, CaptureOutcome]:
        policy = RetryPolicy(self._pipeline.resources.max_retries)
        tries = 0
        while True:
            self._attempt += 1
            # A tail of hours may lose its connections now and then: what counts is how often that was in vain.
            tries = 1 if self._has_progressed else tries + 1
            self._has_progressed = False
            if self._cancel.cancelled:
                raise RunCancelled("the run was cancelled before it began")
            try:
                return self._attempt_once(plan)
            except RapidbyteError as error:
                if self._goes_on_without(error):
                    self._attempt -= 1
                    tries -= 1
                    continue
                wait = policy.wait_before_retry(error, tries)
                if wait is None:
                    raise
                reason = str(told(error, self._redactor, error.info.stream))
            self._retried.append(reason)
            most = policy.max_retries + 1
            self._on_log(logging.WARNING, f"attempt {tries} of {most} failed, next in {wait:.1f} s: {reason}")
            if self._cancel.wait(wait):
                raise RunCancelled("the run was cancelled while it waited for its next attempt")

    def _goes_on_without(self, error: RapidbyteError) -> bool:
        """Whether one stream failed in a way that the others can go on without it, once what it wrote is taken back."""
        name = error.info.stream
        going = [stream.name for stream in self._streams if stream.name not in self._failed]
        if name not in going or len(going) == 1 or error.kind.retryable or isinstance(error, RunCancelled):
            return False
        assert name is not None, "it is one of the streams"
        self._failed[name] = error
        self._on_log(logging.ERROR, f"{name} stops, the other streams begin again without it: {error}")
        return True

    def _attempt_once(self, plan: PipelinePlan) -> tuple[CaptureAttempt, CaptureOutcome]:
        names = plan.slot_names(self._group)
        standing = self._standing(plan)
        with self._source(plan) as source:
            ready = self._set_up(plan, source, standing)
            self._look_for_lost_changes(ready, standing)
            missing = [
                stream
                for stream in self._streams
                if stream.name not in self._failed
                and (stream.name not in standing.positions or stream.name in self._anew)
            ]
            if missing:
                self._load(missing, source, ready)
        going_on = [stream for stream in self._streams if stream.name not in self._failed]
        if not going_on:
            raise next(iter(self._failed.values()))
        attempt = CaptureAttempt(
            plan,
            self._group,
            names,
            going_on,
            state=self._state,
            run_id=self._run_id,
            ready=ready,
            lost=self._lost,
            tail_seconds=self._time_left(),
            target=self._target,
            on_log=self._on_log,
            on_drift=self._on_drift,
            on_commit=self._told_of_commit,
        )
        try:
            return attempt, attempt.run(self._ticker(attempt), self._cancel)
        finally:
            for stream, sequence in attempt.destination.started_after.items():
                self._started_after.setdefault(stream, sequence)
            self._failed.update(attempt.destination.stopped)

    def _time_left(self) -> float | None:
        if self._tail_seconds is None:
            return None
        return max(0.0, self._tail_seconds - (time.monotonic() - self._started))

    @contextmanager
    def _source(self, plan: PipelinePlan) -> Iterator[Worker]:
        """A source that is open, and holds what it made until the end."""
        worker = plan.source.worker(StageHost(Stage.SOURCE, plan.redactor, self._on_log))
        with self._stoppable(worker):
            worker.call("rb_open", plan.open_argument(Stage.SOURCE, run_id=self._run_id))
            yield worker

    @contextmanager
    def _stoppable(self, worker: Worker) -> Iterator[None]:
        with ExitStack() as stack:
            stack.callback(self._cancel.on_cancel(worker.cancel))
            stack.enter_context(worker)
            yield

    def _set_up(self, plan: PipelinePlan, source: Worker, standing: Standing) -> SlotSetup:
        began = [stream for stream in standing.began if stream not in self._anew]
        ready = set_up(plan, self._group, source, state=self._state, began=began)
        if ready.created_slot:
            self._on_log(logging.INFO, f"made replication slot {ready.slot} at {ready.position}")
        if ready.created_publication:
            self._on_log(logging.INFO, f"made publication {ready.publication}")
        for table in ready.added_tables:
            self._on_log(logging.INFO, f"publication {ready.publication} tells of {table} from now on")
        for warning in ready.warnings:
            self._on_log(logging.WARNING, warning)
        for stream, refusal in ready.refused.items():
            if any(stream == chosen.name for chosen in self._streams):
                self._failed[stream] = refusal
                self._on_log(logging.ERROR, str(refusal))
        return ready

    def _standing(self, plan: PipelinePlan) -> Standing:
        worker = plan.destination.worker(StageHost(Stage.DESTINATION, plan.redactor, self._on_log))
        with self._stoppable(worker):
            opening = {
                **plan.open_argument(Stage.DESTINATION, run_id=self._run_id),
                "streams": [stream.name for stream in self._group.streams],
            }
            answer = worker.call("rb_open", opening)
            opened = read_answer(OpenedGroup, answer, verb="rb_open", stage=Stage.DESTINATION)
            names = [stream.name for stream in self._streams]
            return standing_of(self._pipeline, opened.watermarks, names, self._state)

    def _look_for_lost_changes(self, ready: SlotSetup, standing: Standing) -> None:
        for stream in self._streams:
            if stream.name in self._anew or stream.name in self._failed:
                continue
            lost = lost_changes(stream.name, ready, standing, self._pipeline.path.name)
            if lost is not None:
                self._failed[stream.name] = lost
                self._lost.add(stream.name)
                self._on_log(logging.ERROR, str(lost))

    def _load(self, streams: list[Stream], source: Worker, ready: SlotSetup) -> None:
        """Each of them in one and the same snapshot, which `source` holds."""
        snapshot = read_answer(Snapshot, source.call("rb_snapshot", {}), verb="rb_snapshot", stage=Stage.SOURCE)
        for stream in streams:
            if self._cancel.cancelled:
                raise RunCancelled("the run was cancelled before all snapshots were taken")
            self._on_log(logging.INFO, f"{stream.name}: loaded as of {snapshot.lsn}")
            appends = self._pipeline.write_mode(stream) is WriteMode.APPEND
            try:
                result = run_stream(
                    self._pipeline,
                    stream,
                    state=self._state,
                    run_id=self._run_id,
                    environ=self._environ,
                    start=Start.RESUME if appends and stream.name not in self._anew else Start.FULL_REFRESH,
                    snapshot=snapshot.model_copy(update={"origin": ready.origins.get(stream.name)}),
                    on_progress=self._on_progress,
                    on_log=partial(self._log_of, stream.name),
                    on_drift=partial(self._on_drift, stream.name),
                    cancel=self._cancel,
                    piece_bytes=self._piece_bytes,
                )
            except RunCancelled:
                raise
            except RapidbyteError as error:
                if error.kind.retryable:
                    raise
                self._failed[stream.name] = error
                self._on_log(logging.ERROR, str(error))
            else:
                self._loaded[stream.name] = result
                self._anew.discard(stream.name)
                self._record(stream, "running")

    def _log_of(self, stream: str, level: int, message: str) -> None:
        self._on_log(level, f"{stream}: {message}")

    def _ticker(self, attempt: CaptureAttempt) -> Callable[[], None]:
        def tell(now: float) -> None:
            for stream, rows in attempt.source.rows.items():
                self._on_progress(
                    Progress(
                        stream=stream,
                        rows=rows,
                        bytes=attempt.source.bytes[stream],
                        rows_committed=attempt.commits[stream].rows,
                        elapsed_seconds=now - attempt.started,
                        attempt=self._attempt,
                    )
                )

        return at_most_every(PROGRESS_SECONDS, tell)

    def _told_of_commit(self, mark: Mark) -> None:
        rows = sum(mark.rows.values())
        if rows:
            self._has_progressed = True
            self._on_log(logging.DEBUG, f"committed {rows:,} changes up to {format_lsn(mark.position)}")

    def _concluded(self, plan: PipelinePlan, attempt: CaptureAttempt, outcome: CaptureOutcome) -> SlotResult:
        results: dict[str, StreamResult | RapidbyteError] = {}
        for stream in self._streams:
            error = self._failed.get(stream.name)
            if error is not None:
                shown = told(error, self._redactor, stream.name)
                results[stream.name] = shown
                self._record(stream, "failed", error=str(shown))
                continue
            result = self._result(stream, attempt, outcome.applied.streams[stream.name])
            results[stream.name] = result
            self._record(stream, "ok", result=result)
        if all(isinstance(result, RapidbyteError) for result in results.values()):
            raise next(iter(self._failed.values()))
        return SlotResult(
            group=self._group.name,
            slot=self._redactor.redact(plan.slot_names(self._group).slot),
            position=outcome.captured.lsn,
            lag_bytes=attempt.lag_bytes,
            transactions=outcome.captured.transactions,
            streams=results,
        )

    def _stopped(self, plan: PipelinePlan) -> SlotResult:
        """Each stream for itself."""
        shown = {stream.name: told(self._failed[stream.name], self._redactor, stream.name) for stream in self._streams}
        for stream in self._streams:
            self._record(stream, "failed", error=str(shown[stream.name]))
        slot = self._redactor.redact(plan.slot_names(self._group).slot)
        return SlotResult(self._group.name, slot, position=None, lag_bytes=None, transactions=0, streams=shown)

    def _result(self, stream: Stream, attempt: CaptureAttempt, applied: AppliedStream) -> StreamResult:
        loaded = self._loaded.get(stream.name)
        commits = attempt.commits[stream.name]
        schema = attempt.source.changes.schema(stream.name)
        columns = tuple(schema_column(column, schema or pa.schema([])) for column in applied.columns)
        at_first = loaded.schema_changes if loaded else ()
        result = StreamResult(
            stream=stream.name,
            **self._moved(stream),
            batches=attempt.source.changes.batches(stream.name) + (loaded.batches if loaded else 0),
            seconds=time.monotonic() - self._started,
            attempts=self._attempt + (loaded.attempts - 1 if loaded else 0),
            retried=(*(loaded.retried if loaded else ()), *self._retried),
            # The schema may come from the environment, and what does is never shown.
            table=self._redactor.redact(f"{applied.schema_}.{applied.table}"),
            columns=loaded.columns if loaded and schema is None else columns,
            primary_key=applied.primary_key or (),
            checkpoint=attempt.destination.checkpoints[stream.name],
            arrow_schema=schema or (loaded.arrow_schema if loaded else pa.schema([])),
            timings=attempt.timings,
            peak_memory=attempt.peak_memory,
            changes={
                "inserted": applied.inserted,
                "updated": applied.updated,
                "deleted": applied.deleted,
                "truncated": applied.truncated,
            },
            schema_changes=tuple(dict.fromkeys((*at_first, *commits.prepared_changes))),
        )
        if schema is not None:
            version = SchemaVersion(
                table=result.table,
                columns=columns,
                primary_key=result.primary_key,
                policy=self._pipeline.destination.schema_evolution,
                stream_key=stream_key(schema),
                run_id=self._run_id,
                recorded_at=utc_now(),
            )
            self._state.record_schema(self._pipeline.name, stream.name, version)
        return result

    def _moved(self, stream: Stream) -> dict[str, int]:
        """What this run has committed of it so far."""
        loaded = _counts(self._loaded.get(stream.name, Committed()))
        after = self._started_after.get(stream.name)
        if after is None:
            return loaded
        captured = _counts(self._state.committed(self._pipeline.name, stream.name, self._run_id, after=after))
        return {name: loaded[name] + captured[name] for name in loaded}

    def _record_ends(self, status: str, error: str) -> None:
        for stream in self._streams:
            own = self._failed.get(stream.name)
            self._record(stream, status, error=str(told(own, self._redactor, stream.name)) if own else error)

    def _record(
        self, stream: Stream, status: str, *, error: str | None = None, result: StreamResult | None = None
    ) -> None:
        """The run's own error matters more than a store that cannot write it down."""
        record = RunRecord(
            run_id=self._run_id,
            pipeline=self._pipeline.name,
            stream=stream.name,
            status=status,
            started_at=self._started_at,
            ended_at=None if status == "running" else utc_now(),
            **(self._moved(stream) if result is None else _counts(result)),
            attempts=self._attempt,
            error=error,
        )
        try:
            self._state.record_run(record)
        except RapidbyteError as failure:
            if status in ("running", "ok"):
                raise
            self._on_log(logging.ERROR, str(told(failure, self._redactor, stream.name)))


def _counts(done: StreamResult | Committed) -> dict[str, Any]:
    return {"rows": done.rows, "bytes": done.bytes, "rejected": done.rejected, "dead_letters": done.dead_letters}
