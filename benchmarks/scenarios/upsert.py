"""Every row onto the same table of before, with every second row changed since."""

from __future__ import annotations

from benchmarks import by_hand, events, peers
from benchmarks.engine import engine
from benchmarks.scenario import Connection, Limits, Scenario
from benchmarks.way import Way


def _change(connection: Connection, rows: int) -> None:
    events.change_every_second(connection)


UPSERT = Scenario(
    name="upsert",
    title="upsert, every second row changed",
    ways=(
        Way("psql", "by hand: COPY + ON CONFLICT DO UPDATE", by_hand.upsert, "copied"),
        engine("upsert", "rapidbyte upsert", write_mode="upsert", before="copied"),
        peers.dlt("dlt merge, connectorx backend", load="merge", before="continued"),
    ),
    baseline="psql",
    baseline_title="by hand",
    limits=Limits(ratio=0.9, peak_rss_mb=200),
    first=events.seed,
    then=_change,
    keyed=True,
)
