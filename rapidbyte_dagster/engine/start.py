"""Where a run starts: what it is asked for, held against what the destination and the state store know."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rapidbyte_dagster.config import Pipeline, Stream, SyncMode, WriteMode
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.state import Checkpoint, StateStore, Watermark


class Start(str, Enum):
    """What a run is asked to do with the cursor that an incremental stream has stored. A full refresh has none; there
    it only decides the write mode."""

    __str__ = str.__str__

    RESUME = "resume"
    """Goes on from it."""
    RESET = "reset"
    """Forgets it: everything is read again and written in the stream's own write mode."""
    FULL_REFRESH = "full_refresh"
    """Forgets it: everything is read again and takes the place of the rows that are there."""

    def write_mode(self, own: WriteMode) -> WriteMode:
        return WriteMode.REPLACE if self is Start.FULL_REFRESH else own


@dataclass(frozen=True)
class StartingPoint:
    sequence: int
    """The last number that a checkpoint of the stream has had."""
    cursor: Any
    """Where the source resumes; None for the beginning."""
    target: str
    """What has to be true of the target table, in the ABI's words, so that nothing is left out or repeated."""
    completes: Checkpoint | None
    """The last checkpoint of an interrupted run, which only has to be completed: there is nothing to move."""
    last: Watermark | None = field(default=None, compare=False)
    """What a run of the stream committed last, whatever was replayed since."""
    anew_after: int | None = field(default=None, compare=False)
    """Where the run merges all that the source has: the number of the last checkpoint before it began to. It began in
    an earlier attempt where this one goes on from what that has committed."""


def beneath_replays(state: StateStore, pipeline: str, stream: str, watermark: Watermark | None) -> Watermark | None:
    """`watermark` as it would be if no dead letter had ever been replayed: of the run that committed last. Asked after
    reconciling. Replays leave the cursor alone."""
    if watermark is None:
        return None
    last = state.checkpoint(pipeline, stream, watermark.sequence)
    if last is None or last.beneath is None or last.run_id != watermark.run_id:
        return watermark
    return last.beneath.model_copy(update={"cursor": watermark.cursor})


class StartFinder:
    """Finds the starting point of one stream's run.

    What the destination committed last is certain; who asks for what, and what the state store remembers of it, decides
    whether that is where to go on.

    `repeats` are failed runs that were asked for the same and that this one takes up again under an id of its own: what
    they have committed counts as this run's.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        stream: Stream,
        start: Start,
        *,
        state: StateStore,
        run_id: str,
        on_log: LogListener,
        repeats: Collection[str] = (),
    ) -> None:
        self._pipeline = pipeline.name
        self._stream = stream
        self._start = start
        self._write_mode = start.write_mode(pipeline.write_mode(stream))
        self._state = state
        self._run_id = run_id
        self._repeats = frozenset(repeats)
        self._on_log = on_log

    def find(self, watermark: Watermark | None, *, in_doubt: int | None) -> StartingPoint:
        """`in_doubt`: the number of the checkpoint that an earlier attempt of this run was about to commit as its last,
        and nobody heard whether it did."""
        known = self._state.latest_checkpoint(self._pipeline, self._stream.name)
        resume = self._state.reconcile(self._pipeline, self._stream.name, watermark)
        last = beneath_replays(self._state, self._pipeline, self._stream.name, watermark)
        completes = self._interrupted(last, in_doubt)
        if completes is not None:
            return StartingPoint(resume.sequence, None, "must_exist", completes, last)
        cursor = resume.cursor if self._resumes(last) else None
        if cursor is not None:
            self._tell_of_a_restored_destination(watermark, known)
        target = "must_exist" if cursor is not None else self._target_from_the_beginning(watermark, known)
        anew_after = resume.sequence if cursor is None else self._began_anew_after(last)
        if self._write_mode is not WriteMode.UPSERT:
            # A replacement is one commit, and an append adds to what is there.
            anew_after = None
        return StartingPoint(resume.sequence, cursor, target, None, last, anew_after)

    def _began_anew_after(self, watermark: Watermark | None) -> int | None:
        """For a run that goes on from its own last commit: where it began, if that was at the source's beginning."""
        if watermark is None or watermark.final or watermark.run_id not in self._own:
            return None
        last = self._state.checkpoint(self._pipeline, self._stream.name, watermark.sequence)
        return last.anew_after if last is not None and last.run_id == watermark.run_id else None

    @property
    def _own(self) -> frozenset[str]:
        return self._repeats | {self._run_id}

    def _interrupted(self, watermark: Watermark | None, in_doubt: int | None) -> Checkpoint | None:
        """The last commit, where it ended a run that only has to be completed. Asked after reconciling, so that the
        state store knows what the watermark knows."""
        if watermark is None or not watermark.final or watermark.run_id is None:
            return None
        last = self._state.checkpoint(self._pipeline, self._stream.name, watermark.sequence)
        if last is None or last.run_id != watermark.run_id:
            return None
        # Without a cursor or a key, what is done again is there twice.
        adds_twice = self._stream.sync_mode is SyncMode.FULL_REFRESH and self._write_mode is WriteMode.APPEND
        if last.run_id == self._run_id:
            # Run again under its own id, as Dagster does when a step fails behind its work. Then the last commit may
            # be an earlier execution's, and not the one that is in doubt.
            settled = last.sequence == in_doubt
            return last if settled or adds_twice or self._start is not Start.RESUME else None
        if not adds_twice or not (self._start is Start.RESUME or last.run_id in self._repeats):
            return None
        run = self._state.run(last.run_id, self._pipeline, self._stream.name)
        if run is None or run.status == "ok":
            return None
        self._on_log(
            logging.WARNING,
            f"run {last.run_id} was interrupted after it had committed its {last.rows:,} rows: this run completes it"
            " and moves nothing; run the stream once more to append what the source has now",
        )
        return last

    def _resumes(self, watermark: Watermark | None) -> bool:
        if self._stream.sync_mode is not SyncMode.INCREMENTAL or self._start is Start.FULL_REFRESH:
            return False
        # What a reset run has committed itself is not forgotten again by its next attempt.
        return self._start is Start.RESUME or (watermark is not None and watermark.run_id in self._own)

    def _tell_of_a_restored_destination(self, watermark: Watermark | None, known: Checkpoint | None) -> None:
        if watermark is not None and known is not None and known.sequence > watermark.sequence:
            self._on_log(
                logging.WARNING,
                f"the destination is at checkpoint {watermark.sequence} and the state store at {known.sequence}: the"
                " destination was restored from an earlier state, and the run goes on from there",
            )

    def _target_from_the_beginning(self, watermark: Watermark | None, known: Checkpoint | None) -> str:
        if self._stream.sync_mode is SyncMode.FULL_REFRESH or self._start is not Start.RESUME:
            return "any"
        if watermark is not None or known is None:
            return "any"
        if self._write_mode is WriteMode.APPEND:
            return "must_not_exist"
        self._on_log(
            logging.WARNING,
            f"the destination does not know the stream's checkpoint {known.sequence}: the stream is loaded from the"
            " beginning",
        )
        return "any"
