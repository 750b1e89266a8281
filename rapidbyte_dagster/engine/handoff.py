"""One value, handed from the thread that learns it to those that wait for it."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Handoff(Generic[T]):
    """Set or given up once; waited for by any number of threads."""

    def __init__(self) -> None:
        # Its lock is reentrant, unlike an Event's: a signal handler may give up in a thread that is in here.
        self._changed = threading.Condition()
        self._known = False
        self._value: T | None = None

    def set(self, value: T) -> None:
        self._tell(value)

    def give_up(self) -> None:
        """There is nothing to wait for any more: the run is over, for good or bad."""
        self._tell(None)

    def wait(self) -> T | None:
        """The value; None when it was given up."""
        with self._changed:
            self._changed.wait_for(lambda: self._known)
            return self._value

    def _tell(self, value: T | None) -> None:
        with self._changed:
            if not self._known:
                self._known, self._value = True, value
            self._changed.notify_all()
