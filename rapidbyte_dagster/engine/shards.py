"""One stream in several parts: pairs of connectors that read one snapshot side by side and load into one place, out of
everybody's sight, until the stream's own destination publishes all of it at once.

    source            split ▶ keeps the snapshot … ─────────────────────────▶ final barrier, end
      source  0, 1, …        read a shard ── emit ─▶ channel of the shard
      destination 0, 1, …    load it ◀── next ──┘ commit (no watermark)
    destination       stage ▶ …………………………………………………………………………………………………………………… write: publish, watermark, COMMIT

What a shard commits is no checkpoint: until the last step nothing of it counts, and a run that is killed before has
moved nothing. Of a load that can be gone on with the shards are there all the same, for a later run. Where that reads a
later snapshot, they are brought up to it first: `Amends`.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Any

from rapidbyte_dagster.config import Stream
from rapidbyte_dagster.engine.answers import Divided, LeftShards, Staged
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

_Message = bytes


class Amends(Enum):
    """What is read of the shards that are there from an earlier snapshot, and loaded; one after the other."""

    __str__ = str.__str__

    KEPT = "kept"
    """The keys of rows that are as they were: the others go."""
    CHANGED = "changed"
    """Rows that were changed or came since."""


@dataclass(eq=False)
class _Shard:
    number: int
    reads: Mapping[str, Any]
    """What of the stream, as `rb_read` takes it: the source's own description of the part, or of what it amends."""
    amends: Amends | None
    channel: Channel
    source: SourceHost
    destination: DestinationHost


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
        self._into: Handoff[tuple[dict[str, Any], Staged]] = Handoff()
        """The stream as its own destination has it, and where to load its rows."""
        self._ended: SimpleQueue[bool] = SimpleQueue()
        """Of each shard, whether it is loaded; then False when the others are to stop."""
        self._rows_there = 0
        """Of an earlier run."""
        self._at_once = 1
        self._inflight = 1
        self._aborted = False

    # What they have done so far

    @property
    def rows(self) -> int:
        """In the table when they are published: with those that an earlier run has loaded."""
        read = (shard.source.rows for shard in self._shards if shard.amends is not Amends.KEPT)
        return self._rows_there + sum(read)

    @property
    def bytes(self) -> int:
        return sum(shard.source.bytes for shard in self._shards)

    @property
    def batches(self) -> int:
        return sum(shard.source.arrow.batches for shard in self._shards)

    @property
    def hosts(self) -> Iterator[StageHost]:
        for shard in self._shards:
            yield from (shard.source, shard.destination)

    @property
    def peak_bytes(self) -> int:
        """The most that waited in the channels of as many shards as there are at once, together."""
        return sum(heapq.nlargest(self._at_once, (shard.channel.peak_bytes for shard in self._shards)))

    @property
    def source_blocked_seconds(self) -> float:
        return sum(shard.channel.put_wait_seconds for shard in self._shards)

    @property
    def destination_idle_seconds(self) -> float:
        return sum(shard.channel.take_wait_seconds for shard in self._shards)

    # The threads of the stream's own two connectors

    def move(
        self, division: Divided, left: LeftShards | None, at_once: int, source: SourceHost, channel: Channel
    ) -> None:
        """Moves every part that is not there, `at_once` of them at a time, then tells the stream's destination, through
        `channel`, that it can publish them. `left` is what the source knew of those that are there.

        Called in the thread of the source that keeps the snapshot, and that has emitted their schema. Raises
        `StreamAborted`.
        """
        schema = source.arrow.schema_message
        if schema is None:
            raise violation(Stage.SOURCE, "divided a stream without telling its schema")
        self._at_once = at_once
        # Half of it among the shards: the other half goes into what more pairs of connectors take.
        self._inflight = max(1, self._plan.pipeline.resources.max_inflight_bytes // (2 * at_once))
        room = self._into.wait()
        if room is None:
            raise StreamAborted
        staged = room[1]
        there = set(staged.loaded)
        if there:
            self._take_up(division, left, staged, schema)
        missing = [number for number in range(len(division.shards)) if number not in there]
        going = 0
        for number in missing:
            self._start(schema, number, {"shard": division.shards[number]})
            going += 1
            if going == at_once:
                self._wait_for_one()
                going -= 1
        for _ in range(going):
            self._wait_for_one()
        # For `rb_write`, which publishes. Not earlier: it locks what the shards load into.
        channel.put(Message(schema))
        source.take_over(self.rows, self.bytes)

    def load_into(self, stream: dict[str, Any], staged: Staged) -> None:
        """The destination, which was given `stream`, has made room."""
        self._into.set((stream, staged))

    def abort(self) -> None:
        self._aborted = True
        self._into.give_up()
        for shard in list(self._shards):
            shard.channel.abort()
        self._ended.put(False)

    def _take_up(self, division: Divided, left: LeftShards | None, staged: Staged, schema: _Message) -> None:
        """What an earlier run has loaded becomes what this one would have."""
        number = len(division.shards)
        if not division.resumes or not all(there < number for there in staged.loaded):
            raise violation(Stage.DESTINATION, "has shards that nobody asked for")
        self._rows_there = staged.rows
        self._on_log(
            logging.INFO,
            f"goes on with a load that was interrupted: {len(staged.loaded)} of {number} pieces are there",
        )
        if division.since is None:
            return
        parts = [division.shards[there] for there in staged.loaded]

        def amend(amends: Amends, schema: _Message | None, further: int) -> _Shard:
            reads = {"amends": {"shards": parts, "since": division.since, "rows": amends.value}}
            shard = self._start(schema, number + further, reads, amends)
            self._wait_for_one()
            return shard

        # A shard that was late may have come behind the look at them.
        is_all = left is not None and (left.loaded, left.rows) == (staged.loaded, staged.rows)
        if division.complete and is_all:
            self._on_log(logging.INFO, "none of their rows is gone or has changed")
        else:
            # Keys are no rows of the stream, and have another schema.
            self._rows_there = amend(Amends.KEPT, None, 0).source.rows
        amend(Amends.CHANGED, schema, 1)

    def _start(
        self, schema: _Message | None, number: int, reads: Mapping[str, Any], amends: Amends | None = None
    ) -> _Shard:
        channel = Channel(self._inflight)
        ledger = BarrierLedger(self._plan.pipeline.resources, 0)
        source = _ShardSourceHost(self._plan, self._on_log, channel, schema)
        source.ledger = ledger
        destination = DestinationHost(self._plan.redactor, self._on_log, channel)
        destination.ledger = ledger
        shard = _Shard(number, reads, amends, channel, source, destination)
        self._shards.append(shard)
        if self._aborted:
            raise StreamAborted
        name = f"{self._stream.name}-{number}"
        self._stages.add(Stage.SOURCE, self._plan.source.worker(source), partial(self._read, shard), name)
        self._stages.add(
            Stage.DESTINATION, self._plan.destination.worker(destination), partial(self._load, shard), name
        )
        return shard

    def _wait_for_one(self) -> None:
        if not self._ended.get():
            raise StreamAborted

    # The shards' threads

    def _read(self, shard: _Shard, worker: Worker) -> None:
        worker.call("rb_open", self._open_argument(Stage.SOURCE, shard))
        argument = self._plan.read_argument(self._stream, snapshot=self._snapshot)
        worker.call("rb_read", {**argument, **shard.reads})
        shard.source.finish()

    def _load(self, shard: _Shard, worker: Worker) -> None:
        worker.call("rb_open", self._open_argument(Stage.DESTINATION, shard))
        room = self._into.wait()
        if room is None:
            raise StreamAborted
        stream, staged = room
        amends = shard.amends.value if shard.amends is not None else None
        worker.call(
            "rb_write", {"stream": stream, "target": "any", "staged": None, "into": staged.into, "amends": amends}
        )
        ledger = shard.source.ledger
        if ledger is None or not ledger.settled:
            raise violation(Stage.DESTINATION, "ended a shard without committing everything that it was given")
        self._ended.put(True)

    def _open_argument(self, stage: Stage, shard: _Shard) -> dict[str, object]:
        return self._plan.open_argument(stage, stream=self._stream, run_id=self._run_id, shard=shard.number)


class _ShardSourceHost(SourceHost):
    """Sees to it that all shards have one schema: the one that the stream's destination was told."""

    def __init__(self, plan: PipelinePlan, on_log: LogListener, channel: Channel, schema: _Message | None) -> None:
        super().__init__(plan.redactor, on_log, channel)
        self._expected = schema

    def emit(self, message: bytes | bytearray) -> None:
        known = self.arrow.schema
        super().emit(message)
        if self.arrow.schema is not known and self._expected not in (None, message):
            raise violation(Stage.SOURCE, "emitted another schema for one shard than for another")
