"""What somebody types who has psql: COPY binary from one into another."""

from __future__ import annotations

from pathlib import Path

from benchmarks import events
from benchmarks.way import DESTINATION, SOURCE, url
from demo.embedded_postgres import EmbeddedPostgres

COPY_OUT = "copy (select * from events) to stdout (format binary)"
COPY_IN = "copy raw.events from stdin (format binary)"


def copy(server: EmbeddedPostgres, folder: Path) -> list[str]:
    """Every row into the table."""
    return pipe(server, COPY_OUT, COPY_IN)


def pipe(server: EmbeddedPostgres, copy_out: str, copy_in: str) -> list[str]:
    """What one statement of the source writes into another of the destination."""
    return _shell(f"{_psql(server, SOURCE, copy_out)} | {_psql(server, DESTINATION, copy_in)}")


def copy_new(server: EmbeddedPostgres, folder: Path) -> list[str]:
    """The rows above the highest id that the table has."""
    highest = _psql(server, DESTINATION, "select coalesce(max(id), 0) from raw.events", options="--tuples-only")
    rows = _psql(server, SOURCE, "copy (select * from events where id > $highest) to stdout (format binary)")
    return _shell(f"highest=$({highest}) && {rows} | {_psql(server, DESTINATION, COPY_IN)}")


def upsert(server: EmbeddedPostgres, folder: Path) -> list[str]:
    """Every row into a temporary table, and from there into the table, in one session."""
    assignments = ", ".join(f"{name} = excluded.{name}" for name, _ in events.COLUMNS if name != "id")
    statements = (
        "create temporary table incoming (like raw.events)",
        "copy incoming from stdin (format binary)",
        f"insert into raw.events select * from incoming on conflict (id) do update set {assignments}",
    )
    return _shell(f"{_psql(server, SOURCE, COPY_OUT)} | {_psql(server, DESTINATION, *statements)}")


def _psql(server: EmbeddedPostgres, database: str, *statements: str, options: str = "") -> str:
    """A shell's words; a statement may hold the shell's variables, and neither `"` nor `\\`."""
    words = f"'{server.installation.program('psql')}' --no-psqlrc --quiet --set ON_ERROR_STOP=1 {options}"
    return " ".join([words, f"'{url(server, database)}'", *(f'-c "{statement}"' for statement in statements)])


def _shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]
