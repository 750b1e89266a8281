"""What each guest's host functions do: the source's fill the channel, the destination's drain it."""

from __future__ import annotations

import json
from typing import Any

from rapidbyte_dagster.config import Redactor, SchemaEvolution
from rapidbyte_dagster.engine.arrow_stream import ArrowStream
from rapidbyte_dagster.engine.barriers import BarrierLedger, PendingCheckpoint
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.drift import is_repeated, log_level, read_changes
from rapidbyte_dagster.engine.result import DriftListener, LogListener
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Barrier, End, Item, LogLevel, Message, NoData
from rapidbyte_dagster.state import ChangeAction, Checkpoint, SchemaChange, StateStore, utc_now


class StageHost(NoData):
    """What both sides may do: log, without secrets, and count."""

    def __init__(self, stage: Stage, redactor: Redactor, on_log: LogListener) -> None:
        self.stage = stage
        self._redactor = redactor
        self._on_log = on_log
        self.metrics: dict[str, float] = {}

    def log(self, level: LogLevel, message: str) -> None:
        self._on_log(level.logging_level, self._redactor.redact(f"{self.stage}: {message}"))

    def metric(self, name: str, value: float) -> None:
        self.metrics[name] = self.metrics.get(name, 0.0) + value


class SourceHost(StageHost):
    def __init__(self, redactor: Redactor, on_log: LogListener, channel: Channel) -> None:
        super().__init__(Stage.SOURCE, redactor, on_log)
        self._channel = channel
        self._final: Barrier | None = None
        """The final barrier. It waits for `finish`: a source that fails behind it has nothing committed."""
        self.ledger: BarrierLedger | None = None
        """Set once the destination told its watermark; a source that emits before `rb_read` is refused."""
        self.arrow = ArrowStream()
        self.rows = 0
        self.bytes = 0

    def emit(self, message: bytes | bytearray) -> None:
        ledger = self._reading()
        rows = self.arrow.accept(message)
        ledger.count(rows, len(message))
        self._channel.put(Message(message))
        self.rows += rows
        self.bytes += len(message)

    def barrier(self, payload: dict[str, Any]) -> None:
        ledger = self._reading()
        final = payload.get("final")
        if not isinstance(final, bool):
            raise violation(Stage.SOURCE, "sent a barrier without `final`")
        checkpoint = ledger.mark(payload.get("cursor"), final)
        if checkpoint is None:
            return
        announced = {"sequence": checkpoint.sequence, "cursor": checkpoint.cursor, "final": checkpoint.final}
        barrier = Barrier(json.dumps(announced).encode())
        if final:
            self._final = barrier
        else:
            self._channel.put(barrier)

    def take_over(self, rows: int, size: int) -> None:
        """What others have read and loaded for this stream, and what comes behind it."""
        self._reading().count(rows, size)
        self.barrier({"cursor": None, "final": True})

    def finish(self) -> None:
        """The source has read everything and said so."""
        if self._final is None:
            raise violation(Stage.SOURCE, "ended its stream without a final barrier")
        self._channel.put(self._final)
        self._channel.put(End())

    def _reading(self) -> BarrierLedger:
        if self.ledger is None:
            raise violation(Stage.SOURCE, "sent data outside of rb_read")
        return self.ledger


class DestinationHost(StageHost):
    """Takes from the channel, and holds what is committed against what was emitted."""

    def __init__(self, redactor: Redactor, on_log: LogListener, channel: Channel) -> None:
        super().__init__(Stage.DESTINATION, redactor, on_log)
        self._channel = channel
        self.ledger: BarrierLedger | None = None

    def next(self) -> Item:
        return self._channel.take()

    def prepare(self, payload: dict[str, Any]) -> None:
        self._prepare(payload)

    def committed(self, payload: dict[str, Any]) -> None:
        self._commit(payload)

    def drift(self, payload: dict[str, Any]) -> None:
        raise violation(Stage.DESTINATION, "told of schema changes for a shard: its table is the coordinator's")

    def _prepare(self, payload: dict[str, Any]) -> PendingCheckpoint:
        return self._writing("a commit").prepare(_integer(payload, "sequence"), _integer(payload, "rows"))

    def _commit(self, payload: dict[str, Any]) -> int:
        sequence = _integer(payload, "sequence")
        self._writing("a commit").committed(sequence)
        return sequence

    def _writing(self, what: str) -> BarrierLedger:
        if self.ledger is None:
            raise violation(Stage.DESTINATION, f"sent {what} outside of rb_write")
        return self.ledger


class CheckpointingHost(DestinationHost):
    """Walks each commit through the state store: prepare, COMMIT (the guest's), finalise."""

    def __init__(
        self,
        redactor: Redactor,
        on_log: LogListener,
        channel: Channel,
        state: StateStore,
        *,
        pipeline: str,
        stream: str,
        run_id: str,
        policy: SchemaEvolution,
        on_drift: DriftListener,
    ) -> None:
        super().__init__(redactor, on_log, channel)
        self._state = state
        self._pipeline = pipeline
        self._stream = stream
        self._run_id = run_id
        self._policy = policy
        self._on_drift = on_drift
        self._reported: tuple[SchemaChange, ...] = ()
        """What belongs to the next checkpoint."""
        self._recorded: tuple[SchemaChange, ...] | None = None
        """The newest entry of the stream's history, once it was needed."""
        self._logged: set[SchemaChange] = set()
        self.prepared_changes: dict[SchemaChange, int] = {}
        """Each with the number of the first checkpoint that was prepared with it, in that order."""
        self._prepared: Checkpoint | None = None
        self.last_prepared: Checkpoint | None = None
        """That of the final barrier: from here on, the stream may be committed whatever else happens."""
        self.checkpoint: Checkpoint | None = None
        """The last one that is committed."""

    def drift(self, payload: dict[str, Any]) -> None:
        self._writing("schema changes")
        self._reported = read_changes(payload, self._policy, self._redactor)
        for change in self._reported:
            level = log_level(change)
            if level is not None and change not in self._logged:
                self._on_log(level, f"{self.stage}: {change.message}")
        self._logged.update(self._reported)
        self._on_drift(self._reported)

    def prepare(self, payload: dict[str, Any]) -> None:
        if any(change.action is ChangeAction.REFUSED for change in self._reported):
            raise violation(Stage.DESTINATION, "sent a commit although it refused the stream's schema")
        pending = self._prepare(payload)
        self._prepared = Checkpoint(
            pipeline=self._pipeline,
            stream=self._stream,
            sequence=pending.sequence,
            cursor=pending.cursor,
            rows=pending.rows,
            bytes=pending.bytes,
            run_id=self._run_id,
            committed_at=utc_now(),
            schema_changes=self._to_record(),
        )
        self._state.prepare(self._prepared)
        for change in self._reported:
            self.prepared_changes.setdefault(change, pending.sequence)
        self._reported = ()
        if pending.final:
            self.last_prepared = self._prepared

    def committed(self, payload: dict[str, Any]) -> None:
        sequence = self._commit(payload)
        self._state.finalise(self._pipeline, self._stream, sequence)
        self.checkpoint = self._prepared

    def _to_record(self) -> tuple[SchemaChange, ...]:
        """What was reported, unless the history ends with it."""
        if not self._reported:
            return ()
        if self._recorded is None:
            history = self._state.schema_state(self._pipeline, self._stream).history
            self._recorded = history[-1].changes if history else ()
        if is_repeated(self._reported, self._recorded):
            return ()
        self._recorded = self._reported
        return self._reported


def _integer(payload: dict[str, Any], key: str) -> int:
    value = payload.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise violation(Stage.DESTINATION, f"sent a commit without a usable `{key}`")
    return value
