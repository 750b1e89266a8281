"""What a step tells Dagster of one stream: its selected assets and checks, after a move, a look, or a failure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
from rapidbyte_dagster.assets.metadata import table_metadata
from rapidbyte_dagster.config import Pipeline, Stream
from rapidbyte_dagster.errors import Kind, RapidbyteError, StateError, UsageError

if TYPE_CHECKING:
    from rapidbyte_dagster.config import DeadLetterLimits
    from rapidbyte_dagster.engine import Start, StreamResult
    from rapidbyte_dagster.state import Checkpoint, SchemaChange, StateStore

StepResult = dg.MaterializeResult[Any] | dg.AssetCheckResult
"""An asset's materialisation, with the table's checks; a check alone where the table is not materialised."""

_KEEPING_COLUMNS = ("transform-validate", "transform-mask")
"""Transforms whose columns are those that they are given."""

_CHECKS = (DRIFT_CHECK, DEAD_LETTER_CHECK)


class StreamReport:
    """The part of a step that is about one stream, as the op's context knows it.

    `specs` are the selected assets, `checked` names the table by each of its checks that is selected.
    """

    def __init__(self, context: dg.AssetExecutionContext, binding: StreamBinding) -> None:
        self.pipeline: Pipeline = binding.pipeline
        self.stream: Stream = binding.stream
        self.slot = binding.slot
        self.specs: dict[AssetPart, dg.AssetSpec] = {}
        self.checked: dict[str, dg.AssetKey] = {}
        self._context = context
        self._drift: Sequence[SchemaChange] = ()
        """The destination's last report; it comes from the destination's thread, and is read when that has ended."""
        self._known: Checkpoint | None = None
        self._moved_run: str | None = None
        """The run whose rows the step has moved, once it has."""

    @property
    def moves(self) -> bool:
        """Whether the table is selected. Without it no row is moved."""
        return "table" in self.specs

    def note_drift(self, changes: tuple[SchemaChange, ...]) -> None:
        self._drift = changes

    def before(self, state: StateStore) -> None:
        """Remembers what is committed before the stream runs."""
        self._known = state.latest_checkpoint(self.pipeline.name, self.stream.name)

    def moved(
        self, state: StateStore, result: StreamResult, start: Start, *, replaced: bool, more: Mapping[str, Any] = {}
    ) -> dg.MaterializeResult[Any]:
        """The table's materialisation by what `result` tells, with its selected checks and `more` metadata.

        `replaced`: the run's rows are all that the table has.
        """
        self._drift = result.schema_changes
        # Another run's, where this one only completed what that had left.
        self._moved_run = result.checkpoint.run_id
        return dg.MaterializeResult(
            asset_key=self.specs["table"].key,
            metadata={**self._table_metadata(state, result, start, replaced=replaced), **more},
            check_results=[*self._drift_results(), *self._dead_letter_results(state, result.checkpoint.run_id)],
        )

    def looked(self, state: StateStore) -> list[dg.AssetCheckResult]:
        """What the selected checks say where no row is moved."""
        from rapidbyte_dagster.engine import compare_stream

        results: list[dg.AssetCheckResult] = []
        if DRIFT_CHECK in self.checked:
            self._drift = compare_stream(self.pipeline, self.stream, state=state)
            results += self._drift_results(before_run=True)
        if (table := self.checked.get(DEAD_LETTER_CHECK)) is not None:
            waiting = state.dead_letter_counts(self.pipeline.name, self.stream.name).waiting
            last = last_figures(state, self.pipeline, self.stream)
            results.append(dead_letter_look_result(table, self._limits, last, waiting))
        return results

    def failed(self, error: RapidbyteError) -> list[dg.AssetCheckResult]:
        """What the checks say of a stream that has failed, where they have something to say of it."""
        from rapidbyte_dagster.state import open_state

        results: list[dg.AssetCheckResult] = []
        if error.kind is Kind.SCHEMA and any(change.action.severity == "error" for change in self._drift):
            # The policy says fail: the check says so too, and with everything that was found.
            results += self._drift_results()
        if self.moves and DEAD_LETTER_CHECK in self.checked and not isinstance(error, StateError):
            # What it had committed by then stays, and no later run counts it again. The error matters more.
            with suppress(RapidbyteError), open_state(self.pipeline, os.environ) as state:
                results += self._dead_letter_results(state, self._context.run.run_id)
        return results

    def kept(self, state: StateStore) -> list[dg.MaterializeResult[Any]]:
        """The values of the selected kept assets, each as the state store holds it now. Raises `StateError`."""
        return [
            dg.MaterializeResult(asset_key=self.specs[part].key, value=value)
            for part, value in self._kept(state).items()
        ]

    def _kept(self, state: StateStore) -> dict[AssetPart, Any]:
        pipeline, stream = self.pipeline.name, self.stream.name
        values: dict[AssetPart, Any] = {}
        if "checkpoint" in self.specs:
            values["checkpoint"] = state.latest_checkpoint(pipeline, stream)
        if "schema" in self.specs:
            schema = state.schema_state(pipeline, stream)
            values["schema"] = schema if schema.current else None
        if "dlq" in self.specs:
            values["dlq"] = DeadLetters(self.pipeline, self.stream, self._moved_run)
        for part, value in values.items():
            if value is None:
                raise StateError(
                    f"the state store has no {part} of this stream yet: it never ran here",
                    stream=stream,
                    hint="materialise the stream's table first",
                )
        return values

    def _drift_results(self, *, before_run: bool = False) -> list[dg.AssetCheckResult]:
        """What the check says of the last report; nothing where it is not selected."""
        if DRIFT_CHECK not in self.checked:
            return []
        policy = self.pipeline.destination.schema_evolution
        return [drift_check_result(self.checked[DRIFT_CHECK], self._drift, policy, before_run=before_run)]

    def _dead_letter_results(self, state: StateStore, run_id: str) -> list[dg.AssetCheckResult]:
        """What the check says of what `run_id` has committed; nothing where it is not selected, or that is nothing."""
        if DEAD_LETTER_CHECK not in self.checked:
            return []
        run = figures_of(state, self.pipeline, self.stream, run_id)
        return [dead_letter_check_result(self.checked[DEAD_LETTER_CHECK], self._limits, run)] if run else []

    @property
    def _limits(self) -> DeadLetterLimits:
        return self.pipeline.dead_letter_limits(self.stream)

    def _table_metadata(
        self, state: StateStore, result: StreamResult, start: Start, *, replaced: bool
    ) -> dict[str, Any]:
        spec = self.specs["table"]
        sources = [dep.asset_key for dep in spec.deps if dep.asset_key != self.slot]
        metadata = table_metadata(
            result,
            source=sources[0] if len(sources) == 1 and self._keeps_columns else None,
            replaced=replaced,
            start=start,
            checkpoints=self._committed(state),
        )
        for name in ("dagster/table_name", "dagster/storage_kind"):
            if name in spec.metadata:
                metadata[name] = spec.metadata[name]
        return metadata

    def _committed(self, state: StateStore) -> int:
        """How many checkpoints the step has committed, beyond the one that was known before."""
        after = self._known.sequence if self._known else 0
        run_id = self._context.run.run_id
        return state.committed(self.pipeline.name, self.stream.name, run_id, after=after).checkpoints

    @property
    def _keeps_columns(self) -> bool:
        """Whether each of the table's columns surely comes from the source's column of its name."""
        return all(each.use in _KEEPING_COLUMNS for _, each in self.pipeline.transforms_of(self.stream))


def reports_of(context: dg.AssetExecutionContext) -> list[StreamReport]:
    """One for each stream of which an asset or a check is selected, in the order of their assets.

    Raises `UsageError` for assets that no pipeline makes, or that make one part of a stream twice.
    """
    checks = [check for check in context.selected_asset_check_keys if check.name in _CHECKS]
    checked = {check.asset_key for check in checks}
    reports: dict[tuple[str, str], StreamReport] = {}
    parts: set[tuple[str, str, AssetPart]] = set()
    for spec in context.assets_def.specs:
        if spec.key not in context.selected_asset_keys and spec.key not in checked:
            continue
        binding = binding_of(spec.metadata, spec.key)
        names = (binding.pipeline.name, binding.stream.name)
        report = reports.setdefault(names, StreamReport(context, binding))
        if (*names, binding.part) in parts:
            raise UsageError("a step makes each asset of a stream once", hint="use @rapidbyte_stream_asset")
        parts.add((*names, binding.part))
        if spec.key in context.selected_asset_keys:
            report.specs[binding.part] = spec
        report.checked.update({check.name: spec.key for check in checks if check.asset_key == spec.key})
    return list(reports.values())
