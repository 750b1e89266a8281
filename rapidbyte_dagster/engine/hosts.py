"""What each guest's host functions do: the source's fill a channel, the destination's drain one, a transform's both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config import OnDataError, Redactor
from rapidbyte_dagster.engine.arrow_stream import ArrowStream
from rapidbyte_dagster.engine.barriers import BarrierLedger, PendingCheckpoint
from rapidbyte_dagster.engine.channel import Channel, Supply
from rapidbyte_dagster.engine.letters import Letters, read_letters, size_of
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.engine.stream_commits import StreamCommits, require_dlq
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Barrier, End, Item, LogLevel, Message, NoData
from rapidbyte_dagster.state import Checkpoint, StateStore


class StageHost(NoData):
    """What both sides may do: log, without secrets, and count."""

    def __init__(self, stage: Stage, redactor: Redactor, on_log: LogListener) -> None:
        self.stage = stage
        self.label = str(stage)
        """What tells its logs and figures from others'."""
        self._redactor = redactor
        self._on_log = on_log
        self.metrics: dict[str, float] = {}

    def log(self, level: LogLevel, message: str) -> None:
        self._on_log(level.logging_level, self._redactor.redact(f"{self.label}: {message}"))

    def metric(self, name: str, value: float) -> None:
        self.metrics[name] = self.metrics.get(name, 0.0) + value


class SourceHost(StageHost):
    def __init__(
        self,
        redactor: Redactor,
        on_log: LogListener,
        channel: Channel,
        on_data_error: OnDataError = OnDataError.FAIL,
    ) -> None:
        super().__init__(Stage.SOURCE, redactor, on_log)
        self._channel = channel
        self._on_data_error = on_data_error
        self._final: Barrier | None = None
        """The final barrier. It waits for `finish`: a source that fails behind it has nothing committed."""
        self.ledger: BarrierLedger | None = None
        """Set once the destination told its watermark; a source that emits before `rb_read` is refused."""
        self.cursor_at_end: Any = None
        """Where a stream goes on that is read whole: what follows is not read by this source."""
        self.arrow = ArrowStream()
        self.rows = 0
        self.bytes = 0

    def emit(self, message: bytes | bytearray) -> None:
        ledger = self._reading()
        rows = self.arrow.accept(message)
        ledger.count(rows, len(message))
        self._channel.put(Message(message, rows))
        self.rows += rows
        self.bytes += len(message)

    def barrier(self, payload: dict[str, Any]) -> None:
        ledger = self._reading()
        final = payload.get("final")
        if not isinstance(final, bool):
            raise violation(Stage.SOURCE, "sent a barrier without `final`")
        left_out = _count(payload, "rejected", self.stage, "a barrier") if "rejected" in payload else 0
        if left_out and self._on_data_error is not OnDataError.SKIP:
            raise violation(Stage.SOURCE, f"left {left_out} rows out where on_data_error is {self._on_data_error}")
        cursor = self.cursor_at_end if final and self.cursor_at_end is not None else payload.get("cursor")
        checkpoint = ledger.mark(cursor, final, left_out)
        if checkpoint is None:
            return
        announced = {"sequence": checkpoint.sequence, "cursor": checkpoint.cursor, "final": checkpoint.final}
        barrier = Barrier(json.dumps(announced).encode())
        if final:
            self._final = barrier
        else:
            self._channel.put(barrier)

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        ledger = self._reading()
        require_dlq(self._on_data_error, self.stage)
        letters = read_letters(payload, self.stage, self._redactor)
        sequence = ledger.count_dead_letters(len(letters))
        self._channel.put(Letters(letters, sequence, size_of(letters)))

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


class TransformHost(StageHost):
    """Takes from one channel and fills the next, and holds what comes out against what went in."""

    def __init__(
        self,
        redactor: Redactor,
        on_log: LogListener,
        place: int,
        incoming: Supply,
        outgoing: Channel,
        on_data_error: OnDataError,
    ) -> None:
        """`place` is its number in its stream's chain, from 1."""
        super().__init__(Stage.TRANSFORM, redactor, on_log)
        self.label = f"{self.stage} {place}"
        self._incoming = incoming
        self._outgoing = outgoing
        self._on_data_error = on_data_error
        self._ledger: BarrierLedger | None = None
        self._sequence = 0
        """Of the barrier that it passed last."""
        self._due: PendingBarrier | None = None
        """The barrier that it was given, and has to pass before it asks for more."""
        self._final: Barrier | None = None
        """The final barrier. It waits for `finish`: a transform that fails behind it has nothing committed."""
        self._ended = False
        self.arrow = ArrowStream(self.stage)
        self.rows = 0
        self.filtered: dict[int, int] = {}
        """Rows that it left out on purpose, by the number of the barrier that follows them."""
        self._taken = self._emitted = self._letters = 0
        """Rows since its last barrier."""

    def begin(self, ledger: BarrierLedger, sequence: int) -> None:
        """`sequence` is the number of the last barrier before its first one."""
        self._ledger, self._sequence = ledger, sequence

    def next(self) -> Item:
        self._moving()
        if self._due is not None:
            raise violation(self.stage, f"asked for more before it passed barrier {self._due.sequence}")
        # What is set aside already is nobody's to transform.
        while isinstance(item := self._incoming.take(), Letters):
            self._outgoing.put(item)
        match item:
            case Message():
                self._taken += item.rows
            case Barrier():
                self._due = PendingBarrier.read(item)
                return self._due.without_cursor()
            case End():
                self._ended = True
        return item

    def emit(self, message: bytes | bytearray) -> None:
        self._moving()
        rows = self.arrow.accept(message)
        self._outgoing.put(Message(message, rows))
        self._emitted += rows
        self.rows += rows

    def barrier(self, payload: dict[str, Any]) -> None:
        ledger, due = self._moving(), self._due
        if due is None or payload.get("sequence") != due.sequence:
            raise violation(self.stage, "passed a barrier that it was not given")
        rejected = _count(payload, "rejected", self.stage, "a barrier") if "rejected" in payload else 0
        filtered = _count(payload, "filtered", self.stage, "a barrier") if "filtered" in payload else 0
        if rejected and self._on_data_error is OnDataError.FAIL:
            raise violation(self.stage, f"rejected {rejected} rows where it has to fail")
        if self._on_data_error is OnDataError.DLQ and rejected != self._letters:
            raise violation(self.stage, f"told of {self._letters} dead letters where it rejected {rejected} rows")
        if self._taken != self._emitted + rejected + filtered:
            told = f"made {self._emitted} of {self._taken} rows, rejected {rejected} and filtered {filtered}"
            raise violation(self.stage, f"{told}: some are lost or repeated")
        ledger.passed(
            due.sequence,
            taken=self._taken,
            emitted=self._emitted,
            dead_letters=self._letters,
            left_out=rejected - self._letters,
        )
        self._sequence, self._due = due.sequence, None
        self.filtered[due.sequence] = filtered
        self._taken = self._emitted = self._letters = 0
        if due.final:
            self._final = due.barrier
        else:
            self._outgoing.put(due.barrier)

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        self._moving()
        require_dlq(self._on_data_error, self.stage)
        letters = read_letters(payload, self.stage, self._redactor, place=self.label)
        self._outgoing.put(Letters(letters, self._sequence + 1, size_of(letters)))
        self._letters += len(letters)

    def finish(self) -> None:
        """The transform has made everything that there is, and said so."""
        if self._final is None or not self._ended:
            raise violation(self.stage, "ended before its stream did")
        self._outgoing.put(self._final)
        self._outgoing.put(End())

    def _moving(self) -> BarrierLedger:
        if self._ledger is None:
            raise violation(self.stage, "moved data outside of rb_transform")
        return self._ledger


@dataclass(frozen=True)
class PendingBarrier:
    """A barrier on its way through a transform."""

    barrier: Barrier
    sequence: int
    final: bool

    @classmethod
    def read(cls, barrier: Barrier) -> PendingBarrier:
        announced = json.loads(barrier.data)
        return cls(barrier, announced["sequence"], announced["final"])

    def without_cursor(self) -> Barrier:
        """As a transform sees it: the cursor is the source's, and may hold values of rows."""
        return Barrier(json.dumps({"sequence": self.sequence, "final": self.final}).encode())


class DestinationHost(StageHost):
    """Takes from the channel, and holds what is committed against what was emitted."""

    def __init__(self, redactor: Redactor, on_log: LogListener, channel: Supply) -> None:
        super().__init__(Stage.DESTINATION, redactor, on_log)
        self._channel = channel
        self.ledger: BarrierLedger | None = None

    def next(self) -> Item:
        while isinstance(item := self._channel.take(), Letters):
            self._keep(item)
        return item

    def prepare(self, payload: dict[str, Any]) -> None:
        self._prepare(payload)

    def committed(self, payload: dict[str, Any]) -> None:
        self._commit(payload)

    def drift(self, payload: dict[str, Any]) -> None:
        raise violation(Stage.DESTINATION, "told of schema changes for a shard: its table is the coordinator's")

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        raise violation(Stage.DESTINATION, "told of dead letters for a shard: no checkpoint would cover them")

    def _keep(self, letters: Letters) -> None:
        raise violation(Stage.SOURCE, "told of dead letters for a shard: no checkpoint would cover them")

    def _prepare(self, payload: dict[str, Any], on_data_error: OnDataError = OnDataError.FAIL) -> PendingCheckpoint:
        refused = _integer(payload, "rejected") if "rejected" in payload else 0
        if refused and on_data_error is OnDataError.FAIL:
            raise violation(Stage.DESTINATION, f"rejected {refused} rows where it has to fail: not committed")
        return self._writing("a commit").prepare(_integer(payload, "sequence"), _integer(payload, "rows"), refused)

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
        self, redactor: Redactor, on_log: LogListener, channel: Supply, state: StateStore, commits: StreamCommits
    ) -> None:
        super().__init__(redactor, on_log, channel)
        self._state = state
        self.commits = commits
        self._prepared: Checkpoint | None = None
        self.last_prepared: Checkpoint | None = None
        """That of the final barrier: from here on, the stream may be committed whatever else happens."""
        self.checkpoint: Checkpoint | None = None
        """The last one that is committed."""

    def drift(self, payload: dict[str, Any]) -> None:
        self._writing("schema changes")
        self.commits.report(payload)

    def prepare(self, payload: dict[str, Any]) -> None:
        self.commits.require_accepted_schema()
        pending = self._prepare(payload, self.commits.on_data_error)
        self._prepared = self.commits.checkpoint(pending)
        self._state.prepare(self._prepared)
        self.commits.prepared(self._prepared)
        if pending.final:
            self.last_prepared = self._prepared

    def committed(self, payload: dict[str, Any]) -> None:
        sequence = self._commit(payload)
        assert self._prepared is not None, "the ledger knows that it was prepared"
        self._state.finalise(self._prepared.pipeline, self._prepared.stream, sequence)
        self.checkpoint = self._prepared

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        ledger = self._writing("dead letters")
        self.commits.set_aside(payload, ledger.following())

    def _keep(self, letters: Letters) -> None:
        self.commits.keep(letters)


def _integer(payload: dict[str, Any], key: str) -> int:
    return _count(payload, key, Stage.DESTINATION, "a commit")


def _count(payload: dict[str, Any], key: str, stage: Stage, what: str) -> int:
    value = payload.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise violation(stage, f"sent {what} without a usable `{key}`")
    return value
