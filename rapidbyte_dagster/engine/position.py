"""Where a stream stands at its destination: looked at, and moved by hand.

    open (the stream's lock) ▶ watermark ▶ reconcile ▶ prepare ▶ rb_rewind: COMMIT watermark ▶ finalise

A moved position is a checkpoint like any other, of a number of its own and without rows: a crash between any two steps
is settled as after a run, and the checkpoints before it stay, so that it can be moved back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rapidbyte_dagster.config import Pipeline, Stream, SyncMode
from rapidbyte_dagster.engine.answers import OpenedDestination, read_answer
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.hosts import StageHost
from rapidbyte_dagster.engine.plan import PipelinePlan, plan_pipeline
from rapidbyte_dagster.engine.result import LogListener, ignore_log
from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, Stage, UsageError, error_from
from rapidbyte_dagster.runtime import Worker
from rapidbyte_dagster.state import Checkpoint, RunRecord, StateStore, Watermark, utc_now

# Checkpoints that an error names when there is not the one that was asked for.
NAMED_CHECKPOINTS = 10

T = TypeVar("T")
CursorFinder = Callable[[Watermark | None], Any]
"""The cursor to go on from; asked under the stream's lock, once the state store has followed the destination."""


def read_watermark(
    pipeline: Pipeline, stream: Stream, *, environ: Mapping[str, str] = os.environ, on_log: LogListener | None = None
) -> Watermark | None:
    """What the destination says it committed last of `stream`; None when that is nothing. Changes nothing.

    Raises a leaf of `RapidbyteError` that shows no secret, also when a run of the stream is going on.
    """

    def look(plan: PipelinePlan) -> Watermark | None:
        with _destination(plan, on_log) as worker:
            return _open(plan, stream, worker, run_id=None)

    return _without_secrets(pipeline, stream, environ, look)


def reset_stream(
    pipeline: Pipeline,
    stream: Stream,
    *,
    state: StateStore,
    run_id: str,
    environ: Mapping[str, str] = os.environ,
    on_log: LogListener | None = None,
) -> Checkpoint:
    """Forgets the cursor of `stream`: its next run reads from the beginning, in the stream's own write mode.

    `run_id` is the reset's own. Raises a leaf of `RapidbyteError` that names the stream and shows no secret: of kind
    `unsupported` when the destination's connector cannot do it, of kind `resource` while a run of it is going on.
    """
    return _move(pipeline, stream, lambda _: None, "reset", state, run_id, environ, on_log)


def rewind_stream(
    pipeline: Pipeline,
    stream: Stream,
    sequence: int,
    *,
    state: StateStore,
    run_id: str,
    environ: Mapping[str, str] = os.environ,
    on_log: LogListener | None = None,
) -> Checkpoint:
    """Gives `stream` the cursor of its checkpoint `sequence`: its next run reads from there.

    Raises what `reset_stream` raises, and `UsageError` when there is no such checkpoint or none to resume from.
    """
    if stream.sync_mode is SyncMode.CDC:
        raise UsageError(
            "a cdc stream cannot be rewound: its slot does not keep what was confirmed",
            stream=stream.name,
            hint=f"to load it anew: `rapidbyte run {pipeline.path.name} --stream {stream.name} --full-refresh`",
        )
    if stream.sync_mode is not SyncMode.INCREMENTAL:
        raise UsageError(
            f"a {stream.sync_mode} stream has no cursor to rewind: each of its runs reads everything",
            stream=stream.name,
            hint="run it again, or make it incremental",
        )

    known = state.checkpoint(pipeline.name, stream.name, sequence)

    def cursor_of(watermark: Watermark | None) -> Any:
        checkpoint = state.checkpoint(pipeline.name, stream.name, sequence)
        if checkpoint is None and known is not None and watermark is not None:
            # The state store has just learnt it, and forgotten the checkpoint.
            raise UsageError(
                f"checkpoint {sequence} is not in the destination, which is at checkpoint {watermark.sequence}:"
                " the rows between the two would be missing",
                stream=stream.name,
                hint=f"name a checkpoint up to {watermark.sequence}",
            )
        if checkpoint is None:
            raise _no_such_checkpoint(pipeline, stream, sequence, state)
        if checkpoint.cursor is None:
            raise UsageError(
                f"checkpoint {sequence} has no cursor: it stands for the beginning",
                stream=stream.name,
                hint=f"to start there: `rapidbyte state reset {pipeline.path.name} --stream {stream.name}`",
            )
        return checkpoint.cursor

    return _move(pipeline, stream, cursor_of, "rewound", state, run_id, environ, on_log)


def _no_such_checkpoint(pipeline: Pipeline, stream: Stream, sequence: int, state: StateStore) -> UsageError:
    newest = state.checkpoints(pipeline.name, stream.name, limit=NAMED_CHECKPOINTS)
    there_are = ", ".join(str(checkpoint.sequence) for checkpoint in newest)
    return UsageError(
        f"there is no checkpoint {sequence}",
        stream=stream.name,
        hint=f"the newest are {there_are}; `rapidbyte state show {pipeline.path.name} --history` tells more"
        if newest
        else "the stream has no checkpoint yet",
    )


def _move(
    pipeline: Pipeline,
    stream: Stream,
    cursor_of: CursorFinder,
    status: str,
    state: StateStore,
    run_id: str,
    environ: Mapping[str, str],
    on_log: LogListener | None,
) -> Checkpoint:
    def move(plan: PipelinePlan) -> Checkpoint:
        connector = plan.destination.connector
        if not connector.offers("rb_rewind"):
            raise error_from(
                ErrorInfo(
                    kind=Kind.UNSUPPORTED,
                    stage=Stage.DESTINATION,
                    message=f"connector {connector.manifest.name!r} cannot move a stream's watermark (rb_rewind)",
                    hint="use a connector that can, or run the stream once with `--reset` or `--full-refresh`",
                )
            )
        started = utc_now()
        with _destination(plan, on_log) as worker:
            watermark = _open(plan, stream, worker, run_id=run_id)
            last = state.reconcile(pipeline.name, stream.name, watermark)
            checkpoint = Checkpoint(
                pipeline=pipeline.name,
                stream=stream.name,
                sequence=last.sequence + 1,
                cursor=cursor_of(watermark),
                rows=0,
                bytes=0,
                run_id=run_id,
                committed_at=utc_now(),
            )
            state.prepare(checkpoint)
            worker.call("rb_rewind", {"watermark": {"sequence": checkpoint.sequence, "cursor": checkpoint.cursor}})
            state.finalise(pipeline.name, stream.name, checkpoint.sequence)
            state.record_run(
                RunRecord(
                    run_id=run_id,
                    pipeline=pipeline.name,
                    stream=stream.name,
                    status=status,
                    started_at=started,
                    ended_at=utc_now(),
                )
            )
        return checkpoint

    return _without_secrets(pipeline, stream, environ, move)


def _destination(plan: PipelinePlan, on_log: LogListener | None) -> Worker:
    return plan.destination.worker(StageHost(Stage.DESTINATION, plan.redactor, on_log or ignore_log))


def _open(plan: PipelinePlan, stream: Stream, worker: Worker, *, run_id: str | None) -> Watermark | None:
    argument = plan.open_argument(Stage.DESTINATION, stream=stream, run_id=run_id)
    answer = worker.call("rb_open", argument)
    return read_answer(OpenedDestination, answer, verb="rb_open", stage=Stage.DESTINATION).watermark


def _without_secrets(
    pipeline: Pipeline, stream: Stream, environ: Mapping[str, str], work: Callable[[PipelinePlan], T]
) -> T:
    plan = plan_pipeline(pipeline, environ, stream)
    try:
        return work(plan)
    except RapidbyteError as error:
        failure = told(error, plan.redactor, stream.name)
    # Out here it has no context: that would hold the unredacted text.
    raise failure
