"""Where one stream stands, by its state store and by its destination: gathered, and told as text or JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import click

from rapidbyte_dagster.config import Pipeline, Stream, SyncMode
from rapidbyte_dagster.engine import read_watermark
from rapidbyte_dagster.errors import RapidbyteError
from rapidbyte_dagster.state import (
    Checkpoint,
    RunRecord,
    SchemaChange,
    SchemaEvent,
    StateStore,
    Watermark,
    cursor_text,
)

RUNS_SHOWN = 5
HISTORY_SHOWN = 100
SCHEMA_EVENTS_SHOWN = 3

MOVES = ("reset", "rewound")
"""How runs ended that only moved the cursor."""

_LABEL_WIDTH = 13


@dataclass(frozen=True)
class Standing:
    """`watermark` is what the destination says; when it could not be asked, `unreachable` says why."""

    pipeline: Pipeline
    stream: Stream
    checkpoint: Checkpoint | None
    prepared: Checkpoint | None
    watermark: Watermark | None
    unreachable: RapidbyteError | None
    runs: Sequence[RunRecord]
    history: Sequence[Checkpoint] | None
    """The newest checkpoints, when they were asked for."""
    schema_events: Sequence[SchemaEvent] = ()
    """The newest, newest first."""
    moved_by_hand: frozenset[str] = frozenset()
    """Those runs that only moved the cursor."""

    @classmethod
    def of(cls, pipeline: Pipeline, stream: Stream, state: StateStore, *, history: bool) -> Standing:
        """Asks both sides, and changes neither. Raises `StateError`."""
        names = (pipeline.name, stream.name)
        checkpoints = state.checkpoints(*names, limit=HISTORY_SHOWN) if history else None
        runs = state.runs(*names, limit=HISTORY_SHOWN)
        try:
            watermark, unreachable = read_watermark(pipeline, stream, environ=os.environ), None
        except RapidbyteError as error:
            watermark, unreachable = None, error
        return cls(
            pipeline=pipeline,
            stream=stream,
            # Behind the watermark: a run that commits in between makes them differ in the direction that is harmless.
            checkpoint=state.latest_checkpoint(*names),
            prepared=state.prepared_checkpoint(*names),
            watermark=watermark,
            unreachable=unreachable,
            runs=runs[:RUNS_SHOWN],
            history=checkpoints,
            schema_events=tuple(reversed(state.schema_state(*names).history))[:SCHEMA_EVENTS_SHOWN],
            moved_by_hand=frozenset(run.run_id for run in runs if run.status in MOVES),
        )

    @property
    def relation(self) -> str:
        """How the destination's last commit lies to the state store's last checkpoint."""
        if self.unreachable is not None:
            return "unreachable"
        there, here = self.watermark, self.checkpoint
        if there is None:
            return "never" if here is None else "missing"
        if here is None or there.sequence > here.sequence:
            return "ahead"
        if there.sequence < here.sequence:
            return "behind"
        return "same" if there.run_id in (None, here.run_id) else "other_run"

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "stream": self.stream.name,
            "sync_mode": str(self.stream.sync_mode),
            "write_mode": str(self.pipeline.write_mode(self.stream)),
            "checkpoint": _checkpoint_json(self.checkpoint),
            "prepared": _checkpoint_json(self.prepared),
            "destination": {
                "relation": self.relation,
                "watermark": self.watermark.model_dump(mode="json") if self.watermark else None,
                "error": str(self.unreachable) if self.unreachable else None,
            },
            "runs": [run.model_dump(mode="json", exclude={"pipeline", "stream"}) for run in self.runs],
            "schema_events": [event.model_dump(mode="json") for event in self.schema_events],
        }
        if self.history is not None:
            told["history"] = [_checkpoint_json(checkpoint) for checkpoint in self.history]
        return told

    def lines(self) -> Iterator[str]:
        """For a terminal: one line per fact, the differences in colour."""
        mode = f"{self.stream.sync_mode}, {self.pipeline.write_mode(self.stream)}"
        yield f"{click.style(self.stream.name, bold=True)} ({mode})"
        here = self.checkpoint
        if here is None:
            yield _fact("checkpoint", "none: the state store has not seen the stream commit")
        else:
            yield _fact(
                "checkpoint", f"{here.sequence}, {_when(here.committed_at)}, {self._rows(here)}, run {here.run_id}"
            )
            if here.cursor is not None or self.stream.sync_mode is SyncMode.INCREMENTAL:
                yield _fact("cursor", cursor_text(here.cursor))
        if self.prepared is not None:
            yield _fact("prepared", self._about_prepared(self.prepared), "yellow")
        yield _fact("destination", self._about_destination(), None if self.relation in ("same", "never") else "yellow")
        if self.watermark is not None and self.relation not in ("same", "unreachable"):
            yield _fact("", f"cursor there: {cursor_text(self.watermark.cursor)}")
        yield from self._table("runs", [self._run_cells(run) for run in self.runs])
        if self.schema_events:
            cells = [self._change_cells(event, change) for event in self.schema_events for change in event.changes]
            yield from self._table("schema", cells)
        if self.history is not None:
            yield from self._table("history", [self._history_cells(checkpoint) for checkpoint in self.history])
            if len(self.history) == HISTORY_SHOWN:
                yield _fact("", "older checkpoints are left out")

    def _about_prepared(self, prepared: Checkpoint) -> str:
        by = f"{prepared.sequence} by run {prepared.run_id}, {_when(prepared.committed_at)}: "
        there = self.watermark
        if there is not None and there.sequence >= prepared.sequence:
            if there.run_id not in (None, prepared.run_id):
                known = (
                    "it was not committed" if there.sequence == prepared.sequence else "another run has committed since"
                )
                return f"{by}{known}; the next run discards it"
            return by + "it was committed; the next run finalises it"
        if self.unreachable is not None:
            return by + "the destination knows whether it was committed"
        return by + "that run is still at work, or was interrupted before it committed"

    def _about_destination(self) -> str:
        there, here = self.watermark, self.checkpoint
        if self.unreachable is not None:
            info = self.unreachable.info
            return "could not be asked: " + info.message + (f" (SQLSTATE {info.sqlstate})" if info.sqlstate else "")
        if there is None:
            if here is None:
                return "knows nothing of the stream"
            return f"behind: knows nothing of the stream, while the state store is at checkpoint {here.sequence}"
        end = "" if there.final or there.run_id in self.moved_by_hand else ", which did not end its run"
        if self.relation == "same":
            return f"at the same checkpoint{end}"
        if self.relation == "ahead":
            known = "has none" if here is None else f"is at {here.sequence}"
            return f"ahead: at checkpoint {there.sequence}{end}; the state store {known}, the next run follows"
        assert here is not None
        if self.relation == "behind":
            return (
                f"behind: at checkpoint {there.sequence}{end}, as if it was restored from an earlier state; the state"
                f" store is at {here.sequence}, the next run goes on from the destination's"
            )
        return (
            f"differs: its checkpoint {there.sequence} is of run {there.run_id}, which kept its state elsewhere; the"
            " next run follows the destination"
        )

    def _run_cells(self, run: RunRecord) -> list[str]:
        rows = f"{run.rows:,} rows"
        moved = "" if run.status in MOVES else f"{rows} of dead letters" if run.kind == "replay" else rows
        attempts = f"{run.attempts} attempts" if run.attempts > 1 else ""
        error = run.error.splitlines()[0] if run.error else ""
        return [_when(run.started_at), run.status, moved, run.run_id, attempts, error]

    def _change_cells(self, event: SchemaEvent, change: SchemaChange) -> list[str]:
        return [_when(event.at), f"checkpoint {event.sequence}", " ".join(change.message.split())]

    def _history_cells(self, checkpoint: Checkpoint) -> list[str]:
        return [
            str(checkpoint.sequence),
            _when(checkpoint.committed_at),
            self._rows(checkpoint),
            checkpoint.run_id,
            cursor_text(checkpoint.cursor),
        ]

    def _rows(self, checkpoint: Checkpoint) -> str:
        if checkpoint.run_id in self.moved_by_hand:
            return "moved by hand"
        return f"{checkpoint.rows:,} rows{' of dead letters' if checkpoint.beneath is not None else ''}"

    def _table(self, label: str, rows: list[list[str]]) -> Iterator[str]:
        if not rows:
            yield _fact(label, "none")
            return
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for number, row in enumerate(rows):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width]
            yield _fact("" if number else label, "  ".join(cells).rstrip())


def _fact(label: str, text: str, colour: str | None = None) -> str:
    return f"  {label:<{_LABEL_WIDTH}}{click.style(text, fg=colour) if colour else text}"


def _when(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _checkpoint_json(checkpoint: Checkpoint | None) -> dict[str, Any] | None:
    return checkpoint.model_dump(mode="json", exclude={"pipeline", "stream"}) if checkpoint else None
