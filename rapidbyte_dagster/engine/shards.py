"""One stream in several parts: pairs of connectors that read one snapshot side by side and load into one place, out of
everybody's sight, until the stream's own destination publishes all of it at once.

    source            split ▶ keeps the snapshot … ─────────────────────────▶ final barrier, end
      source  0, 1, …        read a shard ── emit ─▶ channel of the shard
      destination 0, 1, …    load it ◀── next ──┘ commit (no watermark)
    destination       stage ▶ …………………………………………………………………………………………………………………… write: publish, watermark, COMMIT

What a shard commits is no checkpoint: until the last step nothing of it counts, and a run that is killed before has
moved nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from rapidbyte_dagster.config import Stream
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.handoff import Handoff
from rapidbyte_dagster.engine.hosts import DestinationHost, SourceHost, StageHost
from rapidbyte_dagster.engine.plan import PipelinePlan
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.engine.stages import Stages
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Message, StreamAborted, Worker


@dataclass(eq=False)
class _Shard:
    number: int
    part: Any
    """The source's own description of it."""
    channel: Channel
    source: SourceHost
    destination: DestinationHost
    loaded: Handoff[bool] = field(default_factory=Handoff)


class Shards:
    """None, until `move` is called."""

    def __init__(
        self,
        plan: PipelinePlan,
        stream: Stream,
        *,
        run_id: str,
        stages: Stages,
        on_log: LogListener,
        snapshot: Mapping[str, str] | None = None,
    ) -> None:
        self._plan = plan
        self._snapshot = snapshot
        self._stream = stream
        self._run_id = run_id
        self._stages = stages
        self._on_log = on_log
        self._shards: list[_Shard] = []
        self._schema: Handoff[bytes] = Handoff()
        """The schema message of whichever shard was first; the others must have the same."""
        self._into: Handoff[tuple[dict[str, Any], Any]] = Handoff()
        """The stream as its own destination has it, and where to load its rows."""
        self._aborted = False

    # What they have done so far

    @property
    def rows(self) -> int:
        return sum(shard.source.rows for shard in self._shards)

    @property
    def bytes(self) -> int:
        return sum(shard.source.bytes for shard in self._shards)

    @property
    def batches(self) -> int:
        return sum(shard.source.arrow.batches for shard in self._shards)

    @property
    def schema(self) -> pa.Schema | None:
        return next(
            (shard.source.arrow.schema for shard in self._shards if shard.source.arrow.schema is not None), None
        )

    @property
    def hosts(self) -> Iterator[StageHost]:
        for shard in self._shards:
            yield from (shard.source, shard.destination)

    @property
    def peak_bytes(self) -> int:
        """The most that waited in each shard's channel, together."""
        return sum(shard.channel.peak_bytes for shard in self._shards)

    @property
    def source_blocked_seconds(self) -> float:
        return sum(shard.channel.put_wait_seconds for shard in self._shards)

    @property
    def destination_idle_seconds(self) -> float:
        return sum(shard.channel.take_wait_seconds for shard in self._shards)

    # The threads of the stream's own two connectors

    def move(self, parts: list[Any], source: SourceHost, channel: Channel) -> None:
        """Moves every part, then tells the stream's destination, through `channel`, that it can publish them.

        Called in the thread of the source that keeps the snapshot. Raises `StreamAborted`.
        """
        # Half of it among the shards: the other half goes into what more pairs of connectors take.
        inflight = max(1, self._plan.pipeline.resources.max_inflight_bytes // (2 * len(parts)))
        self._shards = [self._shard(number, part, inflight) for number, part in enumerate(parts)]
        if self._aborted:
            raise StreamAborted
        for shard in self._shards:
            name = f"{self._stream.name}-{shard.number}"
            reader = self._plan.source.worker(shard.source)
            loader = self._plan.destination.worker(shard.destination)
            self._stages.add(Stage.SOURCE, reader, partial(self._read, shard), name)
            self._stages.add(Stage.DESTINATION, loader, partial(self._load, shard), name)
        schema = self._schema.wait()
        if schema is None:
            raise StreamAborted
        # For `rb_stage`, which makes room for it.
        channel.put(Message(schema))
        for shard in self._shards:
            if shard.loaded.wait() is None:
                raise StreamAborted
        # For `rb_write`, which publishes. Not earlier: it locks what the shards load into.
        channel.put(Message(schema))
        source.take_over(self.rows, self.bytes)

    def load_into(self, stream: dict[str, Any], into: Any) -> None:
        """The destination, which was given `stream`, has made room."""
        self._into.set((stream, into))

    def abort(self) -> None:
        self._aborted = True
        self._schema.give_up()
        self._into.give_up()
        for shard in self._shards:
            shard.channel.abort()
            shard.loaded.give_up()

    # The shards' threads

    def _read(self, shard: _Shard, worker: Worker) -> None:
        worker.call("rb_open", self._open_argument(Stage.SOURCE, shard))
        worker.call("rb_read", self._plan.read_argument(self._stream, shard=shard.part, snapshot=self._snapshot))
        shard.source.finish()

    def _load(self, shard: _Shard, worker: Worker) -> None:
        worker.call("rb_open", self._open_argument(Stage.DESTINATION, shard))
        room = self._into.wait()
        if room is None:
            raise StreamAborted
        stream, into = room
        worker.call("rb_write", {"stream": stream, "target": "any", "staged": None, "into": into})
        ledger = shard.source.ledger
        if ledger is None or not ledger.settled:
            raise violation(Stage.DESTINATION, "ended a shard without committing everything that it was given")
        shard.loaded.set(True)

    def _shard(self, number: int, part: Any, inflight: int) -> _Shard:
        channel = Channel(inflight)
        ledger = BarrierLedger(self._plan.pipeline.resources, 0)
        source = _ShardSourceHost(self._plan, self._on_log, channel, self._schema)
        source.ledger = ledger
        destination = DestinationHost(self._plan.redactor, self._on_log, channel)
        destination.ledger = ledger
        return _Shard(number, part, channel, source, destination)

    def _open_argument(self, stage: Stage, shard: _Shard) -> dict[str, object]:
        return self._plan.open_argument(stage, stream=self._stream, run_id=self._run_id, shard=shard.number)


class _ShardSourceHost(SourceHost):
    """Shows the schema to the stream's destination too."""

    def __init__(self, plan: PipelinePlan, on_log: LogListener, channel: Channel, schema: Handoff[bytes]) -> None:
        super().__init__(plan.redactor, on_log, channel)
        self._shared = schema

    def emit(self, message: bytes | bytearray) -> None:
        known = self.arrow.schema
        super().emit(message)
        if self.arrow.schema is not known:
            self._shared.set(bytes(message))
            first = self._shared.wait()
            if first is not None and first != message:
                raise violation(Stage.SOURCE, "emitted another schema for one shard than for another")
