"""One attempt to capture: the changes of a slot's streams, from where they stand to where the run ends.

source                                    channel                     destination
rb_open                                                               rb_open: the watermarks of all streams
   ◀───────────────────── positions, found by the watermarks ───────────┘
rb_capture ── emit, barrier ─▶ change change |barrier| change ─▶ next ── rb_apply
   ◀─ settled ──────────────────────────────────────────────────────── committed
rb_confirm: the slot moves  ◀────────────────────────────── applied ────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rapidbyte_dagster.config import SlotGroup, SlotNames, Stream
from rapidbyte_dagster.engine.answers import Applied, Captured, OpenedGroup, read_answer
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.capture.hosts import ApplyHost, CaptureHost
from rapidbyte_dagster.engine.capture.ledger import CaptureLedger, Mark
from rapidbyte_dagster.engine.capture.lsn import format_lsn, parse_lsn
from rapidbyte_dagster.engine.capture.slots import SlotSetup, find_slot, note_confirmed
from rapidbyte_dagster.engine.capture.standing import Standing, standing_of
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.handoff import Handoff
from rapidbyte_dagster.engine.plan import PipelinePlan
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.engine.stages import Stages
from rapidbyte_dagster.engine.stream_commits import StreamCommits
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Kind, RapidbyteError, RunCancelled, SourceError, Stage
from rapidbyte_dagster.runtime import Worker
from rapidbyte_dagster.state import SchemaChange, StateStore

FLUSH_MS = 20
"""How long a change may wait in the source for others that go with it."""

BATCH_BYTES = 4 * 1024 * 1024
"""What a source gathers at most: the destination applies one part of a backlog while the source reads the next."""


GroupDriftListener = Callable[[str, tuple[SchemaChange, ...]], None]
"""Takes a stream's name and what one commit finds and does about its columns."""


@dataclass(frozen=True)
class CaptureOutcome:
    captured: Captured
    applied: Applied


class CaptureAttempt:
    def __init__(
        self,
        plan: PipelinePlan,
        group: SlotGroup,
        names: SlotNames,
        streams: Collection[Stream],
        *,
        state: StateStore,
        run_id: str,
        ready: SlotSetup,
        lost: Collection[str],
        tail_seconds: float | None,
        target: str | None,
        on_log: LogListener,
        on_drift: GroupDriftListener,
        on_commit: Callable[[Mark], None],
    ) -> None:
        """`streams` are those of `group` that go on; the slot waits for the others too, except for those of `lost`."""
        self._ready = ready
        self._lost = lost
        self._plan = plan
        self._group = group
        self._names = names
        self._streams = tuple(streams)
        self._state = state
        self._run_id = run_id
        self._tail_seconds = tail_seconds
        self._target = target
        self._start: Handoff[Standing] = Handoff()
        self._applied: Handoff[Applied] = Handoff()
        self._captured: Captured | None = None
        self._answer: Applied | None = None
        self.lag_bytes: int | None = None
        """Log that the slot had still to read at the end; None where it could not be asked."""
        pipeline = plan.pipeline
        self._channel = Channel(pipeline.resources.max_inflight_bytes)
        self.commits = {
            stream.name: StreamCommits(
                plan.redactor,
                partial(_log_of, stream.name, on_log),
                state,
                pipeline=pipeline.name,
                stream=stream.name,
                run_id=run_id,
                policy=pipeline.destination.schema_evolution,
                on_data_error=pipeline.destination.on_data_error,
                on_drift=partial(on_drift, stream.name),
            )
            for stream in self._streams
        }
        names_of_streams = [stream.name for stream in self._streams]
        on_data_error = pipeline.destination.on_data_error
        self.source = CaptureHost(plan.redactor, on_log, self._channel, names_of_streams, on_data_error)
        self.destination = ApplyHost(
            plan.redactor,
            on_log,
            self._channel,
            state,
            self.commits,
            pipeline=pipeline.name,
            run_id=run_id,
            origins=ready.origins,
            on_commit=on_commit,
        )
        self._stages = Stages(self._wake)
        self._stages.add(Stage.SOURCE, plan.source.worker(self.source), self._capture, group.name)
        self._stages.add(Stage.DESTINATION, plan.destination.worker(self.destination), self._apply, group.name)
        self.started = time.monotonic()

    def run(self, on_tick: Callable[[], None], cancel: CancelToken) -> CaptureOutcome:
        """Runs to the end or raises the first failure. Whatever is raised in this thread stops the stages first."""
        self._stages.run(on_tick, cancel)
        if self._captured is not None and self._answer is not None:
            # All is committed; a slot that could not be told so stands where it did, and the next run tells it.
            return CaptureOutcome(self._captured, self._answer)
        if self._stages.cancelled:
            raise RunCancelled("the run was cancelled; nothing since the last checkpoint was written")
        raise self._stages.failure or violation(Stage.DESTINATION, "ended without committing everything it was given")

    @property
    def peak_memory(self) -> Mapping[str, int]:
        return {**self._stages.peak_memory(), "channel": self._channel.peak_bytes}

    @property
    def timings(self) -> Mapping[str, float]:
        timings = {
            "source_blocked_seconds": self._channel.put_wait_seconds,
            "destination_idle_seconds": self._channel.take_wait_seconds,
        }
        for host in (self.source, self.destination):
            for name, value in host.metrics.items():
                timings[f"{host.label}_{name}"] = value
        return timings

    def _wake(self) -> None:
        self._start.give_up()
        self._applied.give_up()
        self._channel.abort()

    # The source's thread

    def _capture(self, worker: Worker) -> None:
        worker.call("rb_open", self._plan.open_argument(Stage.SOURCE, run_id=self._run_id))
        standing = self._start.wait()
        if standing is None:
            return
        argument = {
            "slot": self._names.slot,
            "publication": self._names.publication,
            "streams": [
                {
                    **self._plan.source_argument(stream),
                    "truncate": str(stream.truncate or "apply"),
                    "position": format_lsn(standing.positions[stream.name]),
                }
                for stream in self._streams
            ],
            "hold": None if (hold := self._hold(standing)) is None else format_lsn(hold),
            "target": None if self._tail_seconds is not None else self._target or "now",
            "seconds": self._tail_seconds,
            "max_batch_bytes": min(self._plan.pipeline.resources.max_batch_bytes, BATCH_BYTES),
            "flush_ms": FLUSH_MS,
        }
        captured = read_answer(Captured, worker.call("rb_capture", argument), verb="rb_capture", stage=Stage.SOURCE)
        self.source.finish()
        if self._applied.wait() is None:
            return
        self._captured = captured
        worker.call("rb_confirm", {"lsn": format_lsn(self._confirmed(standing))})
        found = find_slot(self._plan, worker, self._group)
        note_confirmed(self._plan, self._group, found, self._state)
        self.lag_bytes = found.lag_bytes

    def _confirmed(self, standing: Standing) -> int:
        """What no stream of the slot needs any more."""
        positions = list(self.destination.positions.values())
        hold = self._hold(standing)
        return min(positions if hold is None else [*positions, hold])

    def _hold(self, standing: Standing) -> int | None:
        """What lies before the slot's own position nobody can have, whoever would need it."""
        if standing.hold is None or self._ready.position is None:
            return standing.hold
        return max(standing.hold, parse_lsn(self._ready.position))

    # The destination's thread

    def _apply(self, worker: Worker) -> None:
        group = [stream.name for stream in self._group.streams]
        opening = {**self._plan.open_argument(Stage.DESTINATION, run_id=self._run_id), "streams": group}
        opened = read_answer(OpenedGroup, worker.call("rb_open", opening), verb="rb_open", stage=Stage.DESTINATION)
        names = [stream.name for stream in self._streams]
        standing = standing_of(self._plan.pipeline, opened.watermarks, names, self._state, self._lost)
        missing = [name for name in names if name not in standing.positions]
        if missing:
            raise SourceError(
                f"somebody else has reset {', '.join(missing)} while its snapshot was taken",
                kind=Kind.TRANSIENT_DB,
                stage=Stage.DESTINATION,
            )
        ledger = CaptureLedger(self._plan.pipeline.resources, tails=self._tail_seconds is not None)
        self.destination.begin(ledger, standing.sequences, standing.positions)
        self.source.ledger = ledger
        self._start.set(standing)
        answer = worker.call("rb_apply", {"streams": [self._destination_argument(stream) for stream in self._streams]})
        self._answer = read_answer(Applied, answer, verb="rb_apply", stage=Stage.DESTINATION)
        if ledger.complete:
            self._applied.set(self._answer)
        else:
            raise violation(Stage.DESTINATION, "ended without committing everything that it was given")

    def _destination_argument(self, stream: Stream) -> dict[str, Any]:
        schema = self._state.schema_state(self._plan.pipeline.name, stream.name)
        known = self._plan.known_columns(stream, schema)
        return {
            **self._plan.destination_argument(stream, known=known),
            "deletes": str(stream.deletes or "hard"),
            "truncate": str(stream.truncate or "apply"),
            "target": "must_exist",
        }

    @property
    def failure(self) -> RapidbyteError | None:
        return self._stages.failure


def _log_of(stream: str, on_log: LogListener, level: int, message: str) -> None:
    on_log(level, f"{stream}: {message}")
