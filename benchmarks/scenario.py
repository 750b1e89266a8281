"""What is compared in one table of the report: a task, and the ways to do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from typing_extensions import LiteralString

from benchmarks.way import Way

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Limits:
    """What this engine promises for its ways; None: nothing."""

    ratio: float | None = None
    """Of its time to the baseline's."""
    peak_rss_mb: float | None = None
    cpu_seconds_per_million_rows: float | None = None


def _all_rows(rows: int) -> int:
    return rows


@dataclass(frozen=True)
class Scenario:
    """One task. The functions get the number of rows that the source's table has in the end."""

    name: str
    title: str
    ways: tuple[Way, ...]
    baseline: str
    """The way that all times are divided by."""
    baseline_title: str
    """Of the unit of these ratios: `× the pipe`."""
    limits: Limits
    first: Callable[[Connection, int], None]
    """Fills the source's empty table with what is there at first."""
    then: Callable[[Connection, int], None] | None = None
    """What happens at the source before the runs that count, and after what they continue."""
    moved_rows: Callable[[int], int] = _all_rows
    """By one run that counts."""
    arrives: tuple[LiteralString, ...] = ("raw.events",)
    """The destination's tables, written as SQL, that hold the rows of `events` in the end."""
    rows: int = 1_000_000
    """Unless asked for otherwise."""
    by_default: bool = True
    """Whether it runs without being named."""
    rounds: Callable[..., Any] | None = None
    """What runs its ways, with the arguments of `run_rounds`; None: `run_rounds`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the server, beside those of all sessions."""
    unit: str = "rows × 12 columns"
    """Of `rows`."""
    keyed: bool = False
    """The table has a primary key at both ends, asked for or not."""
