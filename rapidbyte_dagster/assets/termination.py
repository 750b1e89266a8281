"""How a step ends that somebody interrupts: its stream stops, and Dagster hears of it, whatever came between."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets.run_watch import watched

if TYPE_CHECKING:
    from rapidbyte_dagster.engine import CancelToken

_INTERRUPTIONS = (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)
_ENDING = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


class _Terminated(dg.DagsterError, dg.DagsterExecutionInterruptedError):
    """An interruption, for whoever ends a run; and an error of Dagster's own, which its retry policy leaves alone."""


# Dagster's multiprocess executor knows an interruption of a step's process by this name.
_Terminated.__name__ = dg.DagsterExecutionInterruptedError.__name__


@contextmanager
def interruptible(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Iterator[CancelToken]:
    """Around what a step does. Gives what stops its stream, for `cancel=` of the engine; where that is pressed at the
    end, `interruption` is to be raised.

    Dagster interrupts by an exception that is raised wherever the main thread happens to be. Where that is a finalizer
    or a callback of the garbage collector, of which there are many while Dagster writes its log, Python only prints it
    and goes on. Here it stops the stream.
    """
    # Imported when a step runs: loading definitions must not pay for the WASM runtime.
    from rapidbyte_dagster.engine import CancelToken

    token = CancelToken()
    printed = sys.unraisablehook

    def caught(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, _INTERRUPTIONS):
            token.cancel()
        else:
            printed(unraisable)

    sys.unraisablehook = caught
    try:
        with watched(lambda: _is_terminated(context), token):
            yield token
    except _INTERRUPTIONS as raised:
        raise interruption(context) from raised
    finally:
        sys.unraisablehook = printed


def interruption(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> BaseException:
    """What ends the step. A run that is being terminated is over, and the op's retry policy must not begin its step
    anew; an interruption that nobody asked Dagster for (a node that goes away) stays the policy's."""
    if _is_terminated(context):
        return _Terminated("the run was terminated")
    return dg.DagsterExecutionInterruptedError("the step was interrupted")


def _is_terminated(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> bool:
    try:
        run = context.instance.get_run_by_id(context.run.run_id)
    except Exception:  # noqa: BLE001  what stops is not to fail otherwise because Dagster's storage does
        return False
    return run is not None and run.status in _ENDING
