"""A load whose rows go through a SELECT that keeps all of them, beside the same load without a transform."""

from __future__ import annotations

from benchmarks import events
from benchmarks.engine import FULL_REFRESH, engine
from benchmarks.scenario import Limits, Scenario
from benchmarks.way import Way

FILTERED = "SELECT * FROM stream WHERE score >= 0 AND title LIKE 'event%'"
COMPUTED = "SELECT * REPLACE (kind + 0 AS kind, lower(remark) AS remark) FROM stream"


def _append(name: str, title: str, query: str | None) -> Way:
    transforms = [{"use": "transform-sql", "config": {"query": query}}] if query is not None else []
    # In one piece, as every stream with transforms.
    stream = {**FULL_REFRESH, "shards": 1}
    return engine(name, title, write_mode="append", before="empty", stream=stream, transforms=transforms)


SQL = Scenario(
    name="sql",
    title="append through transform-sql",
    ways=(
        _append("clean", "no transform", None),
        _append("filtered", "two conditions that all rows meet", FILTERED),
        _append("computed", "two columns computed, ten as they are", COMPUTED),
    ),
    baseline="clean",
    baseline_title="no transform",
    limits=Limits(ratio=1.25, peak_rss_mb=400),
    first=events.seed,
    by_default=False,
)
