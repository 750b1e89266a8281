"""Runs that go on while a test does something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.errors import RapidbyteError
from tests.evolution.trial import Trial

PATIENCE = 60.0
"""Seconds that a test waits for something that takes a moment."""


class Background(threading.Thread):
    """A run on a thread of its own; `outcome` is its result or its error."""

    def __init__(self, trial: Trial, policy: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._trial = trial
        self._policy = policy
        self._ended: StreamResult | RapidbyteError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._ended = self._trial.run(self._policy)
        except RapidbyteError as error:
            self._ended = error

    @property
    def outcome(self) -> StreamResult | RapidbyteError:
        self.join(PATIENCE)
        assert self._ended is not None
        return self._ended

    def result(self) -> StreamResult:
        outcome = self.outcome
        assert isinstance(outcome, StreamResult), outcome
        return outcome


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
