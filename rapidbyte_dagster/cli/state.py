"""`rapidbyte state`: what is remembered of a pipeline's streams, and moving it by hand."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from rapidbyte_dagster.cli.pipeline_file import chosen_streams, pipeline_argument
from rapidbyte_dagster.cli.standing import Standing
from rapidbyte_dagster.config import Pipeline, Stream, SyncMode, WriteMode, load_pipeline
from rapidbyte_dagster.engine import reset_stream, rewind_stream
from rapidbyte_dagster.errors import RapidbyteError, UsageError
from rapidbyte_dagster.state import Checkpoint, StateStore, cursor_text, open_state

# Streams whose destination is asked at once: each takes a connection of its own.
ASKED_AT_ONCE = 8


@click.group()
def state() -> None:
    """Look at a pipeline's cursors and checkpoints, and move them."""


@state.command()
@pipeline_argument
@click.option("--stream", "names", multiple=True, metavar="NAME", help="Only this stream; may be repeated.")
@click.option("--history", is_flag=True, help="List the checkpoints too: `state rewind` goes back to one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with whole cursors.")
def show(pipeline_file: Path, names: tuple[str, ...], history: bool, as_json: bool) -> int:
    """Tell how far each stream is committed.

    Nothing is changed. Both sides are asked: the state store and, where it can be reached, the destination.
    """
    pipeline = load_pipeline(pipeline_file)
    streams = chosen_streams(pipeline, names)
    with (
        open_state(pipeline, os.environ) as store,
        ThreadPoolExecutor(min(ASKED_AT_ONCE, len(streams))) as pool,
    ):
        standings = list(pool.map(lambda stream: Standing.of(pipeline, stream, store, history=history), streams))
    if as_json:
        told = {"pipeline": pipeline.name, "streams": [standing.as_json() for standing in standings]}
        click.echo(json.dumps(told))
        return 0
    for standing in standings:
        for line in standing.lines():
            click.echo(line)
    return 0


@state.command()
@pipeline_argument
@click.option("--stream", "names", multiple=True, metavar="NAME", help="This stream; may be repeated.")
@click.option("--all", "every", is_flag=True, help="Every stream of the pipeline.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reset(pipeline_file: Path, names: tuple[str, ...], every: bool, yes: bool, as_json: bool) -> int:
    """Forget cursors: the next run reads from the beginning.

    No row is touched. The checkpoints so far stay: `rapidbyte state rewind` goes back to one.
    """
    pipeline = load_pipeline(pipeline_file)
    if every == bool(names):
        raise UsageError(
            "name the streams to reset with --stream NAME, or all of them with --all, and not both"
            if every
            else "name the streams to reset with --stream NAME, or all of them with --all"
        )
    streams = chosen_streams(pipeline, names)
    if not yes:
        _ask(pipeline, streams)

    def one(stream: Stream, store: StateStore, run_id: str) -> Checkpoint:
        return reset_stream(pipeline, stream, state=store, run_id=run_id, on_log=_log_of(stream))

    return _move(pipeline, streams, one, "reset", as_json=as_json)


@state.command()
@pipeline_argument
@click.option("--stream", "name", metavar="NAME", help="The stream; may be left out where there is only one.")
@click.option(
    "--to",
    "sequence",
    required=True,
    type=click.IntRange(min=1),
    metavar="SEQUENCE",
    help="The checkpoint's number, as `state show --history` lists it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rewind(pipeline_file: Path, name: str | None, sequence: int, as_json: bool) -> int:
    """Go back to a checkpoint: the next run reads from there.

    No row is touched. The later checkpoints stay: rewinding to one of them undoes it.
    """
    pipeline = load_pipeline(pipeline_file)
    if name is None and len(pipeline.streams) > 1:
        known = ", ".join(stream.name for stream in pipeline.streams)
        raise UsageError(
            "name the stream to rewind with --stream NAME", hint=f"pipeline {pipeline.name!r} has: {known}"
        )
    streams = chosen_streams(pipeline, [name] if name is not None else [])

    def one(stream: Stream, store: StateStore, run_id: str) -> Checkpoint:
        return rewind_stream(pipeline, stream, sequence, state=store, run_id=run_id, on_log=_log_of(stream))

    return _move(pipeline, streams, one, "rewound", as_json=as_json)


@dataclass(frozen=True)
class _Moved:
    """How moving one stream's position ended."""

    stream: Stream
    status: str
    checkpoint: Checkpoint | None = None
    error: RapidbyteError | None = None
    next_run: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "stream": self.stream.name,
            "status": self.status,
            "sequence": self.checkpoint.sequence if self.checkpoint else None,
            "cursor": self.checkpoint.cursor if self.checkpoint else None,
            "next_run": self.next_run,
            "error": str(self.error) if self.error else None,
        }


def _move(
    pipeline: Pipeline,
    streams: list[Stream],
    one: Callable[[Stream, StateStore, str], Checkpoint],
    status: str,
    *,
    as_json: bool,
) -> int:
    """Moves each stream; one that fails does not stop the others, and the exit code is the first failure's."""
    # What is missing from the environment is told once, before anything is moved.
    pipeline.resolve(os.environ)
    run_id = str(uuid.uuid4())
    moved: list[_Moved] = []
    with open_state(pipeline, os.environ) as store:
        for stream in streams:
            try:
                checkpoint = one(stream, store, run_id)
            except RapidbyteError as error:
                moved.append(_Moved(stream, "failed", error=error))
            else:
                moved.append(
                    _Moved(stream, status, checkpoint, next_run=_next_run(pipeline, stream, checkpoint.cursor))
                )
    errors = [each.error for each in moved if each.error is not None]
    if as_json:
        streams_told = [each.as_json() for each in moved]
        click.echo(json.dumps({"pipeline": pipeline.name, "run_id": run_id, "ok": not errors, "streams": streams_told}))
    for each in moved:
        if each.checkpoint is not None and not as_json:
            click.echo(f"{each.stream.name}: {status}, as checkpoint {each.checkpoint.sequence}; {each.next_run}")
    for told in errors:
        click.echo(f"Error: {told}", err=True)
    return errors[0].exit_code if errors else 0


def _ask(pipeline: Pipeline, streams: list[Stream]) -> None:
    """Raises `UsageError` where there is nobody to ask, `click.Abort` when the answer is no."""
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for confirmation on", hint="give --yes if you are sure")
    for stream in streams:
        click.echo(f"{stream.name}: {_next_run(pipeline, stream, None)}", err=True)
    click.confirm(f"Reset {len(streams)} stream{'s' if len(streams) > 1 else ''}?", abort=True, err=True)


def _next_run(pipeline: Pipeline, stream: Stream, cursor: Any) -> str:
    """What the next run of a stream does that was given `cursor`."""
    mode = pipeline.write_mode(stream)
    if stream.sync_mode is SyncMode.CDC:
        placed = "adds its rows to the history" if mode is WriteMode.APPEND else "puts it in the place of what is there"
        return f"the next run loads the whole table and {placed}; its changes follow from there"
    written = {
        WriteMode.APPEND: "adds what it reads to the table: rows that are there already are then there twice",
        WriteMode.REPLACE: "replaces the table's rows",
        WriteMode.UPSERT: "merges what it reads into the table by its key; rows that are gone from the source stay",
    }[mode]
    if stream.sync_mode is SyncMode.FULL_REFRESH:
        return f"the next run reads everything, as every full refresh does, and {written}"
    start = "the beginning" if cursor is None else cursor_text(cursor)
    return f"the next run reads from {start} on and {written}"


def _log_of(stream: Stream) -> Callable[[int, str], None]:
    def log(level: int, message: str) -> None:
        # Waiting for another run takes seconds: nobody should wonder why.
        if level >= logging.INFO:
            click.echo(f"{stream.name}: {message}", err=True)

    return log
