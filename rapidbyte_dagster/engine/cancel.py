"""A run's stop button, shared by whoever may press it and whatever must stop."""

from __future__ import annotations

import time
from collections.abc import Callable

# How often a wait looks at the button. Waiting for a lock instead could deadlock: a signal handler presses the button
# in the very thread that waits.
WAIT_SLICE_SECONDS = 0.1


class CancelToken:
    """Pressed at most once; from any thread, and from a signal handler. Callbacks run in the thread that presses it."""

    def __init__(self) -> None:
        self._cancelled = False
        # No lock: a signal handler may press while its own thread is in here. Who takes a callback out of the list, in
        # one step of the interpreter's, is the one who calls it or forgets it.
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        self._cancelled = True
        while True:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` when the token is pressed, at once if it already was; returns what unregisters it."""
        self._callbacks.append(callback)
        # Asked afterwards: a press from here on finds the callback.
        if self._cancelled and self._forget(callback):
            callback()

        def forget() -> None:
            self._forget(callback)

        return forget

    def wait(self, seconds: float) -> bool:
        """Sleeps up to `seconds`; True as soon as the token is pressed, give or take a slice."""
        deadline = time.monotonic() + seconds
        while not self._cancelled and (remaining := deadline - time.monotonic()) > 0:
            time.sleep(min(remaining, WAIT_SLICE_SECONDS))
        return self._cancelled

    def _forget(self, callback: Callable[[], None]) -> bool:
        """Whether `callback` was still waiting."""
        try:
            self._callbacks.remove(callback)
        except ValueError:
            return False
        return True
