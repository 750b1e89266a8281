"""`rapidbyte run`: moves a pipeline's streams, without Dagster."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click

from rapidbyte_dagster.cli.duration import DurationText
from rapidbyte_dagster.cli.outcome import Outcome
from rapidbyte_dagster.cli.pipeline_file import chosen_streams, pipeline_argument
from rapidbyte_dagster.cli.progress import Display, size_text, summary
from rapidbyte_dagster.config import Pipeline, SlotGroup, Stream, SyncMode, load_pipeline
from rapidbyte_dagster.engine import CancelToken, SlotResult, Start, StreamResult, run_slot, run_stream
from rapidbyte_dagster.errors import RapidbyteError, UsageError, bug
from rapidbyte_dagster.state import StateStore, open_state


@click.command()
@pipeline_argument
@click.option("--stream", "names", multiple=True, metavar="NAME", help="Only this stream; may be repeated.")
@click.option("--full-refresh", is_flag=True, help="Read everything again and replace the rows that are there with it.")
@click.option(
    "--reset", is_flag=True, help="Forget the cursors: read everything again, in each stream's own write mode."
)
@click.option(
    "--tail",
    type=DurationText(),
    metavar="DURATION",
    help="cdc: keep on for this long (30s, 10m, 2h) instead of ending where the log ended when the run began.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def run(
    pipeline_file: Path, names: tuple[str, ...], full_refresh: bool, reset: bool, tail: int | None, as_json: bool
) -> int:
    """Move the streams of PIPELINE.

    Incremental streams go on from their stored cursors, unless --full-refresh or --reset says otherwise. Streams of
    sync_mode cdc are loaded once, or again with --full-refresh, and then caught up with what their slot holds.

    One failing stream does not stop the others; the exit code is that of the first failure.
    """
    if full_refresh and reset:
        raise UsageError(
            "--full-refresh and --reset exclude each other",
            hint="--full-refresh replaces the rows at the destination, --reset writes on top of them",
        )
    start = Start.FULL_REFRESH if full_refresh else Start.RESET if reset else Start.RESUME
    pipeline = load_pipeline(pipeline_file)
    streams = chosen_streams(pipeline, names)
    captured = [stream.name for stream in streams if stream.sync_mode is SyncMode.CDC]
    if reset and captured:
        raise UsageError(
            f"--reset is not for streams of sync_mode cdc: {', '.join(captured)}",
            hint="--full-refresh loads them anew",
        )
    if tail is not None and not captured:
        raise UsageError("--tail is for streams of sync_mode cdc, and none was chosen")
    # What is missing from the environment is missing for every stream: told once, before anything starts.
    pipeline.resolve(os.environ)
    run_id = str(uuid.uuid4())
    with open_state(pipeline, os.environ) as state, Display(enabled=not as_json) as display:
        moves = _Moves(pipeline, state, run_id, start, tail, display)
        outcomes, first_failure = moves.run(streams)
    try:
        _tell(pipeline, run_id, outcomes, moves.slots, as_json=as_json)
    except OSError as error:
        # The rows are where they are: the exit code says so even when nobody reads the rest.
        with contextlib.suppress(OSError):
            click.echo(f"the result could not be printed: {error}", err=True)
    return 0 if first_failure is None else first_failure.exit_code


def _tell(pipeline: Pipeline, run_id: str, outcomes: list[Outcome], slots: list[SlotResult], *, as_json: bool) -> None:
    if as_json:
        told = {
            "pipeline": pipeline.name,
            "run_id": run_id,
            "ok": all(outcome.error is None for outcome in outcomes),
            "streams": [outcome.as_json() for outcome in outcomes],
            **({"slots": [_slot_json(slot) for slot in slots]} if slots else {}),
        }
        click.echo(json.dumps(told))
    else:
        summary(pipeline.name, outcomes)
        for slot in slots:
            since = "" if slot.lag_bytes is None else f"; {size_text(slot.lag_bytes)} of log since"
            click.echo(f"{slot.group}: {slot.transactions:,} transactions were read, up to {slot.position}{since}")
    # What stops all streams of a slot is one error.
    for error in dict.fromkeys(str(outcome.error) for outcome in outcomes if outcome.error is not None):
        click.echo(f"Error: {error}", err=True)


def _slot_json(slot: SlotResult) -> dict[str, Any]:
    return {name: getattr(slot, name) for name in ("group", "slot", "position", "transactions", "lag_bytes")}


class _Moves:
    """The streams of one run, side by side: each by itself, those of a replication slot together."""

    def __init__(
        self, pipeline: Pipeline, state: StateStore, run_id: str, start: Start, tail: int | None, display: Display
    ) -> None:
        self._pipeline = pipeline
        self._state = state
        self._run_id = run_id
        self._start = start
        self._tail = tail
        self._display = display
        self._cancel = CancelToken()
        self.slots: list[SlotResult] = []
        """Of those whose streams went on."""

    def run(self, streams: list[Stream]) -> tuple[list[Outcome], RapidbyteError | None]:
        """Every stream's outcome in the file's order, and the error that came first."""
        first_failure: RapidbyteError | None = None
        moves: list[Callable[[], list[Outcome]]] = [
            partial(self._move, stream) for stream in streams if stream.sync_mode is not SyncMode.CDC
        ]
        for group in self._pipeline.slot_groups:
            if chosen := [stream.name for stream in group.streams if stream in streams]:
                moves.append(partial(self._follow, group, chosen))
        with (
            _signals_press(self._cancel),
            ThreadPoolExecutor(self._pipeline.resources.streams_at_once, thread_name_prefix="stream") as pool,
        ):
            for stream in streams:
                self._display.expect(stream.name)
            outcomes: dict[str, Outcome] = {}
            pending = {pool.submit(move) for move in moves}
            while pending:
                # In slices: a signal is handled between waits.
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    for outcome in future.result():
                        outcomes[outcome.stream] = outcome
                        first_failure = first_failure or outcome.error
        return [outcomes[stream.name] for stream in streams], first_failure

    def _move(self, stream: Stream) -> list[Outcome]:
        try:
            result = run_stream(
                self._pipeline,
                stream,
                state=self._state,
                run_id=self._run_id,
                start=self._start,
                on_progress=self._display.progress,
                on_log=lambda level, message: self._display.log(level, f"{stream.name}: {message}"),
                cancel=self._cancel,
            )
        except RapidbyteError as error:
            return [self._done(stream.name, error)]
        except Exception as error:  # noqa: BLE001  the thread's boundary
            return [self._done(stream.name, bug(error, stream=stream.name))]
        return [self._done(stream.name, result)]

    def _follow(self, group: SlotGroup, streams: list[str]) -> list[Outcome]:
        try:
            result = run_slot(
                self._pipeline,
                group,
                state=self._state,
                run_id=self._run_id,
                streams=streams,
                full_refresh=streams if self._start is Start.FULL_REFRESH else (),
                tail_seconds=self._tail,
                on_progress=self._display.progress,
                on_log=self._say,
                cancel=self._cancel,
            )
        except RapidbyteError as error:
            return [self._done(stream, error) for stream in streams]
        except Exception as error:  # noqa: BLE001  the thread's boundary
            return [self._done(stream, bug(error, stream=stream)) for stream in streams]
        if result.position is not None:
            self.slots.append(result)
        return [self._done(stream, outcome) for stream, outcome in result.streams.items()]

    def _say(self, level: int, message: str) -> None:
        """A stream that stops is told at the end, and at once where that may be hours away."""
        if level < logging.ERROR or self._tail is not None:
            self._display.log(level, message)

    def _done(self, stream: str, ended: StreamResult | RapidbyteError) -> Outcome:
        if isinstance(ended, RapidbyteError):
            attempts = _attempts(self._state, self._pipeline, stream, self._run_id)
            outcome = Outcome(stream, error=ended, attempts=attempts)
        else:
            outcome = Outcome(stream, result=ended, attempts=ended.attempts)
        self._display.done(outcome)
        return outcome


def _attempts(state: StateStore, pipeline: Pipeline, stream: str, run_id: str) -> int:
    """How often a stream that failed was tried, as the run's record has it; 0 when that cannot be read."""
    try:
        records = state.runs(pipeline.name, stream)
    except RapidbyteError:
        return 0
    return next((record.attempts for record in records if record.run_id == run_id), 0)


@contextlib.contextmanager
def _signals_press(cancel: CancelToken) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a terminal that closes cancel the run, which then ends in order with its summary."""

    def press(number: int, frame: FrameType | None) -> None:
        cancel.cancel()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    # `nohup` asks that the terminal's end be ignored.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    before = {number: signal.signal(number, press) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
