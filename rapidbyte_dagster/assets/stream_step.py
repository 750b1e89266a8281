"""A step's work: run the stream, and tell Dagster what became of each selected asset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets.failure import failure_from
from rapidbyte_dagster.assets.run_config import repeated_runs, start_of
from rapidbyte_dagster.assets.run_log import RunLog
from rapidbyte_dagster.assets.stream_report import StepResult, StreamReport
from rapidbyte_dagster.assets.termination import interruptible, interruption
from rapidbyte_dagster.config import WriteMode
from rapidbyte_dagster.errors import RapidbyteError

if TYPE_CHECKING:
    from rapidbyte_dagster.engine import CancelToken, Start, StreamResult
    from rapidbyte_dagster.state import StateStore


class StreamStep:
    """One step over the assets of one stream, as its op's context knows them.

    When the table is selected the stream runs. A selection of kept assets alone moves no rows: it shows again what the
    state store holds, so that a step that failed after its data was committed can be repeated without repeating it. The
    checks of a table that is not selected move none either: they look at what is there now.
    """

    def __init__(self, context: dg.AssetExecutionContext, report: StreamReport, *, log_interval_seconds: float) -> None:
        self._context = context
        self._report = report
        self._interval = log_interval_seconds

    def run(self) -> Iterator[StepResult]:
        """Raises `dagster.Failure` with this package's message. Everything is done before the first result comes."""
        failure: dg.Failure | None = None
        results: Sequence[StepResult] = ()
        with interruptible(self._context) as cancel:
            try:
                results = self._results(cancel)
            except RapidbyteError as error:
                failure = failure_from(error)
                results = self._report.failed(error)
        yield from results
        if cancel.cancelled:
            raise interruption(self._context)
        # Raised out here it has no chain of causes: Dagster would print them all.
        if failure is not None:
            raise failure

    def _results(self, cancel: CancelToken) -> list[StepResult]:
        # Imported when a step runs: loading definitions must not pay for the WASM runtime.
        from rapidbyte_dagster.state import open_state

        start = start_of(self._context)
        with open_state(self._report.pipeline, os.environ) as state:
            results: list[StepResult] = []
            if self._report.moves:
                results.append(self._moved(state, start, cancel))
            else:
                if start != "resume":
                    # No error: a run that is repeated from its failed assets brings the config of the first one.
                    self._context.log.warning(f"{start} is left aside: the table is not selected, and no row is moved")
                results += self._report.looked(state)
            return [*results, *self._report.kept(state)]

    def _moved(self, state: StateStore, start: Start, cancel: CancelToken) -> dg.MaterializeResult[Any]:
        self._report.before(state)
        result = self._move(state, start, cancel)
        mode = start.write_mode(self._report.pipeline.write_mode(self._report.stream))
        return self._report.moved(state, result, start, replaced=mode is WriteMode.REPLACE)

    def _move(self, state: StateStore, start: Start, cancel: CancelToken) -> StreamResult:
        from rapidbyte_dagster.engine import Start, run_stream

        pipeline, stream = self._report.pipeline, self._report.stream
        log = RunLog(self._context.log, self._interval)
        if start is not Start.RESUME:
            mode = start.write_mode(pipeline.write_mode(stream))
            self._context.log.info(f"{start}: {stream.name} is read from the beginning, with write mode {mode}")
        try:
            result = run_stream(
                pipeline,
                stream,
                state=state,
                run_id=self._context.run.run_id,
                start=start,
                repeats=repeated_runs(self._context),
                on_progress=log.progress,
                on_log=log.say,
                on_drift=self._report.note_drift,
                cancel=cancel,
            )
        finally:
            # Also before a failure or a termination goes on: what the connectors said may explain it.
            log.flush()
        self._context.log.info(
            f"{result.stream}: {result.rows:,} rows committed in {result.seconds:.2f} s"
            f" ({result.rows_per_second:,.0f} rows/s)"
        )
        return result
