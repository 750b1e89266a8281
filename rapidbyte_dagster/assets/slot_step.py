"""A replication slot's step: catch its streams up together, and tell Dagster what became of each one's assets."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets.failure import failure_from, failure_of_streams
from rapidbyte_dagster.assets.run_config import CaptureAsked, capture_of
from rapidbyte_dagster.assets.run_log import RunLog
from rapidbyte_dagster.assets.slot_asset import look_at_slot
from rapidbyte_dagster.assets.slot_health import slot_health_result, slot_metadata
from rapidbyte_dagster.assets.slot_runs import CHANGES_TAG
from rapidbyte_dagster.assets.stream_report import StepResult, StreamReport
from rapidbyte_dagster.assets.termination import interruptible, interruption
from rapidbyte_dagster.config import SlotGroup
from rapidbyte_dagster.errors import RapidbyteError

if TYPE_CHECKING:
    from rapidbyte_dagster.engine import CancelToken, Progress, SlotResult
    from rapidbyte_dagster.engine.result import ProgressListener
    from rapidbyte_dagster.state import SchemaChange, StateStore


class SlotStep:
    """One step over the assets of the streams of one replication slot, as its op's context knows them.

    The streams whose tables are selected run together, and the slot's position waits for those that are not. A stream
    that fails does not hold up the others: their assets are materialised, and the step fails after that. Kept assets
    and checks alone move no rows, as in a step of one stream.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        group: SlotGroup,
        reports: Sequence[StreamReport],
        *,
        log_interval_seconds: float,
    ) -> None:
        self._context = context
        self._group = group
        self._reports = {report.stream.name: report for report in reports}
        self._pipeline = reports[0].pipeline
        self._interval = log_interval_seconds
        self._failed: dict[str, RapidbyteError] = {}
        """The streams that failed."""
        self._caught_up_at: float | None = None
        """When it was known of what the run has read that nothing else waits; None where it has not read everything."""

    def run(self) -> Iterator[StepResult]:
        """Raises `dagster.Failure` with this package's message. Everything is done before the first result comes."""
        failure: dg.Failure | None = None
        results: list[StepResult] = []
        with interruptible(self._context) as cancel:
            try:
                self._run(cancel, results)
            except RapidbyteError as error:
                # None could go on without it.
                failure = failure_from(error)
                self._failed = {name: error for name, report in self._reports.items() if report.moves}
            for name, reason in self._failed.items():
                results += self._reports[name].failed(reason)
            if failure is None and self._failed:
                failure = failure_of_streams(self._failed)
            if not cancel.cancelled and any(report.moves for report in self._reports.values()):
                self._observe()
        yield from results
        if cancel.cancelled:
            raise interruption(self._context)
        # Raised out here it has no chain of causes: Dagster would print them all.
        if failure is not None:
            raise failure

    def _run(self, cancel: CancelToken, results: list[StepResult]) -> None:
        """Adds to `results` whatever there is by the time of an error."""
        # Imported when a step runs: loading definitions must not pay for the WASM runtime.
        from rapidbyte_dagster.state import open_state

        asked = capture_of(self._context, [stream.name for stream in self._group.streams])
        moving = [report for report in self._reports.values() if report.moves]
        with open_state(self._pipeline, os.environ) as state:
            if moving:
                results += self._moved(state, asked, moving, cancel)
            elif asked.full_refresh:
                # No error: a run that is repeated from its failed assets brings the config of the first one.
                self._context.log.warning("full_refresh is left aside: no table is selected, and no row is moved")
            for name, report in self._reports.items():
                if not report.moves:
                    results += report.looked(state)
                if name not in self._failed:
                    results += report.kept(state)

    def _moved(
        self, state: StateStore, asked: CaptureAsked, moving: Sequence[StreamReport], cancel: CancelToken
    ) -> list[StepResult]:
        from rapidbyte_dagster.engine import Start

        for report in moving:
            report.before(state)
        began = time.time()
        result = self._capture(state, asked, moving, cancel)
        results: list[StepResult] = []
        for report in moving:
            name = report.stream.name
            outcome = result.streams[name]
            if isinstance(outcome, RapidbyteError):
                self._failed[name] = outcome
                continue
            start = Start.FULL_REFRESH if name in asked.full_refresh else Start.RESUME
            more: dict[str, Any] = {"position": result.position, "transactions": result.transactions}
            if result.lag_bytes is not None:
                more["lag_bytes"] = result.lag_bytes
            more |= {f"rows_{change}": count for change, count in (outcome.changes or {}).items()}
            results.append(report.moved(state, outcome, start, replaced=False, more=more))
        if result.position is not None:
            self._context.log.info(f"{result.transactions:,} transactions were read, up to {result.position}")
        if not self._failed and len(moving) == len(self._group.streams):
            self._caught_up_at = time.time() if asked.tail_seconds else began
        return results

    def _capture(
        self, state: StateStore, asked: CaptureAsked, moving: Sequence[StreamReport], cancel: CancelToken
    ) -> SlotResult:
        from rapidbyte_dagster.engine import run_slot

        log = RunLog(self._context.log, self._interval)
        # Of those that are not selected a run that this one repeats has seen to it.
        anew = [report.stream.name for report in moving if report.stream.name in asked.full_refresh]
        for name in anew:
            self._context.log.info(f"full_refresh: {name} is copied anew, before its changes go on")
        try:
            return run_slot(
                self._pipeline,
                self._group,
                state=state,
                run_id=self._context.run.run_id,
                streams=[report.stream.name for report in moving],
                full_refresh=anew,
                tail_seconds=asked.tail_seconds,
                on_progress=self._progress_to(log),
                on_log=log.say,
                on_drift=self._note_drift,
                cancel=cancel,
            )
        finally:
            # Also before a failure or a termination goes on: what the connectors said may explain it.
            log.flush()

    def _progress_to(self, log: RunLog) -> ProgressListener:
        """Of all streams together: one line tells of one step."""
        newest: dict[str, Progress] = {}

        def told(progress: Progress) -> None:
            newest[progress.stream] = progress
            log.progress(
                replace(
                    progress,
                    stream=self._group.name,
                    rows=sum(each.rows for each in newest.values()),
                    bytes=sum(each.bytes for each in newest.values()),
                    rows_committed=sum(each.rows_committed for each in newest.values()),
                )
            )

        return told

    def _note_drift(self, stream: str, changes: tuple[SchemaChange, ...]) -> None:
        self._reports[stream].note_drift(changes)

    def _observe(self) -> None:
        """The slot's observation, and what its health check says. Where they fail, the step ends as it does."""
        key = next(iter(self._reports.values())).slot
        if key is None:
            return
        covered = self._context.run.tags.get(CHANGES_TAG) if self._caught_up_at is not None else None
        try:
            sight = look_at_slot(
                self._context.instance,
                self._pipeline,
                self._group,
                key,
                caught_up_at=self._caught_up_at,
                covered=covered,
            )
        except RapidbyteError as error:
            self._context.log.warning(f"the slot's health was not looked at: {error}")
            return
        self._context.log_event(dg.AssetObservation(key, metadata=slot_metadata(sight.status, sight.lag_seconds)))
        found = slot_health_result(
            key, self._pipeline.cdc, sight.status, alarms=sight.alarms, lag_seconds=sight.lag_seconds
        )
        self._context.log_event(_evaluation(key, found))


def _evaluation(key: dg.AssetKey, found: dg.AssetCheckResult) -> Any:
    """As the op's context takes it, although the annotation of its method does not say so."""
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=found.check_name or "",
        passed=found.passed,
        severity=found.severity,
        description=found.description,
        metadata=found.metadata,
    )
