"""Where a source may start, handed from the destination's thread, which learns it, to the source's."""

from __future__ import annotations

import threading
from typing import Any

from rapidbyte_dagster.engine.barriers import BarrierLedger


class Resume:
    """Set or given up once; waited for by the source."""

    def __init__(self) -> None:
        # Its lock is reentrant, unlike an Event's: a signal handler may give up in a thread that is in here.
        self._changed = threading.Condition()
        self._known = False
        self._value: tuple[BarrierLedger, Any] | None = None

    def set(self, ledger: BarrierLedger, cursor: Any) -> None:
        self._tell((ledger, cursor))

    def give_up(self) -> None:
        """There is nothing to read: the run is over, for good or bad."""
        self._tell(None)

    def wait(self) -> tuple[BarrierLedger, Any] | None:
        """The ledger to count in and the cursor to start at; None when there is nothing to read."""
        with self._changed:
            self._changed.wait_for(lambda: self._known)
            return self._value

    def _tell(self, value: tuple[BarrierLedger, Any] | None) -> None:
        with self._changed:
            if not self._known:
                self._known, self._value = True, value
            self._changed.notify_all()
