"""Eight equal tables, one after the other and two at a time: of a server beside us, and of one that is far away."""

from __future__ import annotations

from typing import Any

from typing_extensions import LiteralString

from benchmarks import events
from benchmarks.engine import FULL_REFRESH, engine
from benchmarks.scenario import Connection, Limits, Scenario
from benchmarks.way import Way

TABLES: tuple[LiteralString, ...] = (
    "events_1",
    "events_2",
    "events_3",
    "events_4",
    "events_5",
    "events_6",
    "events_7",
    "events_8",
)
DELAY_SECONDS = 0.001
"""Of each call on a socket."""


def _deal(connection: Connection, rows: int) -> None:
    """The rows of `events`, one to each table in turn."""
    events.seed(connection, rows)
    for number, table in enumerate(TABLES):
        events.create(connection, table, primary_key=False)
        connection.execute(
            f"insert into {table} select * from events where id %% {len(TABLES)} = %s order by id", [number]
        )
        connection.execute(f"vacuum (freeze, analyze) {table}")


def _at_once(count: int, delay: float | None) -> Way:
    streams: list[dict[str, Any]] = [{"name": table, **FULL_REFRESH} for table in TABLES]
    return engine(
        f"parallelism-{count}",
        f"rapidbyte append, parallelism {count}",
        write_mode="append",
        before="absent",
        streams=streams,
        resources={"parallelism": count},
        delay_seconds=delay,
    )


def _scenario(name: str, title: str, *, delay: float | None, ratio: float) -> Scenario:
    return Scenario(
        name=name,
        title=title,
        ways=tuple(_at_once(count, delay) for count in (1, 2)),
        baseline="parallelism-1",
        baseline_title="one after the other",
        limits=Limits(ratio=ratio),
        first=_deal,
        arrives=tuple(f"raw.{table}" for table in TABLES),
        rows=2_000_000,
        by_default=False,
    )


PARALLEL = _scenario("parallel", "8 tables on the same machine", delay=None, ratio=1.05)
PARALLEL_DELAYED = _scenario(
    "parallel-delayed", "8 tables, 1 ms added to each socket call", delay=DELAY_SECONDS, ratio=0.75
)
