"""Source and destination held against each other at one position.

    snapshot ▶ its position ▶ capture up to there ▶ digest of the destination, under its lock ▶ digest of the snapshot

The snapshot is a position in the source's log, and a capture ends where it is told to: so both are looked at in one and
the same state, while the source goes on changing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config import Deletes, Pipeline, SlotGroup, Stream, WriteMode
from rapidbyte_dagster.engine.answers import Digested, OpenedGroup, Snapshot, read_answer
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.capture.lsn import format_lsn, parse_lsn, position_of
from rapidbyte_dagster.engine.capture.runner import run_slot
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.hosts import StageHost
from rapidbyte_dagster.engine.plan import PipelinePlan, plan_pipeline
from rapidbyte_dagster.engine.result import LogListener, ignore_log
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, Stage, UsageError
from rapidbyte_dagster.runtime import Worker
from rapidbyte_dagster.state import StateStore


@dataclass(frozen=True)
class Reconciliation:
    """What a stream's table holds on both sides, at one position."""

    stream: str
    position: str
    """An LSN: every transaction that committed before it is in both, and nothing else."""
    columns: tuple[str, ...]
    """Those that were compared, by name."""
    left_out: tuple[str, ...]
    """Columns that one side alone has."""
    source_rows: int
    source_hash: str
    destination_rows: int
    """Without rows that are kept though they were deleted."""
    destination_hash: str

    @property
    def matches(self) -> bool:
        return (self.source_rows, self.source_hash) == (self.destination_rows, self.destination_hash)


def verify(
    pipeline: Pipeline,
    group: SlotGroup,
    *,
    state: StateStore,
    run_id: str,
    environ: Mapping[str, str] = os.environ,
    streams: Collection[str] | None = None,
    on_log: LogListener | None = None,
    cancel: CancelToken | None = None,
) -> dict[str, Reconciliation]:
    """Rows and contents of each of `streams` (those of `group` that are mirrored, where none is named) at the source
    and at the destination. Catches the streams up first, as a run of the slot does, with `run_id`.

    Every row is read on both sides, by their servers; nothing but hashes leaves them.

    Raises a leaf of `RapidbyteError` that shows no secret: what `run_slot` raises, the error of a stream that stops in
    it, and `UsageError` for a stream that is kept as a history, or that never ran.
    """
    chosen = _chosen(pipeline, group, state, streams)
    log = on_log or ignore_log
    plan = plan_pipeline(pipeline, environ)
    try:
        with _stoppable(plan.source.worker(StageHost(Stage.SOURCE, plan.redactor, log)), cancel) as source:
            source.call("rb_open", plan.open_argument(Stage.SOURCE, run_id=run_id))
            snapshot = read_answer(Snapshot, source.call("rb_snapshot", {}), verb="rb_snapshot", stage=Stage.SOURCE)
            result = run_slot(
                pipeline,
                group,
                state=state,
                run_id=run_id,
                environ=environ,
                streams=[stream.name for stream in chosen],
                target=snapshot.lsn,
                on_log=log,
                cancel=cancel,
            )
            for outcome in result.streams.values():
                if isinstance(outcome, RapidbyteError):
                    raise outcome
            host = StageHost(Stage.DESTINATION, plan.redactor, log)
            with _stoppable(plan.destination.worker(host), cancel) as destination:
                _open_at(plan, group, chosen, destination, snapshot, run_id)
                at_destination = {stream.name: _destination(plan, stream, destination) for stream in chosen}
                return {
                    stream.name: _compared(plan, stream, snapshot, source, destination, at_destination[stream.name])
                    for stream in chosen
                }
    except RapidbyteError as error:
        failure = told(error, plan.redactor, error.info.stream)
    # Out here it has no context: that would hold the unredacted text.
    raise failure


@contextmanager
def _stoppable(worker: Worker, cancel: CancelToken | None) -> Iterator[Worker]:
    with ExitStack() as stack:
        if cancel is not None:
            stack.callback(cancel.on_cancel(worker.cancel))
        yield stack.enter_context(worker)


def _chosen(pipeline: Pipeline, group: SlotGroup, state: StateStore, names: Collection[str] | None) -> list[Stream]:
    mirrored = [stream for stream in group.streams if pipeline.write_mode(stream) is WriteMode.UPSERT]
    chosen = [stream for stream in group.streams if stream.name in names] if names is not None else mirrored
    for stream in chosen:
        if stream not in mirrored:
            raise UsageError(
                "a history has a row for each change, and its source one for each row: there is nothing to compare",
                stream=stream.name,
            )
        latest = state.latest_checkpoint(pipeline.name, stream.name)
        if latest is None or position_of(latest.cursor) is None:
            raise UsageError(
                "nothing of it is at the destination yet",
                stream=stream.name,
                hint=f"load it first: `rapidbyte run {pipeline.path.name} --stream {stream.name}`",
            )
    if not chosen:
        raise UsageError(f"no stream of slot {group.name!r} is mirrored: there is nothing to compare")
    return chosen


def _open_at(
    plan: PipelinePlan, group: SlotGroup, chosen: list[Stream], worker: Worker, snapshot: Snapshot, run_id: str
) -> None:
    """Locks the streams where they stand, which has to be where the snapshot is."""
    opening = {
        **plan.open_argument(Stage.DESTINATION, run_id=run_id),
        "streams": [stream.name for stream in group.streams],
    }
    answer = worker.call("rb_open", opening)
    opened = read_answer(OpenedGroup, answer, verb="rb_open", stage=Stage.DESTINATION)
    wanted = parse_lsn(snapshot.lsn)
    for stream in chosen:
        watermark = opened.watermarks.get(stream.name)
        position = position_of(watermark.cursor) if watermark is not None else None
        if position != wanted:
            at = "nowhere" if position is None else f"at {format_lsn(position)}"
            raise DestinationError(
                f"another run has moved the stream meanwhile: it is {at}, and the source's snapshot {snapshot.lsn}",
                kind=Kind.TRANSIENT_DB,
                stream=stream.name,
                hint="try again while no run of the slot is going on",
            )


def _compared(
    plan: PipelinePlan, stream: Stream, snapshot: Snapshot, source: Worker, destination: Worker, found: Digested
) -> Reconciliation:
    read = _source(plan, stream, snapshot, source)
    both = [column for column in read.columns if column in found.columns]
    left_out = sorted({*read.columns, *found.columns}.difference(both))
    if list(read.columns) != both:
        read = _source(plan, stream, snapshot, source, both)
    if list(found.columns) != both:
        found = _destination(plan, stream, destination, both)
    return Reconciliation(
        stream=stream.name,
        position=snapshot.lsn,
        columns=tuple(both),
        left_out=tuple(left_out),
        source_rows=read.rows,
        source_hash=read.hash,
        destination_rows=found.rows,
        destination_hash=found.hash,
    )


def _source(
    plan: PipelinePlan, stream: Stream, snapshot: Snapshot, worker: Worker, columns: list[str] | None = None
) -> Digested:
    held = snapshot.model_dump()
    argument: dict[str, Any] = {"stream": plan.source_argument(stream, held), "columns": columns, "snapshot": held}
    return read_answer(Digested, worker.call("rb_digest", argument), verb="rb_digest", stage=Stage.SOURCE)


def _destination(plan: PipelinePlan, stream: Stream, worker: Worker, columns: list[str] | None = None) -> Digested:
    described = {**plan.destination_argument(stream), "deletes": str(stream.deletes or Deletes.HARD)}
    argument: dict[str, Any] = {"stream": described, "columns": columns, "snapshot": None}
    return read_answer(Digested, worker.call("rb_digest", argument), verb="rb_digest", stage=Stage.DESTINATION)
