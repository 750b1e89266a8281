"""How many rows a run of a stream left out, from what its committed checkpoints say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rapidbyte_dagster.config import Pipeline, Stream

if TYPE_CHECKING:
    from rapidbyte_dagster.state import StateStore

# Runs that are looked through for the last one that committed something, newest first.
_RUNS_LOOKED_AT = 100

# Runs that moved a cursor and no row.
_MOVED_NO_ROW = ("reset", "rewound")


@dataclass(frozen=True)
class RunFigures:
    """What one run has committed of a stream, whether it ended well or not."""

    run_id: str
    started_at: datetime | None
    rows: int
    """Those that are in the table."""
    left_out: int
    """Those that are not, by destination and source."""
    dead_letters: int
    """Those of `left_out` that were kept; none where rows are only counted."""
    by_category: Mapping[str, int]
    """Dead letters of it that the state store holds now."""
    waiting: int
    """Those of them that a replay would still take."""

    @property
    def seen(self) -> int:
        return self.rows + self.left_out

    @property
    def outstanding(self) -> int:
        """Rows that were left out, and neither replayed, purged nor read anew since."""
        return self.left_out - self.dead_letters + self.waiting


def figures_of(state: StateStore, pipeline: Pipeline, stream: Stream, run_id: str) -> RunFigures | None:
    """What run `run_id` has committed, all of its attempts and steps together; None where that is nothing."""
    committed = state.committed(pipeline.name, stream.name, run_id)
    if not committed.checkpoints:
        return None
    letters = state.dead_letter_counts(pipeline.name, stream.name, run_id)
    run = state.run(run_id, pipeline.name, stream.name)
    return RunFigures(
        run_id=run_id,
        started_at=run.started_at if run else None,
        rows=committed.rows,
        left_out=committed.rejected,
        dead_letters=committed.dead_letters,
        by_category=letters.by_category,
        waiting=letters.waiting,
    )


def last_figures(state: StateStore, pipeline: Pipeline, stream: Stream) -> RunFigures | None:
    """Those of the newest run that has moved rows from the source; None where there was none."""
    for run in state.runs(pipeline.name, stream.name, limit=_RUNS_LOOKED_AT):
        # A replay is judged by what waits afterwards: its rows are those of other runs.
        if (
            run.kind == "run"
            and run.status not in _MOVED_NO_ROW
            and (found := figures_of(state, pipeline, stream, run.run_id))
        ):
            return found
    return None
