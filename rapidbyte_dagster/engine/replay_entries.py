"""Where dead letters go back into their stream: at the stage that had set them aside.

Each stage takes its own letters first, and then what the stage before it has made. The first one of all ends the stream
with the barrier that covers every letter, once the others have taken theirs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from rapidbyte_dagster.engine.channel import Supply
from rapidbyte_dagster.engine.handoff import Handoff
from rapidbyte_dagster.engine.letters import Letters
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import End, Item, StreamAborted

_TRANSFORM = re.compile(f"{Stage.TRANSFORM} ([1-9][0-9]*)")


def entry_of(stage: str, transforms: int) -> int:
    """The place, from 1, of the transform at which a letter of `stage` goes back into a stream of so many; one more is
    the destination."""
    if stage == Stage.SOURCE:
        return 1
    transform = _TRANSFORM.fullmatch(stage)
    # Where the stream's chain has become shorter, what is left of it has seen the row.
    return min(int(transform[1]), transforms + 1) if transform else transforms + 1


def entries_of(stages: Collection[str], transforms: int) -> Mapping[int, list[str]]:
    """The stages whose letters go in at each place; the first place first."""
    entries: dict[int, list[str]] = {}
    for stage in stages:
        entries.setdefault(entry_of(stage, transforms), []).append(stage)
    return dict(sorted(entries.items()))


class Entry:
    """What a stage takes from in a replay. There is nothing to take before `open`."""

    def __init__(self) -> None:
        self._own: Iterator[Item] = iter(())
        self._before: Supply | None = None
        self._aborted = False
        self.taken: Handoff[bool] = Handoff()
        """Told once its own letters have been taken."""

    def open(self, own: Iterator[Item], before: Supply | None) -> None:
        """`own` are its letters as rows, `before` is where those come from that the stage before has made."""
        self._own, self._before = own, before

    def take(self) -> Item | Letters:
        if self._aborted:
            raise StreamAborted
        item = next(self._own, None)
        if item is not None:
            return item
        self.taken.set(True)
        return End() if self._before is None else self._before.take()

    def abort(self) -> None:
        self._aborted = True
        self.taken.give_up()
