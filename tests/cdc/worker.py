"""A run of a slot in a process of its own, which can be killed like any other."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.engine import run_slot
from rapidbyte_dagster.engine.capture.runner import PIECE_BYTES
from rapidbyte_dagster.errors import RapidbyteError
from rapidbyte_dagster.state import StateStore, open_state
from tests.recovery.worker import CrashingStore, Report, StateCrash, Worker


@dataclass(frozen=True)
class Job:
    path: Path
    run_id: str
    crash: StateCrash | None = None
    tail_seconds: float | None = None
    piece_bytes: int = PIECE_BYTES


def _main(job: Job, pipe: Connection) -> None:
    try:
        pipeline = load_pipeline(job.path)
        with open_state(pipeline, {}) as opened:
            state = opened if job.crash is None else cast(StateStore, CrashingStore(opened, job.crash))
            result = run_slot(
                pipeline,
                pipeline.slot_groups[0],
                state=state,
                run_id=job.run_id,
                environ={},
                tail_seconds=job.tail_seconds,
                piece_bytes=job.piece_bytes,
                on_log=lambda level, message: pipe.send(("log", message)),
            )
        for outcome in result.streams.values():
            if isinstance(outcome, RapidbyteError):
                raise outcome
        pipe.send(("result", {"position": result.position, "transactions": result.transactions}))
    except RapidbyteError as error:
        pipe.send(("error", {"kind": str(error.kind), "retryable": error.retryable, "message": str(error)}))
    except BaseException:  # noqa: BLE001  a process's edge
        pipe.send(("bug", traceback.format_exc()))


def start(job: Job) -> Worker:
    """At work from now on; ends with its `with`."""
    return Worker(job, _main)


def work(job: Job) -> Report:
    """A run that nobody disturbs, and that must succeed."""
    with start(job) as worker:
        report = worker.wait()
    assert report.error is None, report.error
    return report
