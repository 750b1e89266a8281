"""One attempt at one stream: two threads, one channel, and the first failure.

    source thread        open ────────────────▶ read ── emit ─▶ channel ─▶ final barrier, end
    destination thread   open ▶ watermark ▶ reconcile ▶ write ◀── next ── commit …

Whatever fails first is the attempt's error. A failed source aborts the channel, and the destination rolls back on its
own; a failed destination has nothing to wait for, and the source is stopped.

A destination may commit and fail to say so. An attempt that failed like that hands what it moved to the next one, as
`unconfirmed`; that one learns from the watermark what became of it, and where it was committed, moves nothing again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from rapidbyte_dagster.config import Stream
from rapidbyte_dagster.engine.answers import OpenedDestination, Written, read_answer
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.fate import REFUSALS, Fate, with_fate
from rapidbyte_dagster.engine.hosts import DestinationHost, SourceHost
from rapidbyte_dagster.engine.plan import PipelinePlan
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.engine.resume import Resume
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import RapidbyteError, RunCancelled, Stage, bug
from rapidbyte_dagster.runtime import End, Instance, StreamAborted
from rapidbyte_dagster.state import Checkpoint, StateStore

# How long a destination may take to roll back by itself after its source failed; then it is interrupted, and the
# server rolls back when its connection goes away.
ROLLBACK_GRACE_SECONDS = 5.0

# How often the calling thread looks up: signals (Ctrl-C, Dagster's termination) reach Python code only between waits.
TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Moved:
    """What an attempt brought to the destination, and what it took."""

    rows: int
    bytes: int
    batches: int
    schema: pa.Schema
    checkpoint: Checkpoint
    seconds: float
    timings: dict[str, float]
    peak_memory: dict[str, int]


@dataclass(frozen=True)
class AttemptOutcome:
    """What a successful attempt leaves behind."""

    moved: Moved
    written: Written


class Attempt:
    """`unconfirmed` is that of the attempt before, if it had any."""

    def __init__(
        self,
        plan: PipelinePlan,
        stream: Stream,
        *,
        state: StateStore,
        run_id: str,
        on_log: LogListener,
        unconfirmed: Moved | None = None,
    ) -> None:
        self._plan = plan
        self._stream = stream
        self._state = state
        self._run_id = run_id
        self._channel = Channel(plan.pipeline.resources.max_inflight_bytes)
        self._resume = Resume()
        self.source = SourceHost(plan.redactor, on_log, self._channel)
        self.destination = DestinationHost(
            plan.redactor,
            on_log,
            self._channel,
            state,
            pipeline=plan.pipeline.name,
            stream=stream.name,
            run_id=run_id,
        )
        # Their threads start them; cancelling works before that, and does nothing after their end.
        self._instances = {
            Stage.SOURCE: plan.source.instance(self.source),
            Stage.DESTINATION: plan.destination.instance(self.destination),
        }
        # Reentrant: a signal handler may cancel while its own thread is in here.
        self._lock = threading.RLock()
        self._at_work = set(self._instances)
        self._failure: RapidbyteError | None = None
        self._failed_at: float | None = None
        self._cancelled = False
        self._unconfirmed = unconfirmed
        self._confirmed: Moved | None = None
        self._written: Written | None = None
        self.started = time.monotonic()
        self._ended = self.started

    def run(self, on_tick: Callable[[], None], cancel: CancelToken) -> AttemptOutcome:
        """Runs to the end or raises the first failure. Whatever is raised in this thread stops the stages first."""
        bodies = {Stage.SOURCE: self._read, Stage.DESTINATION: self._write}
        threads = [
            threading.Thread(target=self._run_stage, args=(stage, body), name=f"{stage}-{self._stream.name}")
            for stage, body in bodies.items()
        ]
        forget = cancel.on_cancel(self._stop)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(TICK_SECONDS)
                    self._look_after_stages()
                    on_tick()
        except BaseException:
            self._stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        finally:
            forget()
        return self._outcome()

    @property
    def unconfirmed(self) -> Moved | None:
        """What was moved by this failed attempt, or one before, if nobody knows whether it was committed."""
        if self._confirmed is not None:
            return self._confirmed
        if self.destination.last_prepared is None:
            return self._unconfirmed
        return self._moved(self.destination.last_prepared)

    def _outcome(self) -> AttemptOutcome:
        if self._written is not None:
            # The commit decides: whatever happened beside it or after it is no failure.
            if self._confirmed is not None:
                return AttemptOutcome(self._confirmed, self._written)
            if self.destination.checkpoint is not None and self._is_settled():
                return AttemptOutcome(self._moved(self.destination.checkpoint), self._written)
        fate = self._fate()
        if self._cancelled:
            rest = "; nothing since the last checkpoint was written" if fate is Fate.ROLLED_BACK else ""
            failure: RapidbyteError = RunCancelled(f"the run was cancelled{rest}")
        else:
            failure = self._failure or violation(
                Stage.DESTINATION, "ended without committing everything that it was given"
            )
        raise with_fate(failure, fate, self._plan.pipeline.write_mode(self._stream))

    def _fate(self) -> Fate:
        if self._confirmed is not None or self._is_settled():
            return Fate.COMMITTED
        if self.unconfirmed is None:
            return Fate.ROLLED_BACK
        refused = self._unconfirmed is None and self._failure is not None and self._failure.kind in REFUSALS
        return Fate.ROLLED_BACK if refused and not self._cancelled else Fate.UNKNOWN

    def _is_settled(self) -> bool:
        return self.source.ledger is not None and self.source.ledger.settled

    def _moved(self, checkpoint: Checkpoint) -> Moved:
        schema = self.source.arrow.schema
        return Moved(
            rows=self.source.rows,
            bytes=self.source.bytes,
            batches=self.source.arrow.batches,
            schema=schema if schema is not None else pa.schema([]),
            checkpoint=checkpoint,
            seconds=self._ended - self.started,
            timings={
                "source_blocked_seconds": self._channel.put_wait_seconds,
                "destination_idle_seconds": self._channel.take_wait_seconds,
                **{f"source_{name}": value for name, value in self.source.metrics.items()},
                **{f"destination_{name}": value for name, value in self.destination.metrics.items()},
            },
            peak_memory={str(stage): instance.peak_memory for stage, instance in self._instances.items()},
        )

    # The two threads

    def _run_stage(self, stage: Stage, body: Callable[[Instance], None]) -> None:
        """Nothing that happens in a stage's thread may get lost, and its failure must wake the other."""
        try:
            with self._instances[stage] as instance:
                try:
                    body(instance)
                except BaseException as error:  # noqa: BLE001  a thread's edge
                    # Told before the instance says goodbye to its server, which may take long: the other side waits.
                    self._fail(stage, error)
                finally:
                    with self._lock:
                        self._at_work.discard(stage)
        except BaseException as error:  # noqa: BLE001  a thread's edge
            self._fail(stage, error)

    def _read(self, instance: Instance) -> None:
        instance.call("rb_open", self._open_argument(Stage.SOURCE))
        resumed = self._resume.wait()
        if resumed is None:
            return
        self.source.ledger, cursor = resumed
        instance.call(
            "rb_read",
            {
                "stream": self._plan.source_argument(self._stream),
                "cursor": cursor,
                "max_batch_bytes": self._plan.pipeline.resources.max_batch_bytes,
            },
        )
        self.source.finish()

    def _write(self, instance: Instance) -> None:
        answer = instance.call("rb_open", self._open_argument(Stage.DESTINATION))
        opened = read_answer(OpenedDestination, answer, verb="rb_open", stage=Stage.DESTINATION)
        resume = self._state.reconcile(self._plan.pipeline.name, self._stream.name, opened.watermark)
        self._settle_unconfirmed()
        if self._confirmed is None:
            ledger = BarrierLedger(self._plan.pipeline.resources, resume)
            self.destination.ledger = ledger
            self._resume.set(ledger, resume.cursor)
        else:
            # There is nothing to write: only the table is asked about.
            self._resume.give_up()
            self._channel.put(End())
        answer = instance.call("rb_write", {"stream": self._plan.destination_argument(self._stream)})
        self._ended = time.monotonic()
        self._written = read_answer(Written, answer, verb="rb_write", stage=Stage.DESTINATION)

    def _settle_unconfirmed(self) -> None:
        """After reconciling with the watermark, the state store knows whether the attempt before committed."""
        moved, self._unconfirmed = self._unconfirmed, None
        if moved is None:
            return
        for committed in self._state.checkpoints(self._plan.pipeline.name, self._stream.name):
            if (committed.sequence, committed.run_id) == (moved.checkpoint.sequence, self._run_id):
                self._confirmed = replace(moved, checkpoint=committed)

    def _open_argument(self, stage: Stage) -> dict[str, object]:
        return self._plan.open_argument(stage, stream=self._stream, run_id=self._run_id)

    # Stopping

    def _fail(self, stage: Stage, error: BaseException) -> None:
        if not isinstance(error, RapidbyteError | StreamAborted):
            error = bug(error, stage=stage)
        with self._lock:
            if self._failed_at is None:
                self._failed_at = self._ended = time.monotonic()
            # Who only saw the abort has nothing to tell.
            if self._failure is None and isinstance(error, RapidbyteError):
                self._failure = error
        self._resume.give_up()
        self._channel.abort()
        if stage is Stage.DESTINATION:
            self._instances[Stage.SOURCE].cancel()

    def _stop(self) -> None:
        self._cancelled = True
        self._resume.give_up()
        self._channel.abort()
        for instance in self._instances.values():
            instance.cancel()

    def _look_after_stages(self) -> None:
        """What the stages' own threads cannot see to."""
        with self._lock:
            failed_at, at_work = self._failed_at, list(self._at_work)
        if failed_at is not None and time.monotonic() - failed_at > ROLLBACK_GRACE_SECONDS:
            for instance in self._instances.values():
                instance.cancel()
        for stage in at_work:
            # One whose time is up may wait in the channel, where its instance cannot reach it.
            stopped = self._instances[stage].stopped
            if stopped is not None:
                self._fail(stage, stopped)
