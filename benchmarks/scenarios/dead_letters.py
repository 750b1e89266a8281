"""A load some of whose rows the destination's table refuses, beside the same load into a table that takes them all.

Which rows are bad is a CHECK of the destination's table: the source's are the same for all, and all tables have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import LiteralString

from benchmarks import events
from benchmarks.engine import FULL_REFRESH, engine
from benchmarks.scenario import Limits, Scenario
from benchmarks.way import Way

CLEAN: LiteralString = "id > 0"
TEN_IN_A_MILLION: LiteralString = "id % 100000 <> 77777"
"""Far apart, each in a batch of its own."""
HALF: LiteralString = "id % 2 = 0"


def _load(name: str, title: str, write_mode: str, on_data_error: str, fits: LiteralString) -> Way:
    stream: Mapping[str, Any] = {**FULL_REFRESH, "shards": 1}
    if write_mode == "upsert":
        stream = {**stream, "primary_key": ["id"]}
    return engine(
        name,
        title,
        write_mode=write_mode,
        before="empty",
        stream=stream,
        on_data_error=on_data_error,
        keyed=write_mode == "upsert",
        fits=fits,
    )


def _few(write_mode: str, name: str) -> Scenario:
    return Scenario(
        name=name,
        title=f"{write_mode}, ten bad rows in a million",
        ways=(
            _load("fail", f"{write_mode}, clean, fail", write_mode, "fail", CLEAN),
            _load("clean", f"{write_mode}, clean, dlq", write_mode, "dlq", CLEAN),
            _load("bad", f"{write_mode}, ten bad rows, dlq", write_mode, "dlq", TEN_IN_A_MILLION),
            _load("skip", f"{write_mode}, ten bad rows, skip", write_mode, "skip", TEN_IN_A_MILLION),
        ),
        baseline="fail",
        baseline_title="clean, fail",
        limits=Limits(ratio=1.5, peak_rss_mb=200),
        first=events.seed,
        by_default=False,
    )


DEAD_LETTERS = _few("append", "dead-letters")
DEAD_LETTERS_REPLACE = _few("replace", "dead-letters-replace")
DEAD_LETTERS_UPSERT = _few("upsert", "dead-letters-upsert")

DEAD_LETTERS_HALF = Scenario(
    name="dead-letters-half",
    title="every second row bad",
    ways=(
        _load("clean", "append, clean, dlq", "append", "dlq", CLEAN),
        _load("append-skip", "append, half bad, skip", "append", "skip", HALF),
        _load("append", "append, half bad, dlq", "append", "dlq", HALF),
        _load("replace", "replace, half bad, dlq", "replace", "dlq", HALF),
        _load("upsert", "upsert, half bad, dlq", "upsert", "dlq", HALF),
    ),
    baseline="clean",
    baseline_title="clean, append",
    limits=Limits(peak_rss_mb=200),
    first=events.seed,
    rows=100_000,
    by_default=False,
)
