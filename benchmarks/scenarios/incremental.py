"""One row in ten is new, the others were copied before. The cursor is `id`, which the primary key's index orders."""

from __future__ import annotations

from benchmarks import by_hand, events, peers
from benchmarks.engine import engine
from benchmarks.scenario import Connection, Limits, Scenario
from benchmarks.way import Way

BY_ID = {"sync_mode": "incremental", "cursor_field": "id"}


def _new(rows: int) -> int:
    return max(1, rows // 10)


def _old_rows(connection: Connection, rows: int) -> None:
    events.seed(connection, rows - _new(rows))


def _new_rows(connection: Connection, rows: int) -> None:
    events.seed(connection, rows, after=rows - _new(rows))


INCREMENTAL = Scenario(
    name="incremental",
    title="incremental, every tenth row new",
    ways=(
        Way("psql", "by hand: psql | psql above max(id)", by_hand.copy_new, "copied"),
        engine("append", "rapidbyte incremental, append", write_mode="append", before="continued", stream=BY_ID),
        engine("upsert", "rapidbyte incremental, upsert", write_mode="upsert", before="continued", stream=BY_ID),
        peers.dlt("dlt incremental, append, connectorx", load="append-new", before="continued"),
    ),
    baseline="psql",
    baseline_title="by hand",
    limits=Limits(peak_rss_mb=200),
    first=_old_rows,
    then=_new_rows,
    moved_rows=_new,
    keyed=True,
)
