"""What each guest's host functions do: the source's fill the channel, the destination's drain it."""

from __future__ import annotations

import json
import logging
import threading
from datetime import datetime, timezone
from typing import Any

from rapidbyte_dagster.config import Redactor
from rapidbyte_dagster.engine.arrow_stream import ArrowStream
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.errors import ErrorInfo, Kind, Stage, error_from
from rapidbyte_dagster.runtime import Barrier, Item, LogLevel, Message, NoData
from rapidbyte_dagster.state import Checkpoint, StateStore

_LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


class StageHost(NoData):
    """What both sides may do: log, without secrets, and count."""

    def __init__(self, stage: Stage, redactor: Redactor, on_log: LogListener) -> None:
        self._stage = stage
        self._redactor = redactor
        self._on_log = on_log
        self.metrics: dict[str, float] = {}

    def log(self, level: LogLevel, message: str) -> None:
        self._on_log(_LEVELS[level], self._redactor.redact(f"{self._stage}: {message}"))

    def metric(self, name: str, value: float) -> None:
        self.metrics[name] = self.metrics.get(name, 0.0) + value


class SourceHost(StageHost):
    def __init__(self, redactor: Redactor, on_log: LogListener, channel: Channel) -> None:
        super().__init__(Stage.SOURCE, redactor, on_log)
        self._channel = channel
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
            raise _malformed(Stage.SOURCE, "a barrier without `final`")
        checkpoint = ledger.mark(payload.get("cursor"), final)
        if checkpoint is not None:
            announced = {"sequence": checkpoint.sequence, "cursor": checkpoint.cursor, "final": checkpoint.final}
            self._channel.put(Barrier(json.dumps(announced).encode()))

    def _reading(self) -> BarrierLedger:
        if self.ledger is None:
            raise _malformed(Stage.SOURCE, "data outside of rb_read")
        return self.ledger


class DestinationHost(StageHost):
    """Takes from the channel; walks each commit through the state store: prepare, COMMIT (the guest's), finalise."""

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
    ) -> None:
        super().__init__(Stage.DESTINATION, redactor, on_log)
        self._channel = channel
        self._state = state
        self._pipeline = pipeline
        self._stream = stream
        self._run_id = run_id
        self.ledger: BarrierLedger | None = None
        self.checkpoint: Checkpoint | None = None
        """The last one that is committed."""
        self._prepared: Checkpoint | None = None

    def next(self) -> Item:
        return self._channel.take()

    def prepare(self, payload: dict[str, Any]) -> None:
        pending = self._writing().prepare(_integer(payload, "sequence"), _integer(payload, "rows"))
        self._prepared = Checkpoint(
            pipeline=self._pipeline,
            stream=self._stream,
            sequence=pending.sequence,
            cursor=pending.cursor,
            rows=pending.rows,
            bytes=pending.bytes,
            run_id=self._run_id,
            committed_at=datetime.now(timezone.utc),
        )
        self._state.prepare(self._prepared)

    def committed(self, payload: dict[str, Any]) -> None:
        sequence = _integer(payload, "sequence")
        self._writing().committed(sequence)
        self._state.finalise(self._pipeline, self._stream, sequence)
        self.checkpoint = self._prepared

    def _writing(self) -> BarrierLedger:
        if self.ledger is None:
            raise _malformed(Stage.DESTINATION, "a commit outside of rb_write")
        return self.ledger


class Resume:
    """Hands the ledger from the destination's thread, which learns the watermark, to the source's, which needs it."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._value: tuple[BarrierLedger, Any] | None = None

    def set(self, ledger: BarrierLedger, cursor: Any) -> None:
        self._value = (ledger, cursor)
        self._ready.set()

    def give_up(self) -> None:
        self._ready.set()

    def wait(self) -> tuple[BarrierLedger, Any] | None:
        """None when the destination failed before it could tell."""
        self._ready.wait()
        return self._value


def _integer(payload: dict[str, Any], key: str) -> int:
    value = payload.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _malformed(Stage.DESTINATION, f"a commit without a usable `{key}`")
    return value


def _malformed(stage: Stage, what: str) -> Exception:
    return error_from(
        ErrorInfo(
            kind=Kind.PROTOCOL,
            stage=stage,
            message=f"the {stage} connector sent {what}",
            hint="this is a bug of the connector: report it with its name and version",
        )
    )
