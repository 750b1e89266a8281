"""One attempt at one stream: two threads, one channel, and the first failure.

    source thread        open ────────────────▶ read ── emit ─▶ channel ─▶ end
    destination thread   open ▶ watermark ▶ reconcile ▶ write ◀── next ── commit …

Whatever fails first is the attempt's error. A failed source aborts the channel, and the destination rolls back on its
own; a failed destination has nothing to wait for, and the source is stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config import Stream
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.hosts import DestinationHost, Resume, SourceHost
from rapidbyte_dagster.engine.plan import ConnectorPlan, PipelinePlan
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.errors import (
    ErrorInfo,
    InternalError,
    Kind,
    RapidbyteError,
    RunCancelled,
    Stage,
    error_from,
)
from rapidbyte_dagster.runtime import End, Instance, StreamAborted
from rapidbyte_dagster.state import Checkpoint, StateStore, Watermark

# How long a destination may take to roll back by itself after its source failed; then it is interrupted, and the
# server rolls back when its connection goes away.
ROLLBACK_GRACE_SECONDS = 5.0

# How often the calling thread looks up: signals (Ctrl-C, Dagster's termination) reach Python code only between waits.
TICK_SECONDS = 0.1


@dataclass(frozen=True)
class AttemptOutcome:
    """What a successful attempt leaves behind."""

    source: SourceHost
    destination: DestinationHost
    checkpoint: Checkpoint
    written: dict[str, Any]
    """The destination's answer to `rb_write`."""
    seconds: float
    timings: dict[str, float]
    peak_memory: dict[str, int]


class Attempt:
    def __init__(
        self, plan: PipelinePlan, stream: Stream, *, state: StateStore, run_id: str, on_log: LogListener
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
        self._lock = threading.Lock()
        self._instances: dict[Stage, Instance] = {}
        self._peak_memory: dict[str, int] = {}
        self._failure: RapidbyteError | None = None
        self._failed_at: float | None = None
        self._cancelled = False
        self._written: dict[str, Any] | None = None
        self.started = time.monotonic()
        self._ended = self.started

    def run(self, on_tick: Callable[[], None], cancel: CancelToken) -> AttemptOutcome:
        """Runs to the end or raises the first failure. Whatever is raised in this thread stops the stages first."""
        threads = [
            threading.Thread(target=self._guard, args=(Stage.SOURCE, self._read), name=f"source-{self._stream.name}"),
            threading.Thread(
                target=self._guard, args=(Stage.DESTINATION, self._write), name=f"destination-{self._stream.name}"
            ),
        ]
        forget = cancel.on_cancel(self._stop)
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                next(thread for thread in threads if thread.is_alive()).join(TICK_SECONDS)
                self._enforce_rollback_grace()
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

    def _outcome(self) -> AttemptOutcome:
        if self._cancelled and self._written is None:
            raise RunCancelled("the run was cancelled; nothing since the last checkpoint was written")
        if self._failure is not None:
            raise self._failure
        checkpoint = self.destination.checkpoint
        if self._written is None or checkpoint is None or not (self.source.ledger and self.source.ledger.settled):
            raise error_from(
                ErrorInfo(
                    kind=Kind.PROTOCOL,
                    stage=Stage.DESTINATION,
                    message="the destination connector ended without committing everything it was given",
                )
            )
        timings = {
            "source_blocked_seconds": self._channel.put_wait_seconds,
            "destination_idle_seconds": self._channel.take_wait_seconds,
            **{f"source_{name}": value for name, value in self.source.metrics.items()},
            **{f"destination_{name}": value for name, value in self.destination.metrics.items()},
        }
        return AttemptOutcome(
            self.source,
            self.destination,
            checkpoint,
            self._written,
            self._ended - self.started,
            timings,
            self._peak_memory,
        )

    # The two threads

    def _read(self) -> None:
        with self._instance(self._plan.source, self.source) as instance:
            instance.call("rb_open", self._open_argument(self._plan.source))
            resumed = self._resume.wait()
            if resumed is None:
                raise StreamAborted
            self.source.ledger, cursor = resumed
            instance.call(
                "rb_read",
                {
                    "stream": self._plan.source_argument(self._stream),
                    "cursor": cursor,
                    "max_batch_bytes": self._plan.pipeline.resources.max_batch_bytes,
                },
            )
            if not self.source.ledger.complete:
                raise error_from(
                    ErrorInfo(
                        kind=Kind.PROTOCOL,
                        stage=Stage.SOURCE,
                        message="the source connector ended its stream without a final barrier",
                    )
                )
            self._channel.put(End())

    def _write(self) -> None:
        with self._instance(self._plan.destination, self.destination) as instance:
            opened = instance.call("rb_open", self._open_argument(self._plan.destination))
            resume = self._state.reconcile(
                self._plan.pipeline.name, self._stream.name, _watermark(opened.get("watermark"))
            )
            ledger = BarrierLedger(self._plan.pipeline.resources, resume)
            self.destination.ledger = ledger
            self._resume.set(ledger, resume.cursor)
            self._written = instance.call("rb_write", {"stream": self._plan.destination_argument(self._stream)})
            self._ended = time.monotonic()

    def _guard(self, stage: Stage, body: Callable[[], None]) -> None:
        """A stage's thread: nothing that happens in it may get lost, and its end must wake the other."""
        try:
            body()
        except StreamAborted:
            self._fail(stage, None)
        except RapidbyteError as error:
            self._fail(stage, error)
        except Exception as error:  # noqa: BLE001  the thread's boundary: anything else is our bug
            failure = InternalError(f"{type(error).__name__}: {error}", stage=stage)
            failure.__cause__ = error
            self._fail(stage, failure)

    def _open_argument(self, side: ConnectorPlan) -> dict[str, Any]:
        return {
            "config": dict(side.config),
            "pipeline": self._plan.pipeline.name,
            "stream": self._stream.name,
            "run_id": self._run_id,
        }

    def _instance(self, side: ConnectorPlan, host: SourceHost | DestinationHost) -> _Registered:
        return _Registered(self, Instance(side.connector, host=host, sandbox=side.sandbox, stage=side.stage))

    # Stopping

    def _fail(self, stage: Stage, error: RapidbyteError | None) -> None:
        with self._lock:
            if self._failure is None and error is not None:
                self._failure = error
            if self._failed_at is None:
                self._failed_at = time.monotonic()
            source = self._instances.get(Stage.SOURCE)
        self._resume.give_up()
        self._channel.abort()
        if stage is Stage.DESTINATION and source is not None:
            source.cancel()

    def _stop(self) -> None:
        with self._lock:
            self._cancelled = True
            instances = list(self._instances.values())
        self._resume.give_up()
        self._channel.abort()
        for instance in instances:
            instance.cancel()

    def _enforce_rollback_grace(self) -> None:
        with self._lock:
            late = self._failed_at is not None and time.monotonic() - self._failed_at > ROLLBACK_GRACE_SECONDS
            instances = list(self._instances.values()) if late else []
        for instance in instances:
            instance.cancel()

    def _register(self, stage: Stage, instance: Instance) -> None:
        with self._lock:
            self._instances[stage] = instance
            stopped = self._cancelled or self._failed_at is not None
        if stopped:
            instance.cancel()

    def _unregister(self, stage: Stage, instance: Instance) -> None:
        with self._lock:
            self._instances.pop(stage, None)
            self._peak_memory[str(stage)] = instance.peak_memory


class _Registered:
    """An instance that can be cancelled from outside for exactly as long as it lives."""

    def __init__(self, attempt: Attempt, instance: Instance) -> None:
        self._attempt = attempt
        self._instance = instance

    def __enter__(self) -> Instance:
        self._instance.__enter__()
        self._attempt._register(self._instance.stage, self._instance)
        return self._instance

    def __exit__(self, *reason: Any) -> None:
        self._attempt._unregister(self._instance.stage, self._instance)
        self._instance.__exit__(*reason)


def _watermark(told: Any) -> Watermark | None:
    return None if told is None else Watermark.model_validate(told)
