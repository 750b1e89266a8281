"""`rapidbyte dlq`: rows that were set aside, looked at, mended and brought home."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from rapidbyte_dagster.cli.pipeline_file import chosen_streams, pipeline_argument
from rapidbyte_dagster.config import Pipeline, Stream, load_pipeline
from rapidbyte_dagster.engine import (
    EditedLetters,
    ReplayResult,
    divide_choice,
    letter_lines,
    replay_dead_letters,
    require_suffix,
    write_letters,
)
from rapidbyte_dagster.errors import RapidbyteError, UsageError
from rapidbyte_dagster.state import LetterCategory, LetterChoice, StateStore, open_state

LETTERS_SHOWN = 20

# Of a message or a row on a terminal.
_CHARACTERS_SHOWN = 200

F = TypeVar("F", bound=Callable[..., Any])


def _choosing(command: F) -> F:
    """The options that say which dead letters are meant."""
    for option in (
        click.option(
            "--id",
            "ids",
            multiple=True,
            type=click.IntRange(min=1),
            metavar="NUMBER",
            help="Only this one; may be repeated.",
        ),
        click.option(
            "--category",
            "categories",
            multiple=True,
            type=click.Choice([category.value for category in LetterCategory]),
            metavar="NAME",
            help=f"Only those of this category ({', '.join(LetterCategory)}); may be repeated.",
        ),
        click.option("--run", "run_id", metavar="ID", help="Only those that this run set aside."),
        click.option("--stream", "names", multiple=True, metavar="NAME", help="Only this stream; may be repeated."),
    ):
        command = option(command)
    return command


def _choice(run_id: str | None, categories: Sequence[str], ids: Sequence[int], **more: Any) -> LetterChoice:
    named = tuple(LetterCategory(category) for category in categories)
    return LetterChoice(run_id=run_id, categories=named, ids=tuple(ids), **more)


@click.group()
def dlq() -> None:
    """Look at rows that were set aside (dead letters), and replay them.

    A row is set aside where `on_data_error` is dlq, with what is wrong with it. It waits until it is replayed.
    """


@dlq.command()
@pipeline_argument
@_choosing
@click.option("--waiting", is_flag=True, help="Only those that wait for a replay.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=LETTERS_SHOWN, show_default=True, help="Dead letters of a stream."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with whole rows.")
def show(
    pipeline_file: Path,
    names: tuple[str, ...],
    run_id: str | None,
    categories: tuple[str, ...],
    ids: tuple[int, ...],
    waiting: bool,
    limit: int,
    as_json: bool,
) -> int:
    """Tell how many dead letters there are, and list the newest.

    Nothing is changed, and no database but the state store is asked.
    """
    pipeline = load_pipeline(pipeline_file)
    streams = chosen_streams(pipeline, names)
    choice = _choice(run_id, categories, ids, waiting=True if waiting else None)
    with open_state(pipeline, os.environ) as state:
        if as_json:
            told = [_stream_json(pipeline, stream, state, choice, limit) for stream in streams]
            click.echo(json.dumps({"pipeline": pipeline.name, "streams": told}))
            return 0
        for stream in streams:
            _show_stream(pipeline, stream, state, choice, limit)
    return 0


def _stream_json(
    pipeline: Pipeline, stream: Stream, state: StateStore, choice: LetterChoice, limit: int
) -> dict[str, Any]:
    names = (pipeline.name, stream.name)
    counts = state.dead_letter_counts(*names, choice=choice)
    newest = state.dead_letter_previews(*names, limit=limit, characters=1, choice=choice)
    letters: list[Any] = []
    if newest:
        chosen = LetterChoice(ids=tuple(letter.id for letter in newest))
        letters = [
            json.loads(line, parse_int=_digits)
            for page in state.dead_letter_pages(*names, chosen)
            for line in letter_lines(page)
        ]
    return {
        "stream": stream.name,
        "total": counts.total,
        "waiting": counts.waiting,
        "by_category": dict(counts.by_category),
        "letters": sorted(letters, key=lambda letter: int(letter["id"]), reverse=True),
    }


def _digits(text: str) -> int | str:
    """A whole number, as long as Python reads it."""
    try:
        return int(text)
    except ValueError:
        return text


def _show_stream(pipeline: Pipeline, stream: Stream, state: StateStore, choice: LetterChoice, limit: int) -> None:
    names = (pipeline.name, stream.name)
    counts = state.dead_letter_counts(*names, choice=choice)
    by_category = ", ".join(f"{category} {count:,}" for category, count in counts.by_category.items())
    told = f"{_letters(counts.total)}, {counts.waiting:,} waiting ({by_category})" if counts.total else _letters(0)
    click.echo(f"{click.style(stream.name, bold=True)}: {told}")
    newest = state.dead_letter_previews(*names, limit=limit, characters=_CHARACTERS_SHOWN, choice=choice)
    if not newest:
        return
    console = Console()
    table = Table()
    table.add_column("id", justify="right")
    for heading in ("failed at", "category", "column", "message"):
        table.add_column(heading, overflow="fold")
    # Exports have it whole.
    table.add_column("row", no_wrap=True, overflow="ellipsis", max_width=max(12, console.width // 4))
    for letter in newest:
        cut = "…" if letter.record_characters > len(letter.record_json) else ""
        row = (letter.error_category, letter.column_name or "", letter.error_message, letter.record_json + cut)
        table.add_row(str(letter.id), letter.failed_at[:19].replace("T", " "), *(_plain(cell) for cell in row))
    console.print(table)
    if counts.total > len(newest):
        click.echo(f"{counts.total - len(newest):,} older ones are left out: --limit shows more, `dlq export` all")


def _plain(text: str) -> str:
    """Without what a terminal or rich would act on."""
    from rich.markup import escape

    return escape("".join(character if character.isprintable() else "�" for character in text))


@dlq.command()
@pipeline_argument
@_choosing
@click.option(
    "--to",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="*.jsonl (JSON Lines) or *.parquet. Without it: JSON Lines on stdout.",
)
@click.option("--all", "every", is_flag=True, help="Also those that wait no longer.")
@click.option("--overwrite", is_flag=True, help="Write FILE although it is there.")
def export(
    pipeline_file: Path,
    names: tuple[str, ...],
    run_id: str | None,
    categories: tuple[str, ...],
    ids: tuple[int, ...],
    path: Path | None,
    every: bool,
    overwrite: bool,
) -> int:
    """Write dead letters to a file that can be edited, and replayed with `dlq replay --from`.

    Each is a line with its `record`, the row, and its `types`; a record is edited in its place, and lines that are left
    out are not replayed. The rows are whole: mind who may read the file.
    """
    pipeline = load_pipeline(pipeline_file)
    streams = chosen_streams(pipeline, names)
    choice = _choice(run_id, categories, ids, waiting=None if every else True)
    if path is not None:
        require_suffix(path)
        if path.exists() and not overwrite:
            raise UsageError(f"{path} is there already", hint="name another file, or give --overwrite")
    with open_state(pipeline, os.environ) as state:

        def pages() -> Iterator[Any]:
            for stream in streams:
                yield from state.dead_letter_pages(pipeline.name, stream.name, choice)

        if path is not None:
            count = write_letters(path, pages())
            click.echo(f"{_letters(count)} written to {path}", err=True)
            return 0
        for page in pages():
            for line in letter_lines(page):
                click.echo(line)
    return 0


@dlq.command()
@pipeline_argument
@_choosing
@click.option(
    "--from",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="An edited export: its letters, with the rows that it has.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(
    pipeline_file: Path,
    names: tuple[str, ...],
    run_id: str | None,
    categories: tuple[str, ...],
    ids: tuple[int, ...],
    path: Path | None,
    as_json: bool,
) -> int:
    """Write dead letters to their tables, once what was wrong is mended.

    All that wait, unless something is chosen. Rows are added, or merged by the stream's key; a replay replaces no table
    and alters none. Those that fail again are kept as new dead letters, with their new reason. Replaying twice does
    nothing.
    """
    if path is not None and (run_id is not None or categories or ids):
        raise UsageError("--from replays what its file has: leave out --run, --category and --id")
    pipeline = load_pipeline(pipeline_file)
    streams = chosen_streams(pipeline, names)
    edited = EditedLetters(path, pipeline) if path is not None else None
    # What is missing from the environment is told once, before anything starts.
    pipeline.resolve(os.environ)
    replay_id = str(uuid.uuid4())
    results: list[ReplayResult] = []
    errors: list[tuple[Stream, RapidbyteError]] = []
    with open_state(pipeline, os.environ) as state:
        for stream, choice in divide_choice(pipeline, streams, state, _choice(run_id, categories, ids)):
            try:
                results.append(
                    replay_dead_letters(
                        pipeline,
                        stream,
                        state=state,
                        run_id=replay_id,
                        choice=choice,
                        edited=edited,
                        on_log=_log_of(stream),
                    )
                )
            except RapidbyteError as error:
                errors.append((stream, error))
    if as_json:
        failed = [{"stream": stream.name, "error": str(failure)} for stream, failure in errors]
        told = [{**asdict(result), "error": None} for result in results] + failed
        click.echo(json.dumps({"pipeline": pipeline.name, "run_id": replay_id, "ok": not errors, "streams": told}))
    else:
        for result in results:
            click.echo(f"{result.stream}: {_told(pipeline, result, named=bool(ids) or path is not None)}")
    for _, failure in errors:
        click.echo(f"Error: {failure}", err=True)
    return errors[0][1].exit_code if errors else 0


def _told(pipeline: Pipeline, result: ReplayResult, *, named: bool) -> str:
    """`named`: the user chose single letters, and wants to know of each."""
    parts = []
    if result.letters:
        rows = "its row is" if result.rows == 1 else f"{result.rows:,} rows are"
        parts.append(f"{_letters(result.letters)} replayed, {rows} in the table")
    else:
        parts.append("nothing to replay")
    if result.failed_again:
        parts.append(f"{result.failed_again:,} failed again: `rapidbyte dlq show {pipeline.path.name}` tells why")
    if result.untold:
        parts.append(
            f"{result.untold:,} left, which hold no row that can be written as it is:"
            " complete them in an export, and replay that with --from"
        )
    if result.settled and named:
        parts.append(f"{result.settled:,} wait no longer, and were left alone")
    return "; ".join(parts)


@dlq.command()
@pipeline_argument
@_choosing
@click.option("--all", "every", is_flag=True, help="Also those that still wait: their rows are then lost.")
@click.option("--before", metavar="TIME", help="Only those that failed before it: 2024-01-31, or with a time, in UTC.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def purge(
    pipeline_file: Path,
    names: tuple[str, ...],
    run_id: str | None,
    categories: tuple[str, ...],
    ids: tuple[int, ...],
    every: bool,
    before: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Delete dead letters from the state store, for good.

    Those that wait no longer, unless --all says otherwise: they were replayed, or their table was replaced since.
    """
    pipeline = load_pipeline(pipeline_file)
    streams = chosen_streams(pipeline, names)
    failed_before = _moment(before) if before is not None else None
    choice = _choice(run_id, categories, ids, waiting=None if every else False, failed_before=failed_before)
    with open_state(pipeline, os.environ) as state:
        found = {stream.name: state.dead_letter_counts(pipeline.name, stream.name, choice=choice) for stream in streams}
        if not yes and any(counts.total for counts in found.values()):
            _ask(sum(counts.total for counts in found.values()), sum(counts.waiting for counts in found.values()))
        purged: dict[str, int] = {}
        left: dict[str, int] = {}
        for name in found:
            purged[name] = state.purge_dead_letters(pipeline.name, name, choice)
            left[name] = state.dead_letter_counts(pipeline.name, name, choice=choice).total
    if as_json:
        told = [{"stream": name, "purged": count, "taken": left[name]} for name, count in purged.items()]
        click.echo(json.dumps({"pipeline": pipeline.name, "streams": told}))
        return 0
    for name, count in purged.items():
        taken = f"; {left[name]:,} are taken by a replay that did not end: replay or run the stream, which settles it"
        click.echo(f"{name}: {_letters(count)} purged{taken if left[name] else ''}")
    return 0


def _ask(total: int, waiting: int) -> None:
    """Raises `UsageError` where there is nobody to ask, `click.Abort` when the answer is no."""
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for confirmation on", hint="give --yes if you are sure")
    lost = f", {waiting:,} of which were never replayed" if waiting else ""
    click.confirm(f"Delete {_letters(total)}{lost}?", abort=True, err=True)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(
            f"--before: found {text!r}; allowed: a date or a time as in ISO 8601",
            hint="for instance 2024-01-31 or 2024-01-31T06:00",
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _letters(count: int) -> str:
    return "no dead letters" if count == 0 else f"{count:,} dead letter{'s' if count > 1 else ''}"


def _log_of(stream: Stream) -> Callable[[int, str], None]:
    def log(level: int, message: str) -> None:
        if level >= logging.WARNING:
            click.echo(f"{stream.name}: {message}", err=True)

    return log
