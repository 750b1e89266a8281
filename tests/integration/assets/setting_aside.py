"""Real Dagster runs of a stream whose connectors, of a few lines each, set rows aside and move nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from rapidbyte_dagster import Pipeline, build_pipeline_assets, default_resources
from rapidbyte_dagster.state import StateStore, open_state
from rapidbyte_dagster.state.sql import Execute, SqlStateStore
from tests.integration.engine.written_destination import TAKE, WrittenDestination, a_letter, commit
from tests.integration.engine.written_source import FINAL, WrittenSource, a_batch, a_schema
from tests.pipelines import make_pipeline

ROWS = 100
"""Of every run; all of them reach its first commit."""

TABLE = "shop/users"
KEPT = [f"{TABLE}/dlq"]
ALL = [TABLE, f"{TABLE}/checkpoint", *KEPT]


@dataclass
class Stream:
    """`shop/users`, an incremental stream of 100 rows a run, run after run."""

    folder: Path
    on_data_error: str = "dlq"
    limits: Mapping[str, Any] = field(default_factory=dict)
    """`dead_letters` of the destination."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the stream."""
    resources: Mapping[str, Any] = field(default_factory=default_resources)
    committed: int = 0
    """The number of the last checkpoint."""

    def pipeline(self, destination: WrittenDestination | None = None, source: WrittenSource | None = None) -> Pipeline:
        messages = [a_schema(), a_batch(*range(ROWS))]
        barriers = [{"cursor": 1, "final": False}, FINAL]
        source = source or WrittenSource(messages, barriers)
        destination_section: dict[str, Any] = {
            "use": (destination or WrittenDestination()).write(self.folder),
            "on_data_error": self.on_data_error,
        }
        if self.limits:
            destination_section["dead_letters"] = dict(self.limits)
        return make_pipeline(
            self.folder,
            {},
            {},
            [{"name": "users", "sync_mode": "incremental", "cursor_field": "id", **self.options}],
            source_section={"use": source.write(self.folder)},
            destination_section=destination_section,
            resources={"checkpoint_interval_rows": 1, "max_retries": 0},
        )

    def run(
        self,
        letters: Sequence[Mapping[str, Any]] = (),
        *more: dg.AssetsDefinition,
        selection: Any = (TABLE, *KEPT),
        rejected: int | None = None,
        failure: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dg.ExecuteInProcessResult:
        """A run whose destination sets `letters` aside, or only counts as `rejected`; it fails with `failure` after its
        first commit."""
        first, last = self.committed + 1, self.committed + 2
        steps: list[tuple[str, Any]] = [TAKE, TAKE, TAKE]
        if letters:
            steps.append(("emit_dlq_batch", {"letters": list(letters)}))
        steps += commit(first, ROWS, len(letters) if rejected is None else rejected)
        if failure is None:
            steps += [TAKE, *commit(last, 0), TAKE]
        pipeline = self.pipeline(WrittenDestination(steps, failure=failure))
        self.committed = first if failure else last
        return self.execute(pipeline, selection, *more, **options)

    def look(self, selection: Any, *more: dg.AssetsDefinition, **options: Any) -> dg.ExecuteInProcessResult:
        """A run that moves nothing."""
        return self.execute(self.pipeline(), selection, *more, **options)

    def execute(
        self, pipeline: Pipeline, selection: Any, *more: dg.AssetsDefinition, **options: Any
    ) -> dg.ExecuteInProcessResult:
        chosen = selection if isinstance(selection, dg.AssetSelection) else list(selection)
        return dg.materialize(
            [*build_pipeline_assets(pipeline), *more],
            selection=chosen,
            resources=dict(self.resources),
            raise_on_error=False,
            **options,
        )

    def state(self) -> StateStore:
        return open_state(self.pipeline(), {})


def refused(*categories: str, message: str = "no") -> list[dict[str, Any]]:
    """One letter of each category."""
    return [a_letter(f"{message} {number}", category=category) for number, category in enumerate(categories, start=1)]


def replayed(stream: Stream, run_id: str, *ids: int) -> None:
    """Marks dead letters in the state store, by their numbers, as replayed."""

    def mark(execute: Execute) -> None:
        for number in ids:
            execute(
                "UPDATE _rapidbyte_dlq SET replayed_by_run = ?, replayed_sequence = checkpoint_sequence WHERE id = ?",
                (run_id, number),
            )

    with stream.state() as state:
        assert isinstance(state, SqlStateStore)
        state._write("shop", "users", mark)
