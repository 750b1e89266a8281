"""Medians, ratios and goals of a session: a table of each scenario to read, a JSON file to keep."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.definitions import PIPELINES, STREAMS_EACH
from benchmarks.scenario import Scenario
from benchmarks.session import SETTINGS, Series

MEGABYTE = 1024 * 1024
PACKAGES = ("rapidbyte-dagster", "dagster", "wasmtime", "pyarrow", "adbc-driver-postgresql", "dlt", "connectorx")
LOAD_GOAL_SECONDS = 1.0


@dataclass(frozen=True)
class Goal:
    """One promise, and what was measured."""

    name: str
    limit: float
    measured: float
    unit: str

    @property
    def reached(self) -> bool:
        return self.measured <= self.limit


@dataclass(frozen=True)
class Outcome:
    """What came of one scenario."""

    scenario: Scenario
    rows: int
    """The source's table had in the end."""
    primary_key: bool
    series: list[Series]

    def ratio(self, series: Series) -> float | None:
        """Of the series' median to that of the baseline."""
        baseline = next((one for one in self.series if one.way.name == self.scenario.baseline and one.runs), None)
        return series.median("seconds") / baseline.median("seconds") if baseline and series.runs else None

    def goals(self) -> Iterator[Goal]:
        limits = self.scenario.limits
        for one in self.series:
            if not one.way.ours or not one.runs:
                continue
            ratio = self.ratio(one)
            if limits.ratio is not None and ratio is not None and one.way.name != self.scenario.baseline:
                yield Goal(f"{one.way.title}: time", limits.ratio, ratio, f"× {self.scenario.baseline_title}")
            if limits.peak_rss_mb is not None:
                peak = one.median("peak_rss_bytes") / MEGABYTE
                yield Goal(f"{one.way.title}: peak RSS", limits.peak_rss_mb, peak, "MB")
            if limits.cpu_seconds_per_million_rows is not None:
                cpu = one.median("cpu_seconds") / self.scenario.moved_rows(self.rows) * 1e6
                limit = limits.cpu_seconds_per_million_rows
                yield Goal(f"{one.way.title}: CPU of the process", limit, cpu, "s per M rows")


@dataclass(frozen=True)
class Session:
    """What was run and what came of it."""

    rounds: int
    server: str
    outcomes: list[Outcome]
    definitions_seconds: list[float]

    def goals(self) -> Iterator[Goal]:
        """Those of no scenario."""
        if self.definitions_seconds:
            yield Goal(
                f"loading {PIPELINES} pipelines of {STREAMS_EACH} streams",
                LOAD_GOAL_SECONDS,
                median(self.definitions_seconds),
                "s",
            )


def show(session: Session, console: Console) -> None:
    for outcome in session.outcomes:
        console.print(_table(outcome, session.rounds))
        show_goals(outcome.goals(), console)
    show_goals(session.goals(), console)


def _table(outcome: Outcome, rounds: int) -> Table:
    key = "with a primary key" if outcome.primary_key else "no primary key"
    title = f"{outcome.scenario.title}: {outcome.rows:,} {outcome.scenario.unit}, {key}, median of {rounds} rounds"
    table = Table(title=title, title_justify="left", caption=f"ratio: × {outcome.scenario.baseline_title}")
    for name in ("way", "seconds", "range", "ratio", "process", "CPU s", "RSS MB", "content"):
        table.add_column(name, justify="left" if name in ("way", "content") else "right", no_wrap=name != "way")
    for one in outcome.series:
        if not one.runs:
            table.add_row(one.way.title, "[red]failed[/red]")
            continue
        seconds = [run.seconds for run in one.runs]
        ratio = outcome.ratio(one)
        table.add_row(
            one.way.title,
            f"{median(seconds):.2f}",
            f"{min(seconds):.2f}–{max(seconds):.2f}",
            f"{ratio:.2f}" if ratio is not None else "",
            f"{one.median('wall_seconds'):.2f}",
            f"{one.median('cpu_seconds'):.2f}",
            f"{one.median('peak_rss_bytes') / MEGABYTE:.0f}",
            _verdict(one),
        )
    return table


def _verdict(series: Series) -> str:
    if any(run.content_equal is False for run in series.runs):
        return "[red]differs[/red]"
    if series.failure is not None:
        return "[red]failed[/red]"
    return "equal" if series.runs[0].content_equal else "not kept"


def show_goals(goals: Iterable[Goal], console: Console) -> None:
    for goal in goals:
        verdict = "[green]reached[/green]" if goal.reached else "[red]missed[/red]"
        console.print(f"{verdict:>8}  {goal.name}: {goal.measured:.2f} {goal.unit} (goal: at most {goal.limit:g})")


def as_json(session: Session, now: datetime) -> dict[str, Any]:
    return {
        "time": now.isoformat(timespec="seconds"),
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "python": platform.python_version(),
            "postgresql": session.server,
            "packages": dict(_versions()),
        },
        "settings": {**SETTINGS, "fsync": "on"},
        "rounds": session.rounds,
        "scenarios": [_outcome_as_json(outcome) for outcome in session.outcomes],
        "definitions_seconds": session.definitions_seconds,
        "goals": _goals_as_json(session.goals()),
    }


def _outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "scenario": outcome.scenario.name,
        "title": outcome.scenario.title,
        "rows": outcome.rows,
        "moved_rows": outcome.scenario.moved_rows(outcome.rows),
        "primary_key": outcome.primary_key,
        "baseline": outcome.scenario.baseline,
        "ways": [
            {
                "name": one.way.name,
                "title": one.way.title,
                "ratio": outcome.ratio(one),
                "failed": one.failure is not None,
                "runs": [asdict(run) for run in one.runs],
            }
            for one in outcome.series
        ],
        "goals": _goals_as_json(outcome.goals()),
    }


def _goals_as_json(goals: Iterable[Goal]) -> list[dict[str, Any]]:
    return [{**asdict(goal), "reached": goal.reached} for goal in goals]


def save(session: Session, folder: Path) -> Path:
    """Writes the session's JSON into `folder`; returns the file."""
    now = datetime.now(timezone.utc)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{now:%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps(as_json(session, now), indent=1) + "\n")
    return file


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
