"""A running stream in its step's log: how far it is, and what its connectors say."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rapidbyte_dagster.engine import Progress

# Lines that wait for the step's own thread, which takes them a few times per second. A connector that says more than
# this loses its oldest lines, and the log says how many.
WAITING_LINES_LIMIT = 1000

_MEGABYTE = 1024 * 1024


class RunLog:
    """Connectors speak from their stages' threads; the step's thread, which made this, writes to Dagster's log.

    Dagster's log ends in the instance's database: one thread keeps its lines in order and waits for nobody's lock.
    """

    def __init__(self, log: logging.Logger, interval_seconds: float) -> None:
        self._log = log
        self._interval = interval_seconds
        self._owner = threading.get_ident()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, str]] = deque()
        self._dropped = 0
        self._told_at = time.monotonic()
        self._told_rows = 0

    def say(self, level: int, message: str) -> None:
        """One line at a level of `logging`; from any thread."""
        with self._lock:
            if len(self._waiting) >= WAITING_LINES_LIMIT:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append((level, message))
        if threading.get_ident() == self._owner:
            self.flush()

    def progress(self, progress: Progress) -> None:
        """Called often by the step's thread; logs once per interval, with the speed since the last line."""
        self.flush()
        now = time.monotonic()
        since = now - self._told_at
        if since < self._interval:
            return
        # A new attempt counts from zero again.
        speed = max(progress.rows - self._told_rows, 0) / since
        self._log.info(
            f"{progress.stream}: {progress.rows:,} rows, {progress.bytes / _MEGABYTE:,.1f} MB read"
            f" ({progress.rows_committed:,} rows committed), {speed:,.0f} rows/s"
        )
        self._told_at, self._told_rows = now, progress.rows

    def flush(self) -> None:
        """Writes what waits; only for the step's thread."""
        with self._lock:
            lines, self._waiting = self._waiting, deque()
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._log.warning(f"{dropped} log lines of the connectors were dropped: too many at once")
        for level, message in lines:
            self._log.log(level, message)
