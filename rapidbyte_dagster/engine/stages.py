"""The threads of one attempt, one per connector at work, and the first failure among them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.errors import RapidbyteError, Stage, bug
from rapidbyte_dagster.runtime import StreamAborted, Worker

# How long a destination may take to roll back by itself after its source failed; then it is interrupted, and the
# server rolls back when its connection goes away.
ROLLBACK_GRACE_SECONDS = 5.0

# How often the calling thread looks up: signals (Ctrl-C, Dagster's termination) reach Python code only between waits.
TICK_SECONDS = 0.1

Body = Callable[[Worker], None]
"""Takes the worker that its thread has entered."""


@dataclass(frozen=True, eq=False)
class _Member:
    stage: Stage
    worker: Worker
    thread: threading.Thread


class Stages:
    """Whatever fails first is the attempt's error. Then `wake` is called, which aborts the channels, and sources and
    transforms are stopped: destinations see that their stream broke, and roll back on their own."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        # Reentrant: a signal handler may cancel while its own thread is in here.
        self._lock = threading.RLock()
        self._members: list[_Member] = []
        self._peaks: dict[str, int] = {}
        self._at_work: list[_Member] = []
        self._failed_at: float | None = None
        self._running = False
        self.failure: RapidbyteError | None = None
        self.cancelled = False

    @property
    def failed_at(self) -> float | None:
        """When the first of them failed, in seconds of the monotonic clock."""
        return self._failed_at

    def add(self, stage: Stage, worker: Worker, body: Body, name: str) -> None:
        """A thread that enters `worker` and runs `body`; it starts with the others, or at once when they run.

        Raises `StreamAborted` when they are stopping already.
        """
        thread = threading.Thread(target=lambda: self._work(member, body), name=f"{stage}-{name}")
        member = _Member(stage, worker, thread)
        with self._lock:
            if self.cancelled or self._failed_at is not None:
                raise StreamAborted
            self._members.append(member)
            self._at_work.append(member)
            if self._running:
                thread.start()

    def peak_memory(self) -> dict[str, int]:
        """Bytes of linear memory by stage, of those that were at work together."""
        with self._lock:
            self._look_at_memory()
            return dict(self._peaks)

    def _look_at_memory(self) -> None:
        """Before one of them goes."""
        now: dict[str, int] = {}
        for member in self._at_work:
            now[str(member.stage)] = now.get(str(member.stage), 0) + member.worker.peak_memory
        for stage, size in now.items():
            self._peaks[stage] = max(size, self._peaks.get(stage, 0))

    def run(self, on_tick: Callable[[], None], cancel: CancelToken) -> None:
        """Returns when all threads have ended; what they failed with is in `failure`. Whatever is raised in this thread
        stops them first."""
        forget = cancel.on_cancel(self.stop)
        try:
            with self._lock:
                self._running = True
                for member in self._members:
                    member.thread.start()
            while (thread := self._alive()) is not None:
                thread.join(TICK_SECONDS)
                self._look_after()
                on_tick()
        except BaseException:
            self._stop_and_wait()
            raise
        finally:
            forget()

    def stop(self) -> None:
        with self._lock:
            self.cancelled = True
            members = list(self._members)
        self._wake()
        for member in members:
            member.worker.cancel()

    def _stop_and_wait(self) -> None:
        """Interruptions come in pairs: from the terminal, and from the parent that got the same one. The second must
        not keep a stage from being stopped."""
        while True:
            try:
                self.stop()
                while (thread := self._alive()) is not None:
                    thread.join(TICK_SECONDS)
                return
            except Exception:
                raise
            except BaseException:  # noqa: BLE001  the first one is on its way already
                continue

    def _alive(self) -> threading.Thread | None:
        with self._lock:
            threads = [member.thread for member in self._members]
        # One that adds another is alive until that one is.
        return next((thread for thread in threads if thread.is_alive()), None)

    def _work(self, member: _Member, body: Body) -> None:
        """Nothing that happens in a stage's thread may get lost, and its failure must wake the others."""
        try:
            with member.worker as worker:
                try:
                    body(worker)
                except BaseException as error:  # noqa: BLE001  a thread's edge
                    # Told before the instance says goodbye to its server, which may take long: the others wait.
                    self._fail(member, error)
                finally:
                    with self._lock:
                        self._look_at_memory()
                        self._at_work.remove(member)
        except BaseException as error:  # noqa: BLE001  a thread's edge
            self._fail(member, error)

    def _fail(self, member: _Member, error: BaseException) -> None:
        if not isinstance(error, RapidbyteError | StreamAborted):
            error = bug(error, stage=member.stage)
        with self._lock:
            if self._failed_at is None:
                self._failed_at = time.monotonic()
            # Who only saw the abort has nothing to tell.
            if self.failure is None and isinstance(error, RapidbyteError):
                self.failure = error
            # All but destinations: these roll back on their own.
            others = [each for each in self._members if each.stage is not Stage.DESTINATION and each is not member]
        self._wake()
        for other in others:
            other.worker.cancel()

    def _look_after(self) -> None:
        """What the stages' own threads cannot see to."""
        with self._lock:
            failed_at, at_work, members = self._failed_at, list(self._at_work), list(self._members)
        if failed_at is not None and time.monotonic() - failed_at > ROLLBACK_GRACE_SECONDS:
            for member in members:
                member.worker.cancel()
        for member in at_work:
            # One whose time is up may wait in a channel, where its instance cannot reach it.
            stopped = member.worker.stopped
            if stopped is not None:
                self._fail(member, stopped)
