"""A stream's transforms, in order, between its source and its destination.

    source ── channel ─▶ transform 1 ── channel ─▶ transform 2 ── channel ─▶ destination

Each has a thread, a connector and figures of its own, and takes what the one before it made. Barriers pass through: one
leaves a transform when everything before it has. Dead letters go by, beside the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from rapidbyte_dagster.config import Stream
from rapidbyte_dagster.engine.answers import OpenedTransform, read_answer
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.handoff import Handoff
from rapidbyte_dagster.engine.hosts import StageHost, TransformHost
from rapidbyte_dagster.engine.plan import ConnectorPlan, PipelinePlan
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.engine.stages import Stages
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import StreamAborted, Worker


@dataclass(eq=False)
class _Link:
    place: int
    plan: ConnectorPlan
    host: TransformHost
    whole_run: Handoff[bool] = field(default_factory=Handoff)
    """Whether what it says of a row depends on all rows of the run, once it is open."""


class Chain:
    """Without transforms it is the one channel from source to destination."""

    def __init__(
        self,
        plan: PipelinePlan,
        stream: Stream,
        *,
        run_id: str,
        on_log: LogListener,
        first: int = 1,
    ) -> None:
        """`first` is the place, from 1, of the first transform that rows go through."""
        self._plan = plan
        self._stream = stream
        self._run_id = run_id
        self._first = first
        self._on_log = on_log
        self._channels = [Channel(plan.pipeline.resources.max_inflight_bytes)]
        self._links: list[_Link] = []
        self._begin: Handoff[tuple[BarrierLedger, int]] = Handoff()
        for place, transform in list(enumerate(plan.transforms_of(stream), start=1))[first - 1 :]:
            outgoing = Channel(plan.pipeline.resources.max_inflight_bytes)
            link = _Link(place, transform, self._host(place, self._channels[-1], outgoing))
            self._channels.append(outgoing)
            self._links.append(link)

    def start(self, stages: Stages) -> None:
        """Gives each transform its thread. Raises `StreamAborted`, and then wants to be aborted."""
        for link in self._links:
            name = f"{self._stream.name}-{link.place}"
            stages.add(Stage.TRANSFORM, link.plan.worker(link.host), partial(self._transform, link), name)

    @property
    def first(self) -> Channel:
        """What the source fills."""
        return self._channels[0]

    @property
    def last(self) -> Channel:
        """What the destination drains."""
        return self._channels[-1]

    def begin(self, ledger: BarrierLedger, sequence: int) -> None:
        """Rows are going to come, to be counted in `ledger`, whose last barrier was `sequence`."""
        self._begin.set((ledger, sequence))

    def wait_until_open(self) -> bool:
        """Whether the run can only commit at its end: one of the transforms has to see all of it. Raises
        `StreamAborted`."""
        opened = [link.whole_run.wait() for link in self._links]
        if None in opened:
            raise StreamAborted
        return any(opened)

    def give_up(self) -> None:
        """No rows are going to come."""
        self._begin.give_up()

    def abort(self) -> None:
        self.give_up()
        for channel in self._channels:
            channel.abort()
        for link in self._links:
            link.whole_run.give_up()

    # What it has done so far

    @property
    def rows(self) -> int | None:
        """That the last transform emitted; None where there is none."""
        return self._links[-1].host.rows if self._links else None

    @property
    def filtered(self) -> Mapping[int, int] | None:
        """Rows that were left out on purpose, by the number of the barrier that follows them; None where there is no
        transform."""
        if not self._links:
            return None
        filtered: Counter[int] = Counter()
        for link in self._links:
            filtered.update(dict(link.host.filtered))
        return filtered

    @property
    def schema(self) -> pa.Schema | None:
        """What the last transform makes of the stream's columns."""
        return self._links[-1].host.arrow.schema if self._links else None

    @property
    def hosts(self) -> Iterator[StageHost]:
        return (link.host for link in self._links)

    @property
    def peak_bytes(self) -> int:
        """The most that waited in each of its channels, together."""
        return sum(channel.peak_bytes for channel in self._channels)

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds that the stages waited for each other: a slow one blocks who fills its channel, and leaves who drains
        the next idle."""
        timings = {
            "source_blocked_seconds": self.first.put_wait_seconds,
            "destination_idle_seconds": self.last.take_wait_seconds,
        }
        for place in range(1, len(self._channels)):
            timings[f"transform_{place}_idle_seconds"] = self._channels[place - 1].take_wait_seconds
            timings[f"transform_{place}_blocked_seconds"] = self._channels[place].put_wait_seconds
        return timings

    # What a replay does in its own way

    def _host(self, place: int, incoming: Channel, outgoing: Channel) -> TransformHost:
        on_data_error = self._plan.pipeline.destination.on_data_error
        return TransformHost(self._plan.redactor, self._on_log, place, incoming, outgoing, on_data_error)

    def _argument(self) -> dict[str, Any]:
        return self._plan.transform_argument(self._stream)

    # The transforms' threads

    def _transform(self, link: _Link, worker: Worker) -> None:
        answer = worker.call("rb_open", self._plan.open_argument_of(link.plan, self._stream, run_id=self._run_id))
        opened = read_answer(OpenedTransform, answer, verb="rb_open", stage=Stage.TRANSFORM)
        link.whole_run.set(opened.whole_run)
        begun = self._begin.wait()
        if begun is None:
            return
        link.host.begin(*begun)
        worker.call("rb_transform", self._argument())
        link.host.finish()
