"""A step's work: run the stream, and tell Dagster what became of each selected asset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets.binding import AssetPart, StreamBinding, binding_of
from rapidbyte_dagster.assets.dead_letter_check import (
    DEAD_LETTER_CHECK,
    dead_letter_check_result,
    dead_letter_look_result,
)
from rapidbyte_dagster.assets.dead_letter_figures import figures_of, last_figures
from rapidbyte_dagster.assets.dead_letters import DeadLetters
from rapidbyte_dagster.assets.drift_check import DRIFT_CHECK, drift_check_result
from rapidbyte_dagster.assets.failure import failure_from
from rapidbyte_dagster.assets.metadata import table_metadata
from rapidbyte_dagster.assets.run_config import repeated_runs, start_of
from rapidbyte_dagster.assets.run_log import RunLog
from rapidbyte_dagster.assets.termination import interruptible, interruption
from rapidbyte_dagster.config import WriteMode
from rapidbyte_dagster.errors import Kind, RapidbyteError, StateError, UsageError

if TYPE_CHECKING:
    from rapidbyte_dagster.config import DeadLetterLimits
    from rapidbyte_dagster.engine import CancelToken, Start, StreamResult
    from rapidbyte_dagster.state import Checkpoint, SchemaChange, StateStore

StepResult = dg.MaterializeResult[Any] | dg.AssetCheckResult
"""An asset's materialisation, with the table's checks; a check alone where the table is not materialised."""


_KEEPING_COLUMNS = ("transform-validate", "transform-mask")
"""Transforms whose columns are those that they are given."""

_CHECKS = (DRIFT_CHECK, DEAD_LETTER_CHECK)


class StreamStep:
    """One step over the assets of one stream, as its op's context knows them.

    When the table is selected the stream runs. A selection of kept assets alone moves no rows: it shows again what the
    state store holds, so that a step that failed after its data was committed can be repeated without repeating it. The
    checks of a table that is not selected move none either: they look at what is there now.
    """

    def __init__(self, context: dg.AssetExecutionContext, *, log_interval_seconds: float) -> None:
        self._context = context
        self._interval = log_interval_seconds
        self._specs: dict[AssetPart, dg.AssetSpec] = {}
        self._checked: dict[str, dg.AssetKey] = {
            check.name: check.asset_key for check in context.selected_asset_check_keys if check.name in _CHECKS
        }
        """The table, by the name of each of its checks that is selected."""
        self._drift: Sequence[SchemaChange] = ()
        """The destination's last report; it comes from the destination's thread, and is read when that has ended."""
        checked = set(self._checked.values())
        bindings: dict[dg.AssetKey, StreamBinding] = {}
        for spec in context.assets_def.specs:
            if spec.key in context.selected_asset_keys or spec.key in checked:
                bindings[spec.key] = binding = binding_of(spec.metadata, spec.key)
                if spec.key in context.selected_asset_keys:
                    self._specs[binding.part] = spec
        of_one_stream = {(binding.pipeline.name, binding.stream.name) for binding in bindings.values()}
        if len(of_one_stream) != 1 or len({binding.part for binding in bindings.values()}) != len(bindings):
            raise UsageError("a step runs the assets of exactly one stream", hint="use @rapidbyte_stream_asset")
        binding = next(iter(bindings.values()))
        self._pipeline, self._stream = binding.pipeline, binding.stream
        self._moved_run: str | None = None
        """The run whose rows the step has moved, once it has."""

    def run(self) -> Iterator[StepResult]:
        """Raises `dagster.Failure` with this package's message. Everything is done before the first result comes."""
        failure: dg.Failure | None = None
        results: Sequence[StepResult] = ()
        with interruptible(self._context) as cancel:
            try:
                results = self._results(cancel)
            except RapidbyteError as error:
                failure = failure_from(error)
                results = self._results_of_failure(error)
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
        with open_state(self._pipeline, os.environ) as state:
            results: list[StepResult] = []
            if "table" in self._specs:
                results.append(self._moved(state, start, cancel))
            else:
                if start != "resume":
                    # No error: a run that is repeated from its failed assets brings the config of the first one.
                    self._context.log.warning(f"{start} is left aside: the table is not selected, and no row is moved")
                results += self._looked(state)
            for part, value in self._kept(state).items():
                results.append(dg.MaterializeResult(asset_key=self._specs[part].key, value=value))
            return results

    def _moved(self, state: StateStore, start: Start, cancel: CancelToken) -> dg.MaterializeResult[Any]:
        known = state.latest_checkpoint(self._pipeline.name, self._stream.name)
        result = self._move(state, start, cancel)
        self._drift = result.schema_changes
        # Another run's, where this one only completed what that had left.
        self._moved_run = result.checkpoint.run_id
        return dg.MaterializeResult(
            asset_key=self._specs["table"].key,
            metadata=self._table_metadata(result, start, self._committed(state, known)),
            check_results=[*self._drift_results(), *self._dead_letter_results(state, result.checkpoint.run_id)],
        )

    def _looked(self, state: StateStore) -> list[dg.AssetCheckResult]:
        """What the selected checks say where no row is moved."""
        from rapidbyte_dagster.engine import compare_stream

        results: list[dg.AssetCheckResult] = []
        if DRIFT_CHECK in self._checked:
            self._drift = compare_stream(self._pipeline, self._stream, state=state)
            results += self._drift_results(before_run=True)
        if (table := self._checked.get(DEAD_LETTER_CHECK)) is not None:
            waiting = state.dead_letter_counts(self._pipeline.name, self._stream.name).waiting
            last = last_figures(state, self._pipeline, self._stream)
            results.append(dead_letter_look_result(table, self._limits, last, waiting))
        return results

    def _results_of_failure(self, error: RapidbyteError) -> list[dg.AssetCheckResult]:
        """What the checks say of a run that has failed, where it has something to say of them."""
        from rapidbyte_dagster.state import open_state

        results: list[dg.AssetCheckResult] = []
        if error.kind is Kind.SCHEMA and any(change.action.severity == "error" for change in self._drift):
            # The policy says fail: the check says so too, and with everything that was found.
            results += self._drift_results()
        if "table" in self._specs and DEAD_LETTER_CHECK in self._checked and not isinstance(error, StateError):
            # What it had committed by then stays, and no later run counts it again. The error matters more.
            with suppress(RapidbyteError), open_state(self._pipeline, os.environ) as state:
                results += self._dead_letter_results(state, self._context.run.run_id)
        return results

    def _drift_results(self, *, before_run: bool = False) -> list[dg.AssetCheckResult]:
        """What the check says of the last report; nothing where it is not selected."""
        if DRIFT_CHECK not in self._checked:
            return []
        policy = self._pipeline.destination.schema_evolution
        return [drift_check_result(self._checked[DRIFT_CHECK], self._drift, policy, before_run=before_run)]

    def _dead_letter_results(self, state: StateStore, run_id: str) -> list[dg.AssetCheckResult]:
        """What the check says of what `run_id` has committed; nothing where it is not selected, or that is nothing."""
        if DEAD_LETTER_CHECK not in self._checked:
            return []
        run = figures_of(state, self._pipeline, self._stream, run_id)
        return [dead_letter_check_result(self._checked[DEAD_LETTER_CHECK], self._limits, run)] if run else []

    @property
    def _limits(self) -> DeadLetterLimits:
        return self._pipeline.dead_letter_limits(self._stream)

    def _note_drift(self, changes: tuple[SchemaChange, ...]) -> None:
        self._drift = changes

    def _move(self, state: StateStore, start: Start, cancel: CancelToken) -> StreamResult:
        from rapidbyte_dagster.engine import Start, run_stream

        log = RunLog(self._context.log, self._interval)
        if start is not Start.RESUME:
            mode = start.write_mode(self._pipeline.write_mode(self._stream))
            self._context.log.info(f"{start}: {self._stream.name} is read from the beginning, with write mode {mode}")
        try:
            result = run_stream(
                self._pipeline,
                self._stream,
                state=state,
                run_id=self._context.run.run_id,
                start=start,
                repeats=repeated_runs(self._context),
                on_progress=log.progress,
                on_log=log.say,
                on_drift=self._note_drift,
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

    def _committed(self, state: StateStore, known: Checkpoint | None) -> int:
        """How many checkpoints the step has committed, beyond the one that was known before."""
        after = known.sequence if known else 0
        run_id = self._context.run.run_id
        return state.committed(self._pipeline.name, self._stream.name, run_id, after=after).checkpoints

    def _table_metadata(self, result: StreamResult, start: Start, committed: int) -> Mapping[str, Any]:
        spec = self._specs["table"]
        sources = [dep.asset_key for dep in spec.deps]
        metadata = table_metadata(
            result,
            source=sources[0] if len(sources) == 1 and self._keeps_columns else None,
            replaced=start.write_mode(self._pipeline.write_mode(self._stream)) is WriteMode.REPLACE,
            start=start,
            checkpoints=committed,
        )
        for name in ("dagster/table_name", "dagster/storage_kind"):
            if name in spec.metadata:
                metadata[name] = spec.metadata[name]
        return metadata

    @property
    def _keeps_columns(self) -> bool:
        """Whether each of the table's columns surely comes from the source's column of its name."""
        return all(each.use in _KEEPING_COLUMNS for _, each in self._pipeline.transforms_of(self._stream))

    def _kept(self, state: StateStore) -> dict[AssetPart, Any]:
        """The values of the selected kept assets, each as the state store holds it now."""
        pipeline, stream = self._pipeline.name, self._stream.name
        values: dict[AssetPart, Any] = {}
        if "checkpoint" in self._specs:
            values["checkpoint"] = state.latest_checkpoint(pipeline, stream)
        if "schema" in self._specs:
            schema = state.schema_state(pipeline, stream)
            values["schema"] = schema if schema.current else None
        if "dlq" in self._specs:
            values["dlq"] = DeadLetters(self._pipeline, self._stream, self._moved_run)
        for part, value in values.items():
            if value is None:
                raise StateError(
                    f"the state store has no {part} of this stream yet: it never ran here",
                    stream=stream,
                    hint="materialise the stream's table first",
                )
        return values
