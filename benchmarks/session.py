"""The rounds of one scenario: every way in turn, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import events
from benchmarks.destination import Destination
from benchmarks.measured import CommandFailed
from benchmarks.scenario import Connection, Scenario
from benchmarks.way import DESTINATION, SOURCE, Told, Way
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

SETTINGS = {
    "shared_buffers": "1GB",
    "wal_level": "replica",
    # No checkpoint may fall into one run and not into the next; there is one before each.
    "max_wal_size": "16GB",
    "min_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Figures:
    """One run of one way."""

    seconds: float
    """From connections open to commit where the way tells it, else of the whole process."""
    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    content_equal: bool | None
    """None: it only reads."""


@dataclass
class Series:
    """All counted runs of one way."""

    way: Way
    runs: list[Figures] = field(default_factory=list)
    failure: str | None = None
    """The command failed, moved other rows than it should, or left something else than the source's rows."""

    def median(self, figure: str) -> float:
        return median(float(getattr(run, figure)) for run in self.runs)


@contextmanager
def started_server(scenario: Scenario | None = None) -> Iterator[EmbeddedPostgres]:
    """A server, fsync on, with the empty databases `source` and `destination`, for any scenario or for this one."""
    with EmbeddedPostgres(settings={**SETTINGS, **(scenario.settings if scenario else {})}) as server:
        for database in (SOURCE, DESTINATION):
            server.create_database(database)
        yield server


def run_rounds(
    server: EmbeddedPostgres,
    scenario: Scenario,
    ways: Iterable[Way],
    *,
    rows: int,
    rounds: int,
    primary_key: bool,
    say: Say,
) -> list[Series]:
    """One round that does not count, then `rounds` that do."""
    ways = list(ways)
    series = [Series(way) for way in ways]
    with (
        tempfile.TemporaryDirectory(prefix="rapidbyte-bench-") as folder,
        server.connect(SOURCE, user=USER) as source,
    ):
        destination = Destination(server, Path(folder), primary_key=primary_key)
        events.create(source, events.NAME, primary_key=primary_key)
        scenario.first(source, rows)
        for one in series:
            with _failing(one, say):
                destination.keep(one.way)
        if scenario.then is not None:
            scenario.then(source, rows)
        wanted = {way.fits: _wanted(source, way, scenario.moved_rows(rows)) for way in ways}
        for number in range(rounds + 1):
            label = f"round {number}" if number else "warm-up"
            for one in series:
                if one.failure is None:
                    with _failing(one, say):
                        figures = _run_once(server, destination, scenario, one, wanted[one.way.fits])
                        say(f"{label:>8}  {figures.seconds:7.2f} s  {one.way.title}")
                        if number:
                            one.runs.append(figures)
    return series


@dataclass(frozen=True)
class _Wanted:
    content: tuple[int, str]
    moved_rows: int


def _wanted(source: Connection, way: Way, moved_rows: int) -> _Wanted:
    """`moved_rows` of the source's are moved, and those of them left out that do not fit."""
    content = events.content(source, "events", fits=way.fits)
    left_out = events.content(source, "events")[0] - content[0] if way.fits else 0
    return _Wanted(content, moved_rows - left_out)


@contextmanager
def _failing(series: Series, say: Say) -> Iterator[None]:
    try:
        yield
    except CommandFailed as failure:
        series.failure = str(failure)
    if series.failure is not None:
        say(f"{series.way.title}: {series.failure}")


def _run_once(
    server: EmbeddedPostgres, destination: Destination, scenario: Scenario, series: Series, wanted: _Wanted
) -> Figures:
    way = series.way
    folder = destination.restore(way)
    measured = destination.run(way, folder)
    told = None if way.told is None else way.told(measured.output)
    with server.connect(DESTINATION, user=USER) as connection:
        found = events.content(connection, *scenario.arrives)
    series.failure = _difference(found, told, wanted)
    return Figures(
        seconds=told.seconds if told is not None and told.seconds is not None else measured.wall_seconds,
        wall_seconds=measured.wall_seconds,
        cpu_seconds=measured.cpu_seconds,
        peak_rss_bytes=measured.peak_rss_bytes,
        content_equal=found == wanted.content,
    )


def _difference(found: tuple[int, str], told: Told | None, wanted: _Wanted) -> str | None:
    if found != wanted.content:
        return f"the content differs from the source's ({found[0]:,} rows, {wanted.content[0]:,} at the source)"
    if told is not None and told.rows != wanted.moved_rows:
        return f"it moved {told.rows:,} rows, and not {wanted.moved_rows:,}"
    return None
