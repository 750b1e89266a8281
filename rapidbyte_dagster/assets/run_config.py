"""What may be asked of one run in Dagster's launchpad: the run config of a stream's op."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from rapidbyte_dagster.errors import UsageError

if TYPE_CHECKING:
    from rapidbyte_dagster.engine import Start

_FULL_REFRESH, _RESET, _TAIL_SECONDS = "full_refresh", "reset", "tail_seconds"

OP_CONFIG: Mapping[str, dg.Field] = {
    _FULL_REFRESH: dg.Field(
        bool,
        default_value=False,
        description="Read everything, whatever the stored cursor says, and replace the rows at the destination with it;"
        " then go on from there.",
    ),
    _RESET: dg.Field(
        bool,
        default_value=False,
        description="Forget the stored cursor: read everything again and write it in the stream's own write mode.",
    ),
}
"""Both have defaults: a run without any config is valid."""

SLOT_CONFIG: Mapping[str, dg.Field] = {
    _FULL_REFRESH: dg.Field(
        [str],
        default_value=[],
        description="Streams that are copied anew, in place of the rows that are there, before their changes go on:"
        " after a slot was lost, or to repair a table.",
    ),
    _TAIL_SECONDS: dg.Field(
        float,
        default_value=0.0,
        description="Go on so many seconds and apply changes as they come. 0: read what is there, and end.",
    ),
}
"""Of a replication slot's op. Both have defaults here too."""


def has_own_config(body: Callable[..., Any]) -> bool:
    """Whether an op's function takes a config of its own, beside which Dagster allows no other."""
    return "config" in inspect.signature(body).parameters


def start_of(context: dg.AssetExecutionContext) -> Start:
    """What the run config asks for. Raises `UsageError` when that is two things at once.

    A config of the user's own counts too, where it has these fields as truth values.
    """
    from rapidbyte_dagster.engine import Start

    asked = _asked(context.op_execution_context.op_config)
    if len(asked) > 1:
        raise UsageError(
            f"the run config asks for {_FULL_REFRESH} and {_RESET} at once",
            hint=f"{_FULL_REFRESH} replaces the rows at the destination, {_RESET} writes on top of them: set one",
        )
    return Start(asked[0]) if asked else Start.RESUME


class CaptureAsked(NamedTuple):
    """What the run config of a slot's op asks for."""

    full_refresh: tuple[str, ...]
    """Names of streams."""
    tail_seconds: float | None


def capture_of(context: dg.AssetExecutionContext, streams: Collection[str]) -> CaptureAsked:
    """Raises `UsageError` for a stream that is not one of the slot's `streams`, and for a time that is negative."""
    config = context.op_execution_context.op_config
    asked = config if isinstance(config, Mapping) else {}
    anew, tail = tuple(asked.get(_FULL_REFRESH) or ()), float(asked.get(_TAIL_SECONDS) or 0)
    for name in anew:
        if name not in streams:
            raise UsageError(
                f"{_FULL_REFRESH}: the slot has no stream {name!r}", hint=f"its streams: {', '.join(streams)}"
            )
    if not 0 <= tail < float("inf"):
        raise UsageError(f"{_TAIL_SECONDS}: found {tail:g}; allowed: 0 or more seconds")
    return CaptureAsked(anew, tail or None)


def repeated_runs(context: dg.AssetExecutionContext) -> list[str]:
    """The ids of the failed runs that this one re-executes, as far as they were asked for the same."""
    op = context.op_execution_context.op_def.name
    asked, found, run = _asked(context.op_execution_context.op_config), [], context.run
    while run.parent_run_id is not None:
        parent = context.instance.get_run_by_id(run.parent_run_id)
        if parent is None or parent.is_success or _asked(_config_of(parent, op)) != asked:
            break
        found.append(parent.run_id)
        run = parent
    return found


def _asked(config: object) -> list[str]:
    return [name for name in (_FULL_REFRESH, _RESET) if isinstance(config, Mapping) and config.get(name) is True]


def _config_of(run: dg.DagsterRun, op: str) -> object:
    found: object = run.run_config
    for key in ("ops", op, "config"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
