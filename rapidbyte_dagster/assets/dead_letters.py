"""A stream's dead letters between its op and the IO managers: looked up when they are asked for, page by page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from rapidbyte_dagster.assets.dead_letter_figures import figures_of, last_figures
from rapidbyte_dagster.config import Pipeline, Stream
from rapidbyte_dagster.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from rapidbyte_dagster.state import StateStore

LetterSelection = Literal["all", "run"]
"""What an input loads: the stream's whole history, or what the run at hand has left out."""

RUN_ID_METADATA = ("rapidbyte/run_id", "run_id")
"""Of an input: the run whose dead letters it loads, `latest` or `all`; either name."""

_RUNS_NAMED = 5


class DeadLetters:
    """What the op of a stream gives the IO manager of `…/dlq`: nothing is read before it is asked for.

    A run may have left out more rows than memory holds. `run_id` is the run whose rows the step has moved; None where
    it moved none and only shows again what the state store holds.
    """

    def __init__(self, pipeline: Pipeline, stream: Stream, run_id: str | None = None) -> None:
        self.pipeline = pipeline
        self.stream = stream
        self.run_id = run_id

    def pages(self, run_id: str | None = None) -> Iterator[pa.Table]:
        """All of them, or those of one run, oldest first, in tables of a bounded size. Raises `StateError`."""
        from rapidbyte_dagster.state import open_state

        with open_state(self.pipeline, os.environ) as state:
            yield from letter_pages(state, self.pipeline, self.stream, run_id)

    def table(self, run_id: str | None = None) -> pa.Table:
        """The same as one table, which may have no rows."""
        import pyarrow as pa

        from rapidbyte_dagster.state.dead_letters import DEAD_LETTER_SCHEMA

        return pa.concat_tables([DEAD_LETTER_SCHEMA.empty_table(), *self.pages(run_id)])


def letters_given(value: object, asset: str) -> DeadLetters:
    """What an op has yielded for `asset`. Raises `UsageError` for anything but this."""
    if isinstance(value, DeadLetters):
        return value
    raise UsageError(
        f"asset {asset!r} was given a value of type {type(value).__name__}, and no dead letters",
        hint="yield the results of rapidbyte.run(context) as they are: the IO manager reads the state store",
    )


def letter_pages(state: StateStore, pipeline: Pipeline, stream: Stream, run_id: str | None) -> Iterator[pa.Table]:
    from rapidbyte_dagster.state import LetterChoice

    return state.dead_letter_pages(pipeline.name, stream.name, LetterChoice(run_id=run_id))


def chosen_run(
    state: StateStore, pipeline: Pipeline, stream: Stream, context: dg.InputContext, selection: LetterSelection
) -> str | None:
    """The run whose dead letters an input loads; None for all of them.

    What the input's metadata names comes before `selection`. The latest run is the one that loads, where it has moved
    rows of the stream, else the last one that did. Raises `UsageError` for a run that nobody heard of.
    """
    asked = _asked(context.definition_metadata, stream)
    if asked is None:
        asked = "latest" if selection == "run" else "all"
    if asked == "all":
        return None
    if asked == "latest":
        own = _own_run(context)
        found = figures_of(state, pipeline, stream, own) if own is not None else None
        found = found or last_figures(state, pipeline, stream)
        # Of a stream that never ran there are none, whatever the run is called.
        return found.run_id if found is not None else ""
    if state.run(asked, pipeline.name, stream.name) is None:
        known = ", ".join(run.run_id for run in state.runs(pipeline.name, stream.name, limit=_RUNS_NAMED))
        raise UsageError(
            f"an input asks for the dead letters of run {asked!r}, and the state store knows no such run",
            stream=stream.name,
            hint=f"the newest are {known}" if known else "the stream never ran here",
        )
    return asked


def _asked(metadata: Mapping[str, Any], stream: Stream) -> str | None:
    given = {name: metadata[name] for name in RUN_ID_METADATA if name in metadata}
    values = [value.value if isinstance(value, dg.MetadataValue) else value for value in given.values()]
    if not values:
        return None
    if any(value != values[0] for value in values) or not isinstance(values[0], str) or not values[0].strip():
        told = ", ".join(f"{name}: {value!r}" for name, value in zip(given, values, strict=True))
        raise UsageError(
            f"an input asks for the dead letters of what is no run: {told}",
            stream=stream.name,
            hint="`rapidbyte/run_id` in the input's metadata is the id of one run, `latest`, or `all`",
        )
    return values[0]


def _own_run(context: dg.InputContext) -> str | None:
    """The run that made the dead letters' asset, where that is the one that loads it."""
    try:
        return context.upstream_output.run_id if context.upstream_output else None
    except dg.DagsterInvariantViolationError:
        # It was made before this run, which is all that Dagster tells.
        return None
