"""One large table, replaced in one piece and in several that are read and written side by side."""

from __future__ import annotations

from benchmarks import by_hand, events
from benchmarks.engine import engine
from benchmarks.scenario import Limits, Scenario
from benchmarks.way import Way

COUNTS = (1, 2, 4)


def _shards(count: int) -> Way:
    return engine(
        f"shards-{count}",
        "rapidbyte replace, " + ("one piece" if count == 1 else f"{count} shards"),
        write_mode="replace",
        before="absent",
        stream={"sync_mode": "full_refresh", "shards": count},
        # The same for all: it is the shards that are compared.
        resources={"parallelism": max(COUNTS)},
    )


SHARDS = Scenario(
    name="shards",
    title="full refresh of a large table in shards",
    ways=(Way("psql", "psql | psql, COPY binary", by_hand.copy, "empty"), *(_shards(count) for count in COUNTS)),
    baseline="shards-1",
    baseline_title="one piece",
    limits=Limits(),
    first=events.seed,
    rows=10_000_000,
    by_default=False,
)
