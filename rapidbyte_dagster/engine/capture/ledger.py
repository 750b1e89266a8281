"""What a capture has emitted and what of it is committed, by stream and barrier."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rapidbyte_dagster.config import Resources
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage


@dataclass(frozen=True)
class Mark:
    """A barrier of the source's: everything emitted before it can be committed."""

    number: int
    """The source's calls of `barrier`, from 1."""
    position: int
    """Every transaction that committed before this LSN was emitted."""
    committed_at: int | None
    """When the newest of them committed at the source, in microseconds of Unix time; None where nothing came."""
    final: bool
    rows: Mapping[str, int]
    """Changes since the barrier before, by stream."""
    bytes: Mapping[str, int]
    dead_letters: Mapping[str, int]
    """Changes that the source set aside, by stream."""
    left_out: Mapping[str, int]
    """Those that it left out without a letter."""


class CaptureLedger:
    """The source's thread counts and marks, the destination's prepares and commits."""

    def __init__(self, resources: Resources, *, tails: bool) -> None:
        """`tails`: what is there is committed as soon as the destination has nothing else to do."""
        self._limits = resources
        self._tails = tails
        self._lock = threading.Lock()
        self._rows: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._dead_letters: Counter[str] = Counter()
        self._marks: list[Mark] = []
        """Those that are not committed."""
        self._number = 0
        self._final_marked = False
        self._prepared: Mark | None = None
        self._settled = 0
        self._frozen = False
        self._committed_last = time.monotonic()
        self.rows_committed = 0

    # The source's side

    def count(self, stream: str, rows: int, size: int) -> None:
        with self._lock:
            if self._final_marked:
                raise violation(Stage.SOURCE, "emitted data after its final barrier")
            self._rows[stream] += rows
            self._bytes[stream] += size

    def count_dead_letters(self, stream: str, number: int) -> int:
        """The source set `number` changes aside, which it did not emit. The number of the mark that follows them."""
        with self._lock:
            if self._final_marked:
                raise violation(Stage.SOURCE, "told of dead letters after its final barrier")
            self._dead_letters[stream] += number
            return self._number + 1

    def mark(
        self, position: int, committed_at: int | None, final: bool, left_out: Mapping[str, int] | None = None
    ) -> Mark:
        with self._lock:
            if self._final_marked:
                raise violation(Stage.SOURCE, "marked a barrier after its final one")
            if self._marks and position < self._marks[-1].position:
                raise violation(Stage.SOURCE, "marked a barrier that lies before an earlier one")
            self._final_marked = final
            self._number += 1
            counts = dict(self._rows), dict(self._bytes), dict(self._dead_letters), dict(left_out or {})
            mark = Mark(self._number, position, committed_at, final, *counts)
            self._rows, self._bytes, self._dead_letters = Counter(), Counter(), Counter()
            self._marks.append(mark)
            return mark

    @property
    def settled(self) -> int:
        """The number of the last mark up to which everything is committed, of every stream."""
        with self._lock:
            return self._settled

    def freeze(self) -> None:
        """A stream stops here: what it has not got must stay where it can be read again."""
        with self._lock:
            self._frozen = True

    # The destination's side

    def is_due(self, number: int, *, more: bool) -> bool:
        """Whether the destination is to commit at this mark. `more`: there is another one behind it already."""
        with self._lock:
            waiting = [mark for mark in self._marks if mark.number <= number]
            rows = sum(sum(mark.rows.values()) for mark in waiting)
            size = sum(sum(mark.bytes.values()) for mark in waiting)
            limits = self._limits
            return (
                waiting[-1].final
                or (not more and (self._tails or rows == 0))
                or 0 < limits.checkpoint_interval_rows <= rows
                or 0 < limits.checkpoint_interval_bytes <= size
                or 0 < limits.checkpoint_interval_seconds <= time.monotonic() - self._committed_last
            )

    def position(self, number: int) -> int:
        """Of the mark, which is not committed yet."""
        with self._lock:
            return next(mark.position for mark in self._marks if mark.number == number)

    def is_final(self, number: int) -> bool:
        with self._lock:
            return any(mark.number == number and mark.final for mark in self._marks)

    def prepare(self, number: int, rows: Mapping[str, int]) -> Mark:
        """The destination is about to commit up to mark `number`, having taken `rows` changes of each stream since its
        last commit. What it covers, as one mark.

        The counts are held against what was emitted: a difference means that changes were lost or repeated on the way,
        and nothing is committed.
        """
        with self._lock:
            if self._prepared is not None:
                raise violation(Stage.DESTINATION, f"prepared barrier {number} before it committed the one before")
            covered = [mark for mark in self._marks if mark.number <= number]
            if not covered or covered[-1].number != number:
                raise violation(Stage.DESTINATION, f"prepared barrier {number}, which it was not given")
            emitted: Counter[str] = Counter()
            size: Counter[str] = Counter()
            dead_letters: Counter[str] = Counter()
            left_out: Counter[str] = Counter()
            for mark in covered:
                emitted.update(mark.rows)
                size.update(mark.bytes)
                dead_letters.update(mark.dead_letters)
                left_out.update(mark.left_out)
            for stream in {*emitted, *rows}:
                if emitted[stream] != rows.get(stream, 0):
                    raise violation(
                        Stage.DESTINATION,
                        f"took {rows.get(stream, 0)} changes of {stream!r} where {emitted[stream]} were emitted:"
                        " not committed",
                    )
            last = covered[-1]
            told = [mark.committed_at for mark in covered if mark.committed_at is not None]
            newest = told[-1] if told else None
            self._prepared = Mark(number, last.position, newest, last.final, emitted, size, dead_letters, left_out)
            return self._prepared

    def committed(self, number: int) -> None:
        with self._lock:
            prepared = self._prepared
            if prepared is None or prepared.number != number:
                raise violation(Stage.DESTINATION, f"committed barrier {number} without preparing it")
            self._prepared = None
            self._marks = [mark for mark in self._marks if mark.number > number]
            self._committed_last = time.monotonic()
            self.rows_committed += sum(prepared.rows.values())
            if not self._frozen:
                self._settled = number

    @property
    def complete(self) -> bool:
        """Whether everything that the source emitted is committed."""
        with self._lock:
            return self._final_marked and not self._marks and self._prepared is None
