"""Barriers: which of the source's marks become checkpoints, and what each one covers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from rapidbyte_dagster.config import Resources
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage


@dataclass(frozen=True)
class PendingCheckpoint:
    """A barrier on its way to the destination, and what is between it and the one before."""

    sequence: int
    cursor: Any
    final: bool
    rows: int
    """Those that were emitted to the destination; once it prepared the checkpoint, those of them that it loaded."""
    bytes: int
    """Of Arrow."""
    dead_letters: int = 0
    """The source's and the transforms'."""
    left_out: int = 0
    """Rows that these did not emit because of what is in them, and that no letter tells of."""
    refused: int = 0
    """Rows that the destination took and did not load."""

    @property
    def rejected(self) -> int:
        """All rows of it that are in no table because of what is in them."""
        return self.dead_letters + self.left_out + self.refused


class BarrierLedger:
    """Numbers the barriers that are due and remembers what they cover until they are committed.

    The source's thread counts and marks, the transforms' tell what they made of it, the destination's prepares and
    commits.
    """

    def __init__(self, resources: Resources, sequence: int) -> None:
        """`sequence` is the last number that is taken."""
        self._limits = resources
        self._lock = threading.Lock()
        self._pending: list[PendingCheckpoint] = []
        self._sequence = sequence
        self._rows = 0
        self._bytes = 0
        self._dead_letters = 0
        self._left_out = 0
        self._since = time.monotonic()
        self._final_marked = False
        self._prepared: PendingCheckpoint | None = None
        self.rows_committed = 0
        self.commits_at_end = False
        """Whether only the final barrier is ever due."""

    # The source's side

    def count(self, rows: int, size: int) -> None:
        """A record batch of `rows` rows in `size` bytes was emitted."""
        with self._lock:
            self._require_more()
            self._rows += rows
            self._bytes += size

    def count_dead_letters(self, number: int) -> int:
        """The source set `number` rows aside, which it did not emit. The number of the barrier that follows them."""
        with self._lock:
            self._require_more()
            self._dead_letters += number
            return self._sequence + 1

    def _require_more(self) -> None:
        if self._final_marked:
            raise violation(Stage.SOURCE, "emitted data after its final barrier")

    def mark(self, cursor: Any, final: bool, left_out: int = 0) -> PendingCheckpoint | None:
        """The source can resume from `cursor`, and left `left_out` rows out since its last mark.

        None when no checkpoint is due here: what is between this mark and the one before counts for the next.
        """
        with self._lock:
            if self._final_marked:
                raise violation(Stage.SOURCE, "marked a barrier after its final one")
            self._left_out += left_out
            if not (final or self._is_due()):
                return None
            self._final_marked = final
            self._sequence += 1
            checkpoint = PendingCheckpoint(
                self._sequence, cursor, final, self._rows, self._bytes, self._dead_letters, self._left_out
            )
            self._pending.append(checkpoint)
            self._rows = self._bytes = self._dead_letters = self._left_out = 0
            self._since = time.monotonic()
            return checkpoint

    def _is_due(self) -> bool:
        if self.commits_at_end:
            return False
        limits = self._limits
        # Those that are set aside are read again, too, when nothing says that they were.
        rows = self._rows + self._dead_letters + self._left_out
        return (
            0 < limits.checkpoint_interval_rows <= rows
            or 0 < limits.checkpoint_interval_bytes <= self._bytes
            or 0 < limits.checkpoint_interval_seconds <= time.monotonic() - self._since
        )

    @property
    def complete(self) -> bool:
        """Whether the source marked its final barrier: only then may its stream end."""
        with self._lock:
            return self._final_marked

    # A transform's side

    def passed(self, sequence: int, *, taken: int, emitted: int, dead_letters: int, left_out: int) -> None:
        """A transform made `emitted` of the `taken` rows before barrier `sequence`, and rejected some of them, with a
        letter or without one."""
        with self._lock:
            self._pending = [
                replace(
                    c,
                    rows=c.rows - taken + emitted,
                    dead_letters=c.dead_letters + dead_letters,
                    left_out=c.left_out + left_out,
                )
                if c.sequence == sequence
                else c
                for c in self._pending
            ]

    # The destination's side

    def following(self) -> int:
        """The least number that the destination's next checkpoint can have."""
        with self._lock:
            if self._prepared is not None or (self._final_marked and not self._pending):
                raise violation(Stage.DESTINATION, "told of dead letters that no checkpoint will cover")
            return self._pending[0].sequence if self._pending else self._sequence + 1

    def prepare(self, sequence: int, rows: int, rejected: int = 0) -> PendingCheckpoint:
        """The destination is about to commit up to `sequence`, having taken `rows` rows since its last commit, of which
        it has loaded all but `rejected`.

        A commit may cover several barriers, in order. The count of rows is held against what was emitted to it:
        a difference means that rows were lost or repeated on the way, and nothing is committed.
        """
        with self._lock:
            if self._prepared is not None:
                raise violation(
                    Stage.DESTINATION, f"prepared checkpoint {sequence} before it committed {self._prepared.sequence}"
                )
            covered = [c for c in self._pending if c.sequence <= sequence]
            if not covered or covered[-1].sequence != sequence:
                raise violation(Stage.DESTINATION, f"prepared checkpoint {sequence}, which no barrier announced")
            emitted = sum(c.rows for c in covered)
            if rows != emitted:
                raise violation(Stage.DESTINATION, f"took {rows} rows where {emitted} were emitted: not committed")
            if rejected > rows:
                raise violation(Stage.DESTINATION, f"rejected {rejected} rows of {rows}: not committed")
            self._prepared = PendingCheckpoint(
                sequence,
                covered[-1].cursor,
                covered[-1].final,
                rows - rejected,
                sum(c.bytes for c in covered),
                sum(c.dead_letters for c in covered),
                sum(c.left_out for c in covered),
                rejected,
            )
            return self._prepared

    def committed(self, sequence: int) -> None:
        """The destination committed `sequence`, which it had prepared."""
        with self._lock:
            prepared = self._prepared
            if prepared is None or prepared.sequence != sequence:
                raise violation(Stage.DESTINATION, f"committed checkpoint {sequence} without preparing it")
            self._prepared = None
            self._pending = [c for c in self._pending if c.sequence > sequence]
            self.rows_committed += prepared.rows

    @property
    def settled(self) -> bool:
        """Whether everything that the source emitted is committed."""
        with self._lock:
            return self._final_marked and not self._pending and self._prepared is None
