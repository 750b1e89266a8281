"""The rounds of a scenario of captured changes: the changes are made once, and everybody reads them again each time.

A slot goes forward only, but it can be copied: before each run the slot is a copy of one that was made before the
changes, and the destination a copy of the database that was there then.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from psycopg import sql
from typing_extensions import LiteralString

from benchmarks import by_hand
from benchmarks.capture import changes
from benchmarks.capture.ways import MARKS, PUBLICATION, SLOT, CaptureWay
from benchmarks.measured import CommandFailed, Measured, measure
from benchmarks.scenario import Connection, Scenario
from benchmarks.session import Figures, Say, Series
from benchmarks.way import DESTINATION, SOURCE, Way
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[[Connection, int], None]


def rounds_of(make: Make) -> Callable[..., list[Series]]:
    """`run_rounds` for scenarios whose changes `make` makes."""

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
        series = [Series(way) for way in ways if isinstance(way, CaptureWay)]
        with (
            tempfile.TemporaryDirectory(prefix="rapidbyte-bench-") as name,
            server.connect(SOURCE, user=USER) as source,
        ):
            course = Course(server, Path(name))
            changes.create(source, changes.NAME)
            changes.seed(source, rows)
            source.execute(sql.SQL("create publication {} for table changes").format(sql.Identifier(PUBLICATION)))
            for one in series:
                course.keep(one.way)
            course.begin(source)
            make(source, rows)
            course.end(source, rows)
            wanted = changes.content(source, changes.NAME)
            for number in range(rounds + 1):
                label = f"round {number}" if number else "warm-up"
                for one in series:
                    if one.failure is None:
                        figures = _run_once(course, one, wanted, rows)
                        told = "" if figures is None else f"{figures.seconds:7.2f} s"
                        say(f"{label:>8}  {told}  {one.way.title}  {one.failure or ''}")
                        if number and figures is not None:
                            one.runs.append(figures)
        return series

    return run_rounds


class Course:
    """The slot, the destination and the folders that each way finds."""

    def __init__(self, server: EmbeddedPostgres, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._marks: dict[str, object] = {}

    def keep(self, way: Way) -> None:
        """Makes what `way` is to find, before the changes. Raises CommandFailed."""
        assert isinstance(way, CaptureWay)
        self._recreate()
        folder = self._folder / way.name
        folder.mkdir()
        if way.begins:
            self._call(way, folder)
        else:
            self._as_superuser("select pg_create_logical_replication_slot({}, 'pgoutput')", values=[SLOT])
            with self._server.connect(DESTINATION, user=USER) as connection:
                changes.create(connection, changes.NAME)
            copied = [
                f"copy {changes.NAME} to stdout (format binary)",
                f"copy {changes.NAME} from stdin (format binary)",
            ]
            measure(by_hand.pipe(self._server, *copied), environment={}, folder=folder)
        with self._server.connect(DESTINATION) as connection:
            connection.execute("vacuum (freeze, analyze)")
        self._copy_slot(SLOT, _kept(way))
        self._as_superuser("alter database {} rename to {}", [DESTINATION, _kept(way)])
        folder.rename(self._folder / _kept(way))

    def begin(self, source: Connection) -> None:
        self._marks["start"] = _position(source)

    def end(self, source: Connection, rows: int) -> None:
        """All changes are made."""
        self._marks |= {"end": _position(source), "last_id": changes.last_id(rows)}

    def restore(self, way: CaptureWay) -> Path:
        """The slot and the destination are as they were before the changes, on disk; returns the way's folder."""
        folder = self._folder / way.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._folder / _kept(way), folder)
        (folder / MARKS).write_text(json.dumps(self._marks))
        self._copy_slot(_kept(way), SLOT)
        if way.arrives is not None:
            self._recreate(template=_kept(way))
        self._as_superuser("checkpoint")
        return folder

    def run(self, way: CaptureWay, folder: Path) -> Measured:
        """Raises CommandFailed."""
        try:
            return self._call(way, folder)
        finally:
            self._as_superuser(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = {}",
                values=[SLOT],
            )

    def found(self, way: CaptureWay) -> tuple[int, str] | None:
        if way.arrives is None:
            return None
        with self._server.connect(DESTINATION, user=USER) as connection:
            return changes.content(connection, way.arrives)

    def _call(self, way: CaptureWay, folder: Path) -> Measured:
        command = way.command(self._server, folder)
        return measure(command, environment={**way.environment, "PYTHONPATH": str(ROOT)}, folder=folder)

    def _copy_slot(self, name: str, copy: str) -> None:
        """The copy stands where the other one does; a slot that is in use afterwards is dropped."""
        self._as_superuser("select pg_copy_logical_replication_slot({}, {})", values=[name, copy])
        if name == SLOT:
            self._as_superuser("select pg_drop_replication_slot({})", values=[name])

    def _recreate(self, template: str = "template1") -> None:
        self._as_superuser("drop database if exists {} with (force)", [DESTINATION])
        self._as_superuser("create database {} owner {} template {} strategy file_copy", [DESTINATION, USER, template])

    def _as_superuser(self, statement: LiteralString, names: Iterable[str] = (), *, values: Iterable[str] = ()) -> None:
        parts = [*map(sql.Identifier, names), *map(sql.Literal, values)]
        with self._server.connect(SOURCE) as connection:
            connection.execute(sql.SQL(statement).format(*parts))


def _run_once(course: Course, series: Series, wanted: tuple[int, str], rows: int) -> Figures | None:
    """None: the command failed."""
    way = series.way
    assert isinstance(way, CaptureWay)
    try:
        measured = course.run(way, course.restore(way))
    except CommandFailed as failure:
        series.failure = str(failure)
        return None
    told = None if way.told is None else way.told(measured.output)
    found = course.found(way)
    if found is not None and found != wanted:
        series.failure = f"the content differs from the source's ({found[0]:,} rows, {wanted[0]:,} at the source)"
    if way.moves_rows and told is not None and told.rows != rows:
        series.failure = f"it moved {told.rows:,} changes, and not {rows:,}"
    return Figures(
        seconds=told.seconds if told is not None and told.seconds is not None else measured.wall_seconds,
        wall_seconds=measured.wall_seconds,
        cpu_seconds=measured.cpu_seconds,
        peak_rss_bytes=measured.peak_rss_bytes,
        content_equal=None if found is None else found == wanted,
    )


def _kept(way: Way) -> str:
    return f"kept_{way.name.replace('-', '_')}"


def _position(source: Connection) -> str:
    row = source.execute("select pg_current_wal_lsn()::text").fetchone()
    assert row is not None
    return str(row[0])
