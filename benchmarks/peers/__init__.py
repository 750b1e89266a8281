"""Other tools: each a way whose command is a program of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.way import DESTINATION, SOURCE, Before, CommandOf, Way, url
from demo.embedded_postgres import EmbeddedPostgres


def adbc() -> Way:
    def command(server: EmbeddedPostgres, folder: Path) -> list[str]:
        return [sys.executable, "-m", "benchmarks.peers.adbc", url(server, SOURCE), url(server, DESTINATION)]

    return Way("adbc", "ADBC read + ingest", command, "absent", needs=("adbc_driver_postgresql",))


def dlt(title: str, *, load: str, before: Before) -> Way:
    """`load`: see `dlt_connectorx.LOADS`."""
    return Way(
        "dlt",
        title,
        _dlt(load),
        before,
        needs=("dlt", "connectorx", "sqlalchemy"),
        environment={"RUNTIME__DLTHUB_TELEMETRY": "false"},
    )


def _dlt(load: str) -> CommandOf:
    def command(server: EmbeddedPostgres, folder: Path) -> list[str]:
        urls = [url(server, SOURCE), url(server, DESTINATION)]
        return [sys.executable, "-m", "benchmarks.peers.dlt_connectorx", load, *urls, str(folder / "dlt")]

    return command
