"""The rounds of one session: every way in turn, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import events
from benchmarks.measured import CommandFailed, Measured, measure
from benchmarks.ways import DESTINATION, SOURCE, Way
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

ROOT = Path(__file__).resolve().parents[1]
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
    content_equal: bool


@dataclass
class Series:
    """All counted runs of one way."""

    way: Way
    runs: list[Figures] = field(default_factory=list)
    failure: str | None = None
    """Why there are no runs: the command failed, or moved something else than the source's rows."""

    def median(self, figure: str) -> float:
        return median(float(getattr(run, figure)) for run in self.runs)


@contextmanager
def seeded_server(rows: int, *, primary_key: bool) -> Iterator[EmbeddedPostgres]:
    """A server, fsync on, with the table in the database `source` and an empty database `destination`."""
    with EmbeddedPostgres(settings=SETTINGS) as server:
        for database in (SOURCE, DESTINATION):
            server.create_database(database)
        with server.connect(SOURCE, user=USER) as connection:
            events.create(connection, events.NAME, primary_key=primary_key)
            events.seed(connection, rows)
        yield server


def run_rounds(
    server: EmbeddedPostgres, ways: Iterable[Way], *, rounds: int, primary_key: bool, say: Say
) -> list[Series]:
    """One round that does not count, then `rounds` that do."""
    with server.connect(SOURCE, user=USER) as connection:
        wanted = events.content(connection, "events")
    series = [Series(way) for way in ways]
    for number in range(rounds + 1):
        for one in series:
            if one.failure is not None:
                continue
            try:
                figures = _run_once(server, one.way, wanted, primary_key=primary_key)
            except CommandFailed as failure:
                one.failure = str(failure)
                say(f"{one.way.title}: {failure}")
                continue
            label = f"round {number}" if number else "warm-up"
            say(f"{label:>8}  {figures.seconds:7.2f} s  {one.way.title}")
            if number:
                one.runs.append(figures)
            if not figures.content_equal:
                one.failure = "the content differs from the source's"
                say(f"{one.way.title}: {one.failure}")
    return series


def _run_once(server: EmbeddedPostgres, way: Way, wanted: tuple[int, str], *, primary_key: bool) -> Figures:
    _prepare(server, way, primary_key=primary_key)
    with tempfile.TemporaryDirectory(prefix="rapidbyte-bench-") as name:
        folder = Path(name)
        command = way.command(server, folder)
        measured = measure(command, environment={**way.environment, "PYTHONPATH": str(ROOT)}, folder=folder)
    with server.connect(DESTINATION, user=USER) as connection:
        found = events.content(connection, "raw.events")
    return Figures(
        seconds=_seconds(way, measured),
        wall_seconds=measured.wall_seconds,
        cpu_seconds=measured.cpu_seconds,
        peak_rss_bytes=measured.peak_rss_bytes,
        content_equal=found == wanted,
    )


def _seconds(way: Way, measured: Measured) -> float:
    return measured.wall_seconds if way.engine_seconds is None else way.engine_seconds(measured.output)


def _prepare(server: EmbeddedPostgres, way: Way, *, primary_key: bool) -> None:
    with server.connect(DESTINATION, user=USER) as connection:
        if way.target != "filled" or connection.execute("select to_regclass('raw.events')").fetchone() == (None,):
            connection.execute("drop schema if exists raw cascade")
            connection.execute("create schema raw")
        if way.target == "empty":
            events.create(connection, "raw.events", primary_key=primary_key)
    with server.connect(DESTINATION) as connection:
        connection.execute("checkpoint")
