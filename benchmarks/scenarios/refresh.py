"""The whole table, again each time. The pipe moves the bytes without looking into them: it is the limit."""

from __future__ import annotations

from benchmarks import by_hand, events, peers
from benchmarks.engine import engine
from benchmarks.scenario import Limits, Scenario
from benchmarks.way import Way

REFRESH = Scenario(
    name="refresh",
    title="full refresh",
    ways=(
        Way("psql", "psql | psql, COPY binary", by_hand.copy, "empty"),
        engine("append", "rapidbyte append", write_mode="append", before="absent"),
        engine("replace", "rapidbyte replace, first", write_mode="replace", before="absent"),
        engine("replace-again", "rapidbyte replace, again", write_mode="replace", before="left"),
        peers.adbc(),
        peers.dlt("dlt, connectorx backend", load="replace", before="absent"),
    ),
    baseline="psql",
    baseline_title="the pipe",
    limits=Limits(ratio=1.15, peak_rss_mb=200, cpu_seconds_per_million_rows=0.8),
    first=events.seed,
)
