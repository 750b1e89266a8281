"""Medians, ratios and goals of a session: a table to read, a JSON file to keep."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.definitions import PIPELINES, STREAMS_EACH
from benchmarks.session import SETTINGS, Series
from benchmarks.ways import APPEND, LIMIT, REPLACE, REPLACE_AGAIN

MEGABYTE = 1024 * 1024
PACKAGES = ("rapidbyte-dagster", "dagster", "wasmtime", "pyarrow", "adbc-driver-postgresql", "dlt", "connectorx")
ENGINE = (APPEND, REPLACE, REPLACE_AGAIN)

RATIO_GOAL = 1.15
RSS_GOAL_MB = 200
CPU_GOAL_SECONDS = 0.8
"""Per million rows."""
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
class Session:
    """What was run and what came of it."""

    rows: int
    rounds: int
    primary_key: bool
    server: str
    series: list[Series]
    definitions_seconds: list[float]

    def ratio(self, series: Series) -> float | None:
        """Of the series' median to that of the psql pipe."""
        limit = next((one for one in self.series if one.way.name == LIMIT and one.runs), None)
        return series.median("seconds") / limit.median("seconds") if limit and series.runs else None

    def goals(self) -> Iterator[Goal]:
        for one in self.series:
            if one.way.name not in ENGINE or not one.runs:
                continue
            ratio = self.ratio(one)
            if ratio is not None:
                yield Goal(f"{one.way.title}: time", RATIO_GOAL, ratio, "× the pipe")
            yield Goal(f"{one.way.title}: peak RSS", RSS_GOAL_MB, one.median("peak_rss_bytes") / MEGABYTE, "MB")
            cpu = one.median("cpu_seconds") / self.rows * 1e6
            yield Goal(f"{one.way.title}: CPU of the process", CPU_GOAL_SECONDS, cpu, "s per M rows")
        if self.definitions_seconds:
            yield Goal(
                f"loading {PIPELINES} pipelines of {STREAMS_EACH} streams",
                LOAD_GOAL_SECONDS,
                median(self.definitions_seconds),
                "s",
            )


def show(session: Session, console: Console) -> None:
    key = "with a primary key" if session.primary_key else "no primary key"
    table = Table(
        title=f"{session.rows:,} rows × 12 columns, {key}, median of {session.rounds} rounds", title_justify="left"
    )
    for name in ("way", "seconds", "range", "ratio", "process", "CPU s", "RSS MB", "content"):
        table.add_column(name, justify="left" if name in ("way", "content") else "right", no_wrap=name != "way")
    for one in session.series:
        if not one.runs:
            table.add_row(one.way.title, "[red]failed[/red]")
            continue
        seconds = [run.seconds for run in one.runs]
        ratio = session.ratio(one)
        table.add_row(
            one.way.title,
            f"{median(seconds):.2f}",
            f"{min(seconds):.2f}–{max(seconds):.2f}",
            f"{ratio:.2f}" if ratio is not None else "",
            f"{one.median('wall_seconds'):.2f}",
            f"{one.median('cpu_seconds'):.2f}",
            f"{one.median('peak_rss_bytes') / MEGABYTE:.0f}",
            "[red]differs[/red]" if one.failure else "equal",
        )
    console.print(table)
    for goal in session.goals():
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
        "rows": session.rows,
        "rounds": session.rounds,
        "primary_key": session.primary_key,
        "ways": [
            {
                "name": one.way.name,
                "title": one.way.title,
                "ratio": session.ratio(one),
                "failed": one.failure is not None,
                "runs": [asdict(run) for run in one.runs],
            }
            for one in session.series
        ],
        "definitions_seconds": session.definitions_seconds,
        "goals": [{**asdict(goal), "reached": goal.reached} for goal in session.goals()],
    }


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
