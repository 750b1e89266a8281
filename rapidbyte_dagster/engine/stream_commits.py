"""What belongs to a stream's commits beside its rows: its schema changes, its dead letters, and how many of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rapidbyte_dagster.config import OnDataError, Redactor, SchemaEvolution
from rapidbyte_dagster.engine.barriers import PendingCheckpoint
from rapidbyte_dagster.engine.drift import is_repeated, log_level, read_changes
from rapidbyte_dagster.engine.letters import Letters, read_letters
from rapidbyte_dagster.engine.result import DriftListener, LogListener
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.state import ChangeAction, Checkpoint, DeadLetter, SchemaChange, StateStore, Watermark, utc_now


class StreamCommits:
    """Of one stream in one attempt: makes the checkpoints that its destination is about to commit."""

    def __init__(
        self,
        redactor: Redactor,
        on_log: LogListener,
        state: StateStore,
        *,
        pipeline: str,
        stream: str,
        run_id: str,
        policy: SchemaEvolution,
        on_data_error: OnDataError,
        on_drift: DriftListener,
        replaces: bool = False,
    ) -> None:
        """`replaces`: the rows take the place of all that are in the table."""
        self._redactor = redactor
        self._on_log = on_log
        self._state = state
        self._pipeline = pipeline
        self._stream = stream
        self._run_id = run_id
        self.policy = policy
        self.on_data_error = on_data_error
        self._on_drift = on_drift
        self._replaces = replaces
        self.beneath: Watermark | None = None
        """Of a replay: the watermark that its checkpoint covers."""
        self.anew_after: int | None = None
        """The last checkpoint before all that the source has began to be merged anew."""
        self._reported: tuple[SchemaChange, ...] = ()
        """What belongs to the next checkpoint."""
        self._recorded: tuple[SchemaChange, ...] | None = None
        """The newest entry of the stream's history, once it was needed."""
        self._logged: set[SchemaChange] = set()
        self.prepared_changes: dict[SchemaChange, int] = {}
        """Each with the number of the first checkpoint that was prepared with it, in that order."""
        self._told = 0
        """Dead letters of the destination's own that belong to the next checkpoint."""
        self._taken: dict[int, int] = {}
        """The source's and the transforms', by the number of the barrier that follows them."""
        self.rows = 0
        self.refused = 0
        self.rejected = 0
        self.dead_letters = 0
        """All four of every checkpoint that was prepared. Refused are those rejected rows that came this far."""
        self._pending: PendingCheckpoint | None = None

    def report(self, payload: dict[str, Any]) -> None:
        """The destination tells of schema changes, as the argument of `drift`."""
        self._reported = read_changes(payload, self.policy, self._redactor)
        for change in self._reported:
            level = log_level(change)
            if level is not None and change not in self._logged:
                self._on_log(level, f"{Stage.DESTINATION}: {change.message}")
        self._logged.update(self._reported)
        self._on_drift(self._reported)

    def require_accepted_schema(self) -> None:
        if any(change.action is ChangeAction.REFUSED for change in self._reported):
            raise violation(Stage.DESTINATION, "sent a commit although it refused the stream's schema")

    def set_aside(self, payload: dict[str, Any], sequence: int) -> None:
        """The destination tells of dead letters, as the argument of `emit_dlq_batch`; checkpoint `sequence` is the
        first that can cover them."""
        require_dlq(self.on_data_error, Stage.DESTINATION)
        letters = read_letters(payload, Stage.DESTINATION, self._redactor)
        self._add(letters, sequence)
        self._told += len(letters)

    def keep(self, letters: Letters) -> None:
        """Those of the stages before, on their way through the channel."""
        self._add(letters.letters, letters.sequence)
        self._taken[letters.sequence] = self._taken.get(letters.sequence, 0) + len(letters.letters)

    def _add(self, letters: Sequence[DeadLetter], sequence: int) -> None:
        self._state.add_dead_letters(self._pipeline, self._stream, letters, run_id=self._run_id, sequence=sequence)

    def checkpoint(self, pending: PendingCheckpoint) -> Checkpoint:
        """What is to be prepared; `prepared` tells that it was."""
        self._pending = pending
        return Checkpoint(
            pipeline=self._pipeline,
            stream=self._stream,
            sequence=pending.sequence,
            cursor=pending.cursor,
            rows=pending.rows,
            bytes=pending.bytes,
            rejected=pending.rejected,
            dead_letters=self._settle_dead_letters(pending),
            run_id=self._run_id,
            committed_at=utc_now(),
            schema_changes=self._to_record(),
            replaced=self._replaces,
            beneath=self.beneath,
            anew_after=self.anew_after,
            final=pending.final,
        )

    def prepared(self, checkpoint: Checkpoint) -> None:
        for change in self._reported:
            self.prepared_changes.setdefault(change, checkpoint.sequence)
        self._reported = ()
        assert self._pending is not None, "checkpoint made it"
        self.rows += checkpoint.rows
        self.refused += self._pending.refused
        self.rejected += checkpoint.rejected
        self.dead_letters += checkpoint.dead_letters

    def _settle_dead_letters(self, pending: PendingCheckpoint) -> int:
        """How many `pending` has, all of which are written down."""
        taken = sum(number for sequence, number in self._taken.items() if sequence <= pending.sequence)
        if taken != pending.dead_letters:
            raise violation(Stage.DESTINATION, "sent a commit before it took what comes before its barrier")
        if self.on_data_error is OnDataError.DLQ and self._told != pending.refused:
            raise violation(
                Stage.DESTINATION,
                f"told of {self._told} dead letters where it rejected {pending.refused} rows: not committed",
            )
        told, self._told = self._told, 0
        self._taken = {sequence: number for sequence, number in self._taken.items() if sequence > pending.sequence}
        return told + taken

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


def require_dlq(on_data_error: OnDataError, stage: Stage) -> None:
    """Raises where nobody asked for dead letters."""
    if on_data_error is not OnDataError.DLQ:
        raise violation(stage, f"told of dead letters where on_data_error is {on_data_error}")
