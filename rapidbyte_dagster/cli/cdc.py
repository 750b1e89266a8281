"""`rapidbyte cdc`: the replication slots and publications behind a pipeline's streams of change data capture."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from rapidbyte_dagster.cli.pipeline_file import chosen_streams, pipeline_argument
from rapidbyte_dagster.cli.progress import size_text
from rapidbyte_dagster.config import Pipeline, SlotGroup, load_pipeline
from rapidbyte_dagster.engine.capture.continuity import loss, lost_in
from rapidbyte_dagster.engine.capture.lsn import position_of
from rapidbyte_dagster.engine.capture.reconciliation import Reconciliation
from rapidbyte_dagster.engine.capture.reconciliation import verify as verify_streams
from rapidbyte_dagster.engine.capture.slots import (
    SlotSetup,
    SlotStatus,
    SlotTeardown,
    setup_slot,
    slot_status,
    teardown_slot,
)
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, SourceError, UsageError
from rapidbyte_dagster.state import Checkpoint, StateStore, cursor_text, open_existing_state, open_state

T = TypeVar("T")

_slot_option = click.option(
    "--slot",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only this slot, as streams name it in `replication_slot`; `cdc` is the pipeline's own. May be repeated.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def cdc() -> None:
    """Make, look at and drop what change data capture needs at a pipeline's source."""


@cdc.command(short_help="Make the slots and publications that are missing.")
@pipeline_argument
@_slot_option
@_json_option
def setup(pipeline_file: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Make the replication slots and publications that PIPELINE lacks.

    A run does the same. From then on the source keeps its log for the slots: run the pipeline soon, and regularly.
    What somebody else has made is used, and never altered.
    """
    pipeline = load_pipeline(pipeline_file)
    with open_state(pipeline, os.environ) as state:
        done = _each(
            _chosen(pipeline, names),
            lambda group: setup_slot(pipeline, group, os.environ, state=state, on_log=_log_of(group)),
        )
    errors = [error for _, _, error in done if error is not None]
    for group, ready, _ in done:
        if ready is not None:
            errors += [*ready.refused.values(), *_lost(pipeline, group, ready)]
    if as_json:
        _print_json(pipeline, done, errors, _setup_json)
    else:
        for group, ready, _ in done:
            for line in _setup_lines(group, ready) if ready is not None else ():
                click.echo(line)
    return _exit_code(errors)


@cdc.command(short_help="Tell how far slots are behind, and where streams stand.")
@pipeline_argument
@_slot_option
@_json_option
def status(pipeline_file: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Tell how far the slots of PIPELINE are behind, and where its streams stand.

    Nothing is changed, and nothing is read from the slots. The exit code tells of a slot that is missing or lost.
    """
    pipeline = load_pipeline(pipeline_file)
    done = _each(
        _chosen(pipeline, names),
        lambda group: slot_status(pipeline, group, os.environ, on_log=_log_of(group)),
    )
    state = open_existing_state(pipeline, os.environ)
    if state is None:
        positions: dict[str, Checkpoint] = {}
    else:
        with state:
            positions = _positions([group for group, _, _ in done], pipeline, state)
    errors = [error for _, _, error in done if error is not None]
    for group, found, _ in done:
        if found is not None:
            errors += _lost_in(pipeline, group, found, positions)
    if as_json:
        _print_json(pipeline, done, errors, lambda group, found: _status_json(pipeline, group, found, positions))
    else:
        for group, found, _ in done:
            for line in _status_lines(group, found, positions) if found is not None else ():
                click.echo(line)
    return _exit_code(errors)


@cdc.command(short_help="Drop the slots and publications that were made.")
@pipeline_argument
@_slot_option
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
@_json_option
def teardown(pipeline_file: Path, names: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Drop the slots and publications that were made for PIPELINE.

    The tables at the destination stay. Changes that were not read yet are lost to them: to go on, a stream has to be
    loaded anew with `rapidbyte run --full-refresh`. What somebody else has made stays.
    """
    pipeline = load_pipeline(pipeline_file)
    groups = _chosen(pipeline, names)
    pipeline.resolve(os.environ)
    if not yes:
        _ask(pipeline, groups)
    with open_state(pipeline, os.environ) as state:
        done = _each(
            groups, lambda group: teardown_slot(pipeline, group, os.environ, state=state, on_log=_log_of(group))
        )
    errors = [error for _, _, error in done if error is not None]
    if as_json:
        _print_json(pipeline, done, errors, lambda _, gone: dataclasses.asdict(gone))
    else:
        for group, gone, _ in done:
            for line in _teardown_lines(group, gone) if gone is not None else ():
                click.echo(line)
    return _exit_code(errors)


@cdc.command(short_help="Hold tables against their sources, row by row.")
@pipeline_argument
@click.option("--stream", "names", multiple=True, metavar="NAME", help="Only this stream; may be repeated.")
@_json_option
def verify(pipeline_file: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Hold PIPELINE's mirrored tables against their sources, row by row.

    Catches the streams up first, then compares counts and hashes of all rows as of one position. Both servers read
    their whole tables. The exit code tells of a difference.
    """
    pipeline = load_pipeline(pipeline_file)
    groups = _chosen(pipeline, ())
    named = {stream.name for stream in chosen_streams(pipeline, names)}
    asked = [group for group in groups if any(stream.name in named for stream in group.streams)]
    if names and named.difference(stream.name for group in groups for stream in group.streams):
        raise UsageError("only streams of sync_mode cdc can be verified")
    run_id = str(uuid.uuid4())

    def compare(group: SlotGroup) -> list[Reconciliation]:
        mine = [stream.name for stream in group.streams if stream.name in named] if names else None
        return list(
            verify_streams(pipeline, group, state=state, run_id=run_id, streams=mine, on_log=_log_of(group)).values()
        )

    with open_state(pipeline, os.environ) as state:
        done = _each(asked, compare)
    compared = [found for _, answer, _ in done for found in answer or ()]
    errors = [error for _, _, error in done if error is not None]
    errors += [
        DestinationError(_difference(found), kind=Kind.DATA, hint=_REPAIR) for found in compared if not found.matches
    ]
    if as_json:
        streams = [{**dataclasses.asdict(found), "matches": found.matches} for found in compared]
        click.echo(json.dumps({"pipeline": pipeline.name, "run_id": run_id, "ok": not errors, "streams": streams}))
    else:
        for found in compared:
            if found.matches:
                besides = f", without {', '.join(found.left_out)}" if found.left_out else ""
                click.echo(f"{found.stream}: {found.source_rows:,} rows are the same at {found.position}{besides}")
    return _exit_code(errors)


_REPAIR = "find out who else writes the table; `rapidbyte run --stream NAME --full-refresh` loads it anew"


def _difference(found: Reconciliation) -> str:
    if found.source_rows != found.destination_rows:
        counts = f"{found.source_rows:,} rows at the source, {found.destination_rows:,} at the destination"
        return f"{found.stream} differs at {found.position}: {counts}"
    return f"{found.stream} differs at {found.position}: {found.source_rows:,} rows on both sides, and not the same"


def _chosen(pipeline: Pipeline, names: Sequence[str]) -> list[SlotGroup]:
    groups = pipeline.slot_groups
    if not groups:
        raise UsageError(
            f"pipeline {pipeline.name!r} captures no changes", hint="set `sync_mode: cdc` on the streams that should"
        )
    known = [group.name for group in groups]
    for name in names:
        if name not in known:
            raise UsageError(f"pipeline {pipeline.name!r} has no slot {name!r}", hint=f"it has: {', '.join(known)}")
    return [group for group in groups if not names or group.name in names]


Done = list[tuple[SlotGroup, T | None, RapidbyteError | None]]


def _each(groups: list[SlotGroup], work: Callable[[SlotGroup], T]) -> Done[T]:
    """What `work` made of each, or how it failed: one that fails does not stop the others."""
    done: Done[T] = []
    for group in groups:
        try:
            done.append((group, work(group), None))
        except RapidbyteError as error:
            done.append((group, None, error))
    return done


def _exit_code(errors: Sequence[RapidbyteError]) -> int:
    for error in errors:
        click.echo(f"Error: {error}", err=True)
    return errors[0].exit_code if errors else 0


def _print_json(
    pipeline: Pipeline,
    done: Done[T],
    errors: Sequence[RapidbyteError],
    as_json: Callable[[SlotGroup, T], dict[str, Any]],
) -> None:
    slots = [
        {
            "group": group.name,
            "streams": [stream.name for stream in group.streams],
            **(as_json(group, answer) if answer is not None else {}),
            "error": str(error) if error is not None else None,
        }
        for group, answer, error in done
    ]
    click.echo(json.dumps({"pipeline": pipeline.name, "ok": not errors, "slots": slots}))


# Set-up.


def _setup_json(_: SlotGroup, ready: SlotSetup) -> dict[str, Any]:
    told = dataclasses.asdict(dataclasses.replace(ready, refused={}))
    return {**told, "refused": {stream: str(refusal) for stream, refusal in ready.refused.items()}}


def _setup_lines(group: SlotGroup, ready: SlotSetup) -> Iterator[str]:
    if ready.position is not None:
        yield f"{group.name}: slot {ready.slot} {'made' if ready.created_slot else 'is there'}, at {ready.position}"
    tables = ", ".join(ready.added_tables)
    if ready.created_publication:
        yield f"{group.name}: publication {ready.publication} made with {tables}"
    elif ready.added_tables:
        yield f"{group.name}: publication {ready.publication} got {tables}"
    elif len(ready.unpublished) < len(group.streams):
        yield f"{group.name}: publication {ready.publication} is there"
    for warning in ready.warnings:
        yield f"warning: {warning}"


def _lost(pipeline: Pipeline, group: SlotGroup, ready: SlotSetup) -> Iterator[RapidbyteError]:
    """What was there when the streams began, and cannot be made again."""
    file = pipeline.path.name
    if ready.position is None:
        names = [stream.name for stream in group.streams]
        message = f"replication slot {ready.slot} is gone, and with it what {', '.join(names)} had still to read"
        yield loss(message, names, file)
    for stream in ready.unpublished:
        message = f"publication {ready.publication} does not tell of {stream} any more: what it missed is lost"
        yield loss(message, [stream], file)


# Status.


def _positions(groups: Sequence[SlotGroup], pipeline: Pipeline, state: StateStore) -> dict[str, Checkpoint]:
    """The last checkpoints of the streams that have a position, by the state store."""
    latest = {
        stream.name: state.latest_checkpoint(pipeline.name, stream.name) for group in groups for stream in group.streams
    }
    return {
        stream: checkpoint
        for stream, checkpoint in latest.items()
        if checkpoint is not None and position_of(checkpoint.cursor) is not None
    }


def _lost_in(
    pipeline: Pipeline, group: SlotGroup, found: SlotStatus, positions: dict[str, Checkpoint]
) -> list[SourceError]:
    """Why streams cannot go on."""
    began = {
        stream.name: position_of(positions[stream.name].cursor) or 0
        for stream in group.streams
        if stream.name in positions
    }
    return lost_in(found, began, pipeline.path.name)


def _status_json(
    pipeline: Pipeline, group: SlotGroup, found: SlotStatus, positions: dict[str, Checkpoint]
) -> dict[str, Any]:
    stands = {stream.name: positions.get(stream.name) for stream in group.streams}
    return {
        **dataclasses.asdict(found),
        "fault": "; ".join(error.info.message for error in _lost_in(pipeline, group, found, positions)) or None,
        "positions": {name: checkpoint.cursor["lsn"] if checkpoint else None for name, checkpoint in stands.items()},
    }


def _status_lines(group: SlotGroup, found: SlotStatus, positions: dict[str, Checkpoint]) -> Iterator[str]:
    streams = ", ".join(stream.name for stream in group.streams)
    yield f"{group.name} ({streams})"
    if not found.exists:
        began = any(stream.name in positions for stream in group.streams)
        makes = "" if began else "; `rapidbyte cdc setup` or the first run makes it"
        yield f"  slot         {found.slot}: there is none{makes}"
    else:
        kept = "" if found.retained_bytes is None else f", {size_text(found.retained_bytes)} of log kept for it"
        behind = "" if found.lag_bytes is None else f": {size_text(found.lag_bytes)} behind"
        yield f"  slot         {found.slot}{behind}{kept}"
        yield f"  confirmed    {found.confirmed_flush_lsn} of {found.wal_position}"
        if found.wal_status is not None:
            safe = "" if found.safe_wal_size is None else f", {size_text(found.safe_wal_size)} from being lost"
            yield f"  wal_status   {found.wal_status}{safe}"
        if found.active:
            yield f"  read by      process {found.active_pid} of the server ({found.active_application})"
    whose = "made for this pipeline" if found.publication_is_ours else "the user's own"
    yield f"  publication  {found.publication}: {whose if found.publication_exists else 'there is none'}"
    if found.unpublished and found.publication_exists:
        yield f"  not in it    {', '.join(found.unpublished)}"
    for stream in group.streams:
        checkpoint = positions.get(stream.name)
        stands = "never ran" if checkpoint is None else f"{cursor_text(checkpoint.cursor)}, {_moment(checkpoint)}"
        yield f"  {stream.name}: {stands}"


def _moment(checkpoint: Checkpoint) -> str:
    return f"checkpoint {checkpoint.sequence} of {checkpoint.committed_at:%Y-%m-%d %H:%M:%S} UTC"


# Teardown.


def _ask(pipeline: Pipeline, groups: Sequence[SlotGroup]) -> None:
    """Raises `UsageError` where there is nobody to ask, `click.Abort` when the answer is no."""
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for confirmation on", hint="give --yes if you are sure")
    for group in groups:
        names = ", ".join(stream.name for stream in group.streams)
        click.echo(f"{group.name}: changes of {names} that were not read yet are lost", err=True)
    count = len(groups)
    click.confirm(f"Drop {count} slot{'s' if count > 1 else ''} of {pipeline.name}?", abort=True, err=True)


def _teardown_lines(group: SlotGroup, gone: SlotTeardown) -> Iterator[str]:
    if gone.kept_slot:
        drop = f"SELECT pg_drop_replication_slot('{gone.slot}')"
        yield f"{group.name}: slot {gone.slot} stays: this pipeline has not made it ({drop} drops it)"
    else:
        yield f"{group.name}: slot {gone.slot} {'dropped' if gone.dropped_slot else 'was not there'}"
    publication = f"{group.name}: publication {gone.publication}"
    if gone.kept_publication:
        yield f"{publication} stays: it was not made for this pipeline, or another slot is read by it"
    else:
        yield f"{publication} {'dropped' if gone.dropped_publication else 'was not there'}"


def _log_of(group: SlotGroup) -> Callable[[int, str], None]:
    def log(level: int, message: str) -> None:
        # Waiting for transactions takes as long as they do: nobody should wonder why.
        if level >= logging.INFO:
            click.echo(f"{group.name}: {message}", err=True)

    return log
