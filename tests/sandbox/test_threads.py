"""Instances on several threads at once share nothing: not their errors, not their memory, not their fate."""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rapidbyte_dagster.errors import Kind, RunCancelled, StateError
from rapidbyte_dagster.runtime import LogLevel, StreamAborted
from rapidbyte_dagster.runtime import instance as instance_module
from rapidbyte_dagster.runtime.status import Status
from tests.sandbox.connectors import Recorder, Scripted, call, perform

THREADS = 4
CALLS = 300


class Failing(Recorder):
    """Fails every `barrier` with an error that names this host, and every second `prepare` by aborting."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._prepared = 0

    def barrier(self, payload: dict[str, Any]) -> None:
        raise StateError(f"{self._name} number {payload['n']}")

    def prepare(self, payload: dict[str, Any]) -> None:
        self._prepared += 1
        if self._prepared % 2 == 0:
            raise StreamAborted


def test_every_thread_gets_its_own_errors_and_all_of_them(scripted: Scripted) -> None:
    together = threading.Barrier(THREADS)

    def work(index: int) -> int:
        host = Failing(f"host {index}")
        with scripted.instance(host=host) as instance:
            together.wait(10)
            for n in range(CALLS):
                with pytest.raises(StateError, match=f"calling barrier: host {index} number {n} "):
                    perform(instance, call("barrier", {"n": n}, strict=True))
                statuses = perform(instance, call("prepare", {}), call("prepare", {}), {"emit": ["x"]}).statuses
                assert statuses == [Status.OK, Status.ABORTED, Status.OK]
        return len(host.emitted)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [CALLS] * THREADS


def test_stopping_one_instance_leaves_the_others_running(scripted: Scripted) -> None:
    with scripted.instance() as doomed, scripted.instance() as other:
        with ThreadPoolExecutor(1) as pool:
            looping = pool.submit(perform, doomed, {"loop": True})
            doomed.cancel()
            assert isinstance(looping.exception(timeout=5), RunCancelled)
        assert perform(other, call("is_cancelled")).statuses == [0]


def test_a_trap_on_one_thread_does_not_reach_another(scripted: Scripted) -> None:
    def trap(_: int) -> Kind:
        with pytest.raises(Exception, match="it panicked") as caught:
            scripted.run({"trap": "unreachable"})
        return caught.value.kind  # type: ignore[attr-defined, no-any-return]

    def succeed(_: int) -> list[int]:
        return scripted.run(call("log", int(LogLevel.INFO), "fine"), {"emit": ["x"]}, host=Recorder()).statuses

    with ThreadPoolExecutor(THREADS) as pool:
        traps = pool.map(trap, range(50))
        successes = pool.map(succeed, range(50))
        assert set(traps) == {Kind.CONNECTOR}
        assert all(statuses == [0, 0] for statuses in successes)


def test_memory_is_not_freed_under_a_thread_that_is_still_inside(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inside, leave = threading.Event(), threading.Event()

    class Stuck(Recorder):
        def barrier(self, payload: dict[str, Any]) -> None:
            inside.set()
            assert leave.wait(10)

    monkeypatch.setattr(instance_module, "DISPOSAL_SECONDS", 0.2)
    with ThreadPoolExecutor(1) as pool:
        with scripted.instance(host=Stuck()) as instance:
            running = pool.submit(perform, instance, call("barrier", {}), call("now"))
            assert inside.wait(10)
        assert "does not come back from its host" in caplog.text
        leave.set()
        assert running.result(10).statuses[0] == Status.OK


def test_instances_leave_nothing_behind(scripted: Scripted) -> None:
    """Memory of 300 instances of 1.3 MB each would show; so would their callbacks and file descriptors."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    for _ in range(20):
        scripted.run(call("now"))
    gc.collect()
    before, threads, peak = descriptors(), threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        scripted.run(call("now"))
    assert descriptors() == before
    deadline = time.monotonic() + 2
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000
