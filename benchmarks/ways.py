"""The ways to copy `events` from the database `shop` to the schema `raw` of the database `warehouse`.

Each is one command, run in an empty folder, over TCP, as the same role with the same authentication.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import quote

from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

SOURCE, DESTINATION = "source", "destination"
Target = Literal["absent", "empty", "filled"]


class CommandOf(Protocol):
    def __call__(self, server: EmbeddedPostgres, folder: Path) -> list[str]: ...


@dataclass(frozen=True)
class Way:
    """One way to copy the table."""

    name: str
    title: str
    command: CommandOf
    target: Target
    """What the destination's table must be before: absent, empty, or filled by the run before."""
    engine_seconds: Callable[[str], float] | None = None
    """Reads the time from connections open to commit out of what the command printed; None: the wall time."""
    needs: tuple[str, ...] = ()
    """Python modules."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        return [module for module in self.needs if importlib.util.find_spec(module) is None]


def _url(server: EmbeddedPostgres, database: str) -> str:
    return f"postgresql://{USER}:{quote(server.password)}@{server.host}:{server.port}/{database}"


def _psql(server: EmbeddedPostgres, folder: Path) -> list[str]:
    psql = f"'{server.installation.program('psql')}' --no-psqlrc --quiet"
    return [
        "/bin/sh",
        "-c",
        f"{psql} '{_url(server, SOURCE)}' -c 'copy (select * from events) to stdout (format binary)'"
        f" | {psql} '{_url(server, DESTINATION)}' -c 'copy raw.events from stdin (format binary)'",
    ]


def _engine(write_mode: str) -> CommandOf:
    def command(server: EmbeddedPostgres, folder: Path) -> list[str]:
        config = {"host": server.host, "port": server.port, "user": USER, "password": server.password}
        pipeline = {
            "version": "1.0",
            "pipeline": "bench",
            "source": {
                "use": "source-postgres",
                "config": {**config, "database": SOURCE},
                "streams": [{"name": "events", "sync_mode": "full_refresh"}],
            },
            "destination": {
                "use": "dest-postgres",
                "config": {**config, "database": DESTINATION, "schema": "raw"},
                "write_mode": write_mode,
            },
            "state": {"backend": "sqlite", "path": str(folder / "state.sqlite")},
        }
        file = folder / "bench.yaml"
        file.write_text(json.dumps(pipeline))  # every JSON is YAML
        return [sys.executable, "-m", "rapidbyte_dagster.cli", "run", str(file), "--json"]

    return command


def _engine_seconds(output: str) -> float:
    [stream] = json.loads(output)["streams"]
    return float(stream["seconds"])


def _adbc(server: EmbeddedPostgres, folder: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers.adbc", _url(server, SOURCE), _url(server, DESTINATION)]


def _dlt(server: EmbeddedPostgres, folder: Path) -> list[str]:
    urls = [_url(server, SOURCE), _url(server, DESTINATION)]
    return [sys.executable, "-m", "benchmarks.peers.dlt_connectorx", *urls, str(folder / "dlt")]


LIMIT = "psql"
APPEND = "append"
REPLACE = "replace"
REPLACE_AGAIN = "replace-again"

WAYS = (
    Way(LIMIT, "psql | psql, COPY binary", _psql, "empty"),
    Way(APPEND, "rapidbyte append", _engine("append"), "absent", _engine_seconds),
    Way(REPLACE, "rapidbyte replace, first", _engine("replace"), "absent", _engine_seconds),
    Way(REPLACE_AGAIN, "rapidbyte replace, again", _engine("replace"), "filled", _engine_seconds),
    Way("adbc", "ADBC read + ingest", _adbc, "absent", needs=("adbc_driver_postgresql",)),
    Way(
        "dlt",
        "dlt, connectorx backend",
        _dlt,
        "absent",
        needs=("dlt", "connectorx", "sqlalchemy"),
        environment={"RUNTIME__DLTHUB_TELEMETRY": "false"},
    ),
)
