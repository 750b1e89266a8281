"""`rapidbyte run`: moves a pipeline's streams, without Dagster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType

import click

from rapidbyte_dagster.cli.outcome import Outcome
from rapidbyte_dagster.cli.pipeline_file import chosen_streams, pipeline_argument
from rapidbyte_dagster.cli.progress import Display, summary
from rapidbyte_dagster.config import Pipeline, Stream, load_pipeline
from rapidbyte_dagster.engine import CancelToken, Start, run_stream
from rapidbyte_dagster.errors import RapidbyteError, UsageError, bug
from rapidbyte_dagster.state import StateStore, open_state


@click.command()
@pipeline_argument
@click.option("--stream", "names", multiple=True, metavar="NAME", help="Only this stream; may be repeated.")
@click.option("--full-refresh", is_flag=True, help="Read everything again and replace the rows that are there with it.")
@click.option(
    "--reset", is_flag=True, help="Forget the cursors: read everything again, in each stream's own write mode."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def run(pipeline_file: Path, names: tuple[str, ...], full_refresh: bool, reset: bool, as_json: bool) -> int:
    """Move the streams of PIPELINE.

    Incremental streams go on from their stored cursors, unless --full-refresh or --reset says otherwise.

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
    # What is missing from the environment is missing for every stream: told once, before anything starts.
    pipeline.resolve(os.environ)
    run_id = str(uuid.uuid4())
    with open_state(pipeline, os.environ) as state, Display(enabled=not as_json) as display:
        outcomes, first_failure = _run_all(pipeline, streams, start, state, run_id, display)
    try:
        _tell(pipeline, run_id, outcomes, as_json=as_json)
    except OSError as error:
        # The rows are where they are: the exit code says so even when nobody reads the rest.
        with contextlib.suppress(OSError):
            click.echo(f"the result could not be printed: {error}", err=True)
    return 0 if first_failure is None else first_failure.exit_code


def _tell(pipeline: Pipeline, run_id: str, outcomes: list[Outcome], *, as_json: bool) -> None:
    if as_json:
        told = {
            "pipeline": pipeline.name,
            "run_id": run_id,
            "ok": all(outcome.error is None for outcome in outcomes),
            "streams": [outcome.as_json() for outcome in outcomes],
        }
        click.echo(json.dumps(told))
    else:
        summary(pipeline.name, outcomes)
    for outcome in outcomes:
        if outcome.error is not None:
            click.echo(f"Error: {outcome.error}", err=True)


def _run_all(
    pipeline: Pipeline, streams: list[Stream], start: Start, state: StateStore, run_id: str, display: Display
) -> tuple[list[Outcome], RapidbyteError | None]:
    """Every stream's outcome in the file's order, and the error that came first."""
    cancel = CancelToken()
    first_failure: RapidbyteError | None = None

    def one(stream: Stream) -> Outcome:
        try:
            result = run_stream(
                pipeline,
                stream,
                state=state,
                run_id=run_id,
                start=start,
                on_progress=display.progress,
                on_log=lambda level, message: display.log(level, f"{stream.name}: {message}"),
                cancel=cancel,
            )
        except RapidbyteError as error:
            outcome = Outcome(stream.name, error=error, attempts=_attempts(state, pipeline, stream, run_id))
        except Exception as error:  # noqa: BLE001  the thread's boundary
            outcome = Outcome(stream.name, error=bug(error, stream=stream.name))
        else:
            outcome = Outcome(stream.name, result=result, attempts=result.attempts)
        display.done(outcome)
        return outcome

    with (
        _signals_press(cancel),
        ThreadPoolExecutor(pipeline.resources.streams_at_once, thread_name_prefix="stream") as pool,
    ):
        for stream in streams:
            display.expect(stream.name)
        futures: dict[Future[Outcome], str] = {pool.submit(one, stream): stream.name for stream in streams}
        outcomes: dict[str, Outcome] = {}
        pending = set(futures)
        while pending:
            # In slices: a signal is handled between waits.
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                outcomes[outcome.stream] = outcome
                first_failure = first_failure or outcome.error
    return [outcomes[stream.name] for stream in streams], first_failure


def _attempts(state: StateStore, pipeline: Pipeline, stream: Stream, run_id: str) -> int:
    """How often a stream that failed was tried, as the run's record has it; 0 when that cannot be read."""
    try:
        records = state.runs(pipeline.name, stream.name)
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
