"""One attempt at one stream: its stages in threads, the channels between them, and the first failure.

    source thread        open ────────────────▶ read ── emit ─▶ channel ─▶ final barrier, end
    destination thread   open ▶ watermark ▶ reconcile ▶ write ◀── next ── commit …

Transforms sit in between, where the stream has any: `chain.py`. A large table may be moved in shards, each by a pair
of its own: `shards.py`.

Whatever fails first is the attempt's error. A failed source or transform aborts the channels, and the destination rolls
back on its own; a failed destination has nothing to wait for, and the others are stopped.

A destination may commit and fail to say so. An attempt that failed like that hands what it moved to the next one, as
`unconfirmed`; that one learns from the watermark what became of it, and where it was committed, moves nothing again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from rapidbyte_dagster.config import Stream, SyncMode, WriteMode
from rapidbyte_dagster.engine.answers import (
    Divided,
    LeftShards,
    OpenedDestination,
    Snapshot,
    Staged,
    Written,
    read_answer,
)
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.chain import Chain
from rapidbyte_dagster.engine.fate import REFUSALS, Fate, with_fate
from rapidbyte_dagster.engine.handoff import Handoff
from rapidbyte_dagster.engine.hosts import CheckpointingHost, SourceHost
from rapidbyte_dagster.engine.plan import PipelinePlan
from rapidbyte_dagster.engine.result import DriftListener, LogListener
from rapidbyte_dagster.engine.shards import Shards
from rapidbyte_dagster.engine.stages import Stages
from rapidbyte_dagster.engine.start import Start, StartFinder
from rapidbyte_dagster.engine.stream_commits import StreamCommits
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import RapidbyteError, RunCancelled, Stage
from rapidbyte_dagster.runtime import End, Worker
from rapidbyte_dagster.state import Checkpoint, SchemaChange, StateStore

_UNDIVIDED = Divided(shards=())


@dataclass(frozen=True)
class Moved:
    """What an attempt brought to the destination, and what it took."""

    rows: int
    """Those that are in the table."""
    bytes: int
    batches: int
    rejected: int
    dead_letters: int
    schema: pa.Schema
    checkpoint: Checkpoint
    seconds: float
    timings: dict[str, float]
    peak_memory: dict[str, int]
    schema_changes: tuple[SchemaChange, ...]
    """Of the checkpoints that it was moved with."""
    filtered: Mapping[int, int] | None
    """Rows that a transform left out on purpose, by the number of the barrier that follows them; None without
    transforms."""


@dataclass(frozen=True)
class AttemptOutcome:
    """What a successful attempt leaves behind."""

    moved: Moved
    written: Written


class Attempt:
    """`unconfirmed` is that of the attempt before, if it had any.

    `on_complete` is called when everything is committed, while the stream's lock is still held at the destination: what
    it writes down is there before another run of the stream can look.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        stream: Stream,
        *,
        state: StateStore,
        run_id: str,
        start: Start,
        repeats: Collection[str],
        on_log: LogListener,
        on_drift: DriftListener,
        on_complete: Callable[[Moved], None],
        unconfirmed: Moved | None = None,
        snapshot: Snapshot | None = None,
        piece_bytes: int | None = None,
    ) -> None:
        self._piece_bytes = piece_bytes
        self._snapshot = snapshot.model_dump(exclude={"origin"}) if snapshot is not None else None
        self._plan = plan
        self._stream = stream
        self._state = state
        self._run_id = run_id
        self._start = start
        self._finder = StartFinder(
            plan.pipeline, stream, start, state=state, run_id=run_id, on_log=on_log, repeats=repeats
        )
        self._on_log = on_log
        self._on_complete = on_complete
        self._resume: Handoff[tuple[BarrierLedger, Any, LeftShards | None]] = Handoff()
        """The ledger to count in, the cursor to start at, and the shards that are there."""
        self._division: Handoff[Divided] = Handoff()
        """The shards, none for a stream that is read in one piece."""
        on_data_error = plan.pipeline.destination.on_data_error
        # Cancelling works before they start, and does nothing after their end.
        self._stages = Stages(self._wake)
        self._chain = Chain(plan, stream, run_id=run_id, on_log=on_log)
        self._source = SourceHost(plan.redactor, on_log, self._chain.first, on_data_error)
        if snapshot is not None:
            self._source.cursor_at_end = snapshot.model_dump(include={"lsn", "origin"}, exclude_none=True)
        self._commits = StreamCommits(
            plan.redactor,
            on_log,
            state,
            pipeline=plan.pipeline.name,
            stream=stream.name,
            run_id=run_id,
            policy=plan.pipeline.destination.schema_evolution,
            on_data_error=on_data_error,
            on_drift=on_drift,
            replaces=start.write_mode(plan.pipeline.write_mode(stream)) is WriteMode.REPLACE,
        )
        self._destination = CheckpointingHost(plan.redactor, on_log, self._chain.last, state, self._commits)
        self._shards = Shards(plan, stream, run_id=run_id, stages=self._stages, on_log=on_log, snapshot=self._snapshot)
        self._chain.start(self._stages)
        self._stages.add(Stage.SOURCE, plan.source.worker(self._source), self._read, stream.name)
        self._stages.add(Stage.DESTINATION, plan.destination.worker(self._destination), self._write, stream.name)
        self._unconfirmed = unconfirmed
        self._confirmed: Moved | None = None
        self._written: Written | None = None
        self.started_after: int | None = None
        """The number of the checkpoint that was the last one when the attempt began, once the destination told it."""
        self.committed_before: int | None = None
        """The number of this run's last commit at that time, 0 where it had none."""
        self.started = time.monotonic()
        self._written_at: float | None = None

    def run(self, on_tick: Callable[[], None], cancel: CancelToken) -> AttemptOutcome:
        """Runs to the end or raises the first failure. Whatever is raised in this thread stops the stages first."""
        self._stages.run(on_tick, cancel)
        moved = self._settled()
        if self._written is not None and moved is not None:
            # The commit decides: whatever happened beside it or after it is no failure.
            return AttemptOutcome(moved, self._written)
        fate = self._fate()
        if self._stages.cancelled:
            rest = "; nothing since the last checkpoint was written" if fate is Fate.ROLLED_BACK else ""
            failure: RapidbyteError = RunCancelled(f"the run was cancelled{rest}")
        else:
            failure = self._stages.failure or violation(
                Stage.DESTINATION, "ended without committing everything that it was given"
            )
        raise with_fate(failure, fate)

    @property
    def rows(self) -> int:
        """That the source has emitted so far."""
        return self._source.rows + self._shards.rows

    @property
    def bytes(self) -> int:
        """Of Arrow, that the source has emitted so far."""
        return self._source.bytes + self._shards.bytes

    @property
    def rows_committed(self) -> int:
        return self._source.ledger.rows_committed if self._source.ledger else 0

    @property
    def schema_changes(self) -> Mapping[SchemaChange, int]:
        """What the destination has told so far of the checkpoints that it was about to commit, with the number of the
        first of them."""
        return self._commits.prepared_changes

    @property
    def filtered(self) -> Mapping[int, int]:
        """Rows that a transform left out on purpose so far, by the number of the barrier that follows them."""
        return self._chain.filtered or {}

    @property
    def unconfirmed(self) -> Moved | None:
        """What was moved by this failed attempt, or one before, if nobody knows whether it was committed."""
        if self._confirmed is not None:
            return self._confirmed
        if self._destination.last_prepared is None:
            return self._unconfirmed
        return self._moved(self._destination.last_prepared)

    def _fate(self) -> Fate:
        if self._confirmed is not None:
            # Of a run before this one it was told when that one failed; this one has moved nothing.
            return Fate.COMMITTED if self._confirmed.checkpoint.run_id == self._run_id else Fate.ROLLED_BACK
        if self._is_settled():
            return Fate.COMMITTED
        if self.unconfirmed is None:
            return Fate.ROLLED_BACK
        failure = self._stages.failure
        refused = self._unconfirmed is None and failure is not None and failure.kind in REFUSALS
        return Fate.ROLLED_BACK if refused and not self._stages.cancelled else Fate.UNKNOWN

    def _settled(self) -> Moved | None:
        """What was moved, once everything that the source emitted is committed."""
        if self._confirmed is not None:
            return self._confirmed
        if self._destination.checkpoint is not None and self._is_settled():
            return self._moved(self._destination.checkpoint)
        return None

    def _is_settled(self) -> bool:
        return self._source.ledger is not None and self._source.ledger.settled

    def _moved(self, checkpoint: Checkpoint) -> Moved:
        schema = self._chain.schema or self._source.arrow.schema
        emitted = self.rows if self._chain.rows is None else self._chain.rows
        ended = self._written_at or self._stages.failed_at or time.monotonic()
        timings = dict(self._chain.timings)
        timings["source_blocked_seconds"] += self._shards.source_blocked_seconds
        timings["destination_idle_seconds"] += self._shards.destination_idle_seconds
        for host in (self._source, *self._chain.hosts, self._destination, *self._shards.hosts):
            for name, value in host.metrics.items():
                key = f"{host.label}_{name}".replace(" ", "_")
                timings[key] = timings.get(key, 0.0) + value
        return Moved(
            rows=emitted - self._commits.refused,
            bytes=self.bytes,
            batches=self._source.arrow.batches + self._shards.batches,
            rejected=self._commits.rejected,
            dead_letters=self._commits.dead_letters,
            schema=schema if schema is not None else pa.schema([]),
            checkpoint=checkpoint,
            seconds=ended - self.started,
            timings=timings,
            peak_memory={**self._stages.peak_memory(), "channel": self._chain.peak_bytes + self._shards.peak_bytes},
            schema_changes=tuple(self.schema_changes),
            filtered=self._chain.filtered,
        )

    def _wake(self) -> None:
        """Whoever waits learns that the stream broke."""
        self._resume.give_up()
        self._division.give_up()
        self._chain.abort()
        self._shards.abort()

    # The source's thread

    def _read(self, worker: Worker) -> None:
        worker.call("rb_open", self._open_argument(Stage.SOURCE))
        resumed = self._resume.wait()
        if resumed is None:
            return
        ledger, cursor, left = resumed
        # What was loaded of a snapshot counts for nothing without the rest: the next run takes another one.
        ledger.commits_at_end = self._chain.wait_until_open() or self._snapshot is not None
        self._source.ledger = ledger
        division, at_once = self._divide(worker, left)
        self._division.set(division)
        if division.shards:
            self._shards.move(division, left, at_once, self._source, self._chain.first)
        else:
            worker.call("rb_read", self._plan.read_argument(self._stream, cursor=cursor, snapshot=self._snapshot))
        self._source.finish()

    def _divide(self, worker: Worker, left: LeftShards | None) -> tuple[Divided, int]:
        """The stream's shards, and how many of them are moved at once."""
        asked = self._stream.shards
        # Those of a load that a later run can take up are more than are moved at once.
        piece_bytes = self._piece_bytes if self._snapshot and self._plan.loads_in_pieces(self._stream) else None
        if self._stream.sync_mode is SyncMode.INCREMENTAL or (asked == 1 and piece_bytes is None):
            return _UNDIVIDED, 1
        write_mode = self._start.write_mode(self._plan.pipeline.write_mode(self._stream))
        limit, why = self._plan.shards_at_most(self._stream, write_mode)
        if limit < 2 and piece_bytes is None:
            self._tell_of_one_piece(why)
            return _UNDIVIDED, 1
        if asked != "auto" and limit < asked:
            self._on_log(logging.WARNING, f"shards: {asked} is more than there can be: {why}")
        argument = {
            "stream": self._plan.source_argument(self._stream, self._snapshot),
            "max_shards": limit,
            "piece_bytes": piece_bytes,
            "resumes": left.model_dump() if left is not None else None,
        }
        answer = worker.call("rb_split", argument)
        division = read_answer(Divided, answer, verb="rb_split", stage=Stage.SOURCE)
        number = len(division.shards)
        if number > limit and division.note is None:
            raise violation(Stage.SOURCE, f"made {number} shards where {limit} were allowed")
        if number > limit:
            self._on_log(logging.INFO, f"the table is read in {number} pieces, {limit} of them at once")
        elif number:
            self._on_log(logging.INFO, f"the table is read in {number} shards at once")
        else:
            self._tell_of_one_piece(self._plan.redactor.redact(division.reason or "the source does not say why"))
        return division, min(limit, number)

    def _tell_of_one_piece(self, why: str) -> None:
        """Aloud where the file asks for parts: what it says has no effect then."""
        by_key = self._stream.partition_key is not None
        level = logging.WARNING if by_key or self._stream.shards != "auto" else logging.DEBUG
        undone = ", and not divided by its partition_key" if by_key else ""
        self._on_log(level, f"the table is read in one piece{undone}: {why}")

    # The destination's thread

    def _write(self, worker: Worker) -> None:
        answer = worker.call("rb_open", self._open_argument(Stage.DESTINATION))
        opened = read_answer(OpenedDestination, answer, verb="rb_open", stage=Stage.DESTINATION)
        in_doubt = self._unconfirmed.checkpoint.sequence if self._unconfirmed is not None else None
        point = self._finder.find(opened.watermark, in_doubt=in_doubt)
        self.started_after = point.sequence
        last = point.last
        self.committed_before = last.sequence if last is not None and last.run_id == self._run_id else 0
        if point.completes is not None:
            self._confirmed = self._completed(point.completes)
            # There is nothing to write: only the table is asked about.
            self._resume.give_up()
            self._chain.give_up()
            self._division.set(_UNDIVIDED)
            self._chain.last.put(End())
        else:
            self._unconfirmed = None
            ledger = BarrierLedger(self._plan.pipeline.resources, point.sequence)
            self._destination.ledger = ledger
            self._commits.anew_after = point.anew_after
            self._resume.set((ledger, point.cursor, opened.staged))
            self._chain.begin(ledger, point.sequence)
        division = self._division.wait()
        if division is None:
            return
        schema = self._state.schema_state(self._plan.pipeline.name, self._stream.name)
        known = self._plan.known_columns(self._stream, schema)
        stream = self._plan.destination_argument(self._stream, self._start, known=known)
        staged = None
        if division.shards:
            argument = {"note": division.note, "resumes": division.resumes}
            answer = worker.call("rb_stage", {"stream": stream, "target": point.target, **argument})
            room = read_answer(Staged, answer, verb="rb_stage", stage=Stage.DESTINATION)
            self._shards.load_into(stream, room)
            staged = room.into
        answer = worker.call("rb_write", {"stream": stream, "target": point.target, "staged": staged, "into": None})
        self._written_at = time.monotonic()
        self._written = read_answer(Written, answer, verb="rb_write", stage=Stage.DESTINATION)
        moved = self._settled()
        if moved is not None:
            self._on_complete(moved)

    def _completed(self, checkpoint: Checkpoint) -> Moved:
        if self._unconfirmed is not None:
            return replace(self._unconfirmed, checkpoint=checkpoint)
        moved = self._moved(checkpoint)
        return replace(
            moved,
            rows=checkpoint.rows,
            bytes=checkpoint.bytes,
            rejected=checkpoint.rejected,
            dead_letters=checkpoint.dead_letters,
            schema_changes=checkpoint.schema_changes,
        )

    def _open_argument(self, stage: Stage) -> dict[str, object]:
        return self._plan.open_argument(stage, stream=self._stream, run_id=self._run_id)
