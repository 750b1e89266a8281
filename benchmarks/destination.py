"""What a way finds before each of its runs: the database `destination`, and a folder.

Restoring is copying a whole database by its files: tables, indexes, watermarks, another tool's state and the
statistics are then what they were, and so is where the rows lie.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from psycopg import sql
from typing_extensions import LiteralString

from benchmarks import by_hand, events
from benchmarks.measured import Measured, measure
from benchmarks.way import DESTINATION, Way
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

ROOT = Path(__file__).resolve().parents[1]


class Destination:
    """The destination of one scenario; `folder` holds the folders of its ways."""

    def __init__(self, server: EmbeddedPostgres, folder: Path, *, primary_key: bool) -> None:
        self._server = server
        self._folder = folder
        self._primary_key = primary_key
        self._kept: set[str] = set()

    def keep(self, way: Way) -> None:
        """Makes what `way` is to find, where that is to be restored, from what the source holds now.

        Raises CommandFailed.
        """
        kept = _database(way)
        if kept is None or kept in self._kept:
            return
        self._recreate()
        folder = self._fresh(way)
        with self._server.connect(DESTINATION, user=USER) as connection:
            connection.execute("create schema raw")
            if way.before == "copied":
                events.create(connection, "raw.events", primary_key=self._primary_key)
        if way.before == "copied":
            measure(by_hand.copy(self._server, folder), environment={}, folder=folder)
        else:
            self.run(way, folder)
            folder.rename(_kept_folder(folder))
        with self._server.connect(DESTINATION) as connection:
            connection.execute("vacuum (freeze, analyze)")
        self._as_superuser("alter database {} rename to {}", DESTINATION, kept)
        self._kept.add(kept)

    def restore(self, way: Way) -> Path:
        """The destination is as `way` is to find it, on disk; returns its folder."""
        folder = self._fresh(way)
        kept = _database(way)
        if kept is None:
            self._prepare(way)
        else:
            self._recreate(template=kept)
            if way.before == "continued":
                shutil.copytree(_kept_folder(folder), folder, dirs_exist_ok=True)
        self._as_superuser("checkpoint")
        return folder

    def run(self, way: Way, folder: Path) -> Measured:
        """Raises CommandFailed."""
        command = way.command(self._server, folder)
        return measure(command, environment={**way.environment, "PYTHONPATH": str(ROOT)}, folder=folder)

    def _prepare(self, way: Way) -> None:
        with self._server.connect(DESTINATION, user=USER) as connection:
            if way.before != "left" or connection.execute("select to_regclass('raw.events')").fetchone() == (None,):
                connection.execute("drop schema if exists raw cascade")
                connection.execute("create schema raw")
            if way.before == "empty":
                events.create(connection, "raw.events", primary_key=self._primary_key or way.keyed, fits=way.fits)

    def _recreate(self, template: str = "template1") -> None:
        self._as_superuser("drop database if exists {}", DESTINATION)
        self._as_superuser("create database {} owner {} template {} strategy file_copy", DESTINATION, USER, template)

    def _fresh(self, way: Way) -> Path:
        folder = self._folder / way.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _as_superuser(self, statement: LiteralString, *names: str) -> None:
        with self._server.connect() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _database(way: Way) -> str | None:
    """The one that is kept for `way`: one for all who find a copy by hand, one each for those who continue."""
    if way.before == "copied":
        return "copied"
    return f"continued_{way.name}" if way.before == "continued" else None


def _kept_folder(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.kept")
