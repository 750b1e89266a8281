"""Notices that a run is terminated where nothing tells its steps.

An executor on one machine interrupts the processes of its steps, and a container that is stopped gets a signal as well.
But a worker of Celery's or Dask's is not told to leave a step that it has begun, and a run that is terminated by force
is only marked. So a step asks now and then what became of its run, and stops its stream when nobody else does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rapidbyte_dagster.engine import CancelToken

LOOK_SECONDS = 1.5
"""Between two looks. Two in a row must find it: an interruption, which ends a step in better order, has that long."""


@contextmanager
def watched(is_terminated: Callable[[], bool], cancel: CancelToken) -> Iterator[None]:
    """Presses `cancel` within three looks after `is_terminated`, which is called in a thread of its own, turns true."""
    over = threading.Event()

    def watch() -> None:
        found = 0
        while not over.wait(LOOK_SECONDS):
            found = found + 1 if is_terminated() else 0
            if found == 2:
                cancel.cancel()
                return

    watcher = threading.Thread(target=watch, name="run-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
