"""The channel between two stages: messages, barriers, dead letters and the end, in order, bounded in bytes.

    source ── put ──▶ [message|message|barrier|message] ── take ──▶ destination
                       └── at most `max_bytes`, or one item ──┘

The bound makes a run's memory independent of its rows. A channel that is aborted drops what it holds and tells both
sides so: a stream that broke can never be mistaken for one that ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Protocol

from rapidbyte_dagster.engine.letters import Letters
from rapidbyte_dagster.runtime import End, Item, StreamAborted


class Supply(Protocol):
    """What a destination takes from."""

    def take(self) -> Item | Letters:
        """Waits for the next item. After the end there is only the end. Raises `StreamAborted`."""
        ...


class Channel:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[Item | Letters] = deque()
        self._bytes = 0
        self._aborted = False
        self._changed = threading.Condition()
        self.peak_bytes = 0
        """The most that waited in it."""
        self.put_wait_seconds = 0.0
        """How long the producer waited for room: high when the destination is the slower side."""
        self.take_wait_seconds = 0.0
        """How long the consumer waited for something to do: high when the source is the slower side."""

    def put(self, item: Item | Letters, *, at_once: bool = False) -> None:
        """Waits for room and appends; an item larger than the bound goes alone. Raises `StreamAborted`.

        `at_once`: for who has waited for room before, and goes beyond it by this one item at most.
        """
        size = _size(item)
        with self._changed:
            if self._bytes and self._bytes + size > self._max_bytes and not self._aborted and not at_once:
                started = time.monotonic()
                self._changed.wait_for(
                    lambda: self._aborted or not self._bytes or self._bytes + size <= self._max_bytes
                )
                self.put_wait_seconds += time.monotonic() - started
            if self._aborted:
                raise StreamAborted
            self._items.append(item)
            self._bytes += size
            self.peak_bytes = max(self.peak_bytes, self._bytes)
            self._changed.notify_all()

    def take(self) -> Item | Letters:
        """Waits for the next item. After the end there is only the end. Raises `StreamAborted`."""
        with self._changed:
            if not self._items and not self._aborted:
                started = time.monotonic()
                self._changed.wait_for(lambda: self._aborted or bool(self._items))
                self.take_wait_seconds += time.monotonic() - started
            if self._aborted:
                raise StreamAborted
            item = self._items[0]
            if not isinstance(item, End):
                self._items.popleft()
                self._bytes -= _size(item)
                self._changed.notify_all()
            return item

    def wait_for_room(self, seconds: float) -> bool:
        """Whether there is room for more; waits for it, but no longer than so long. A full channel is one that holds as
        much as it may. Raises `StreamAborted`."""
        with self._changed:
            started = time.monotonic()
            self._changed.wait_for(lambda: self._aborted or self._bytes < self._max_bytes, seconds)
            self.put_wait_seconds += time.monotonic() - started
            if self._aborted:
                raise StreamAborted
            return self._bytes < self._max_bytes

    def holds(self, kind: type[Item]) -> bool:
        """Whether an item of that kind waits."""
        with self._changed:
            return any(isinstance(item, kind) for item in self._items)

    def abort(self) -> None:
        """Ends the stream as broken, for both sides, now and forever."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()


def _size(item: Item | Letters) -> int:
    if isinstance(item, Letters):
        return item.size
    return 0 if isinstance(item, End) else len(item.data)
