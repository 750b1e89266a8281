"""One stream's run in a process of its own, which can be killed like any other.

Processes are forked from a server that has imported the engine already (`multiprocessing`'s forkserver), so that one
is at work within milliseconds. What it has to say comes back over a pipe, line by line: a killed process says no more.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, cast

from rapidbyte_dagster.config import Pipeline, load_pipeline
from rapidbyte_dagster.engine import replay_dead_letters, run_stream
from rapidbyte_dagster.engine.start import Start
from rapidbyte_dagster.errors import RapidbyteError
from rapidbyte_dagster.state import StateStore, open_state

PATIENCE_SECONDS = 30.0
"""Between two things that a run on a busy machine has to say."""

_context = multiprocessing.get_context("forkserver")
# pytest: multiprocessing imports the main module of this process in each of its children.
_context.set_forkserver_preload(["pytest", "tests.recovery.worker"])


@dataclass(frozen=True)
class StateCrash:
    """The process dies before or after the `nth` call of a method of its state store."""

    method: str
    when: Literal["before", "after"]
    nth: int = 1


@dataclass(frozen=True)
class Job:
    path: Path
    stream: str
    run_id: str
    start: Start = Start.RESUME
    environ: Mapping[str, str] = field(default_factory=dict)
    crash: StateCrash | None = None
    replays: bool = False
    """Dead letters, instead of running the stream."""


@dataclass
class Report:
    """What a process told before it ended."""

    result: dict[str, Any] | None = None
    """Some of the `StreamResult`: rows, attempts, retried, table, sequence."""
    error: dict[str, Any] | None = None
    """kind, retryable, message."""
    bug: str | None = None
    log: list[str] = field(default_factory=list)


class CrashingStore:
    """A state store that takes its process down."""

    def __init__(self, store: StateStore, crash: StateCrash) -> None:
        self._store = store
        self._crash = crash
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != self._crash.method:
            return method

        def call(*args: Any, **options: Any) -> Any:
            self._calls += 1
            if self._calls != self._crash.nth:
                return method(*args, **options)
            if self._crash.when == "after":
                method(*args, **options)
            return os.kill(os.getpid(), signal.SIGKILL)

        return call


def _main(job: Job, pipe: Connection) -> None:
    try:
        pipeline = load_pipeline(job.path)
        with open_state(pipeline, job.environ) as opened:
            state = opened if job.crash is None else cast(StateStore, CrashingStore(opened, job.crash))
            if job.replays:
                pipe.send(("result", _replay(pipeline, job, state)))
                return
            result = run_stream(
                pipeline,
                pipeline.stream(job.stream),
                state=state,
                run_id=job.run_id,
                environ=job.environ,
                start=job.start,
                on_log=lambda level, message: pipe.send(("log", message)),
            )
        told = {
            "rows": result.rows,
            "attempts": result.attempts,
            "retried": list(result.retried),
            "table": result.table,
            "sequence": result.checkpoint.sequence,
        }
        pipe.send(("result", told))
    except RapidbyteError as error:
        pipe.send(("error", {"kind": str(error.kind), "retryable": error.retryable, "message": str(error)}))
    except BaseException:  # noqa: BLE001  a process's edge
        pipe.send(("bug", traceback.format_exc()))


def _replay(pipeline: Pipeline, job: Job, state: StateStore) -> dict[str, Any]:
    result = replay_dead_letters(
        pipeline, pipeline.stream(job.stream), state=state, run_id=job.run_id, environ=job.environ
    )
    return {"rows": result.rows, "attempts": result.attempts, "sequence": result.sequence}


class Worker:
    """A process at work on `job` from the moment that it is made; ends with its `with`.

    `main` is a function of a module that knows another kind of job.
    """

    def __init__(self, job: Any, main: Callable[[Any, Connection], None] = _main) -> None:
        self._pipe, theirs = _context.Pipe(duplex=False)
        self._process = _context.Process(target=main, args=(job, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._process.join(PATIENCE_SECONDS)
        self._process.close()
        self._pipe.close()

    def kill(self) -> None:
        """SIGKILL; from any thread, and any number of times while the `with` lasts."""
        if self._process.pid is not None:
            # Not this process's child but the fork server's, which may have buried it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    def wait(self) -> Report:
        """Until the process ended, by itself or by SIGKILL."""
        report = Report()
        try:
            while self._pipe.poll(PATIENCE_SECONDS):
                kind, told = self._pipe.recv()
                if kind == "log":
                    report.log.append(told)
                else:
                    setattr(report, kind, told)
        except (EOFError, OSError):
            pass
        self._process.join(1)
        assert self._process.exitcode is not None, f"the worker does not end: {report}"
        assert report.bug is None, report.bug
        return report

    @property
    def was_killed(self) -> bool:
        """After `wait`."""
        return self._process.exitcode == -signal.SIGKILL


def work(job: Job) -> Report:
    """A run that nobody disturbs."""
    with Worker(job) as worker:
        report = worker.wait()
        assert not worker.was_killed, f"the worker was killed: {report}"
        return report
