"""A pipeline of hundreds of streams: how long it takes to load, to show and to run.

`python -m benchmarks.wide [--streams 200] [--parallelism 4] [--dagster]`

Each stream is a table of a few rows, so that what is measured is what each stream costs beside its rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.measured import Measured, measure
from benchmarks.way import DESTINATION, SOURCE
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

ROOT = Path(__file__).resolve().parents[1]
ROWS = 100
START_SECONDS = 60.0

DEFINITIONS = 'from rapidbyte_dagster import build_definitions\n\ndefs = build_definitions("wide.yaml")\n'

ASSET_GRAPH = """
    query { assetNodes { id assetKey { path } opNames groupName isMaterializable isExecutable hasMaterializePermission
        jobNames kinds dependencyKeys { path } dependedByKeys { path } } }
"""
"""What the page of all assets asks for, in outline."""


class Project:
    """A folder with a pipeline of `streams` streams, and the databases that it is about."""

    def __init__(self, folder: Path, server: EmbeddedPostgres, *, streams: int, parallelism: int) -> None:
        self.folder = folder
        self._server = server
        self._streams = streams
        self._parallelism = parallelism
        self._environ = {**os.environ, "DAGSTER_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}

    def create(self) -> None:
        for database in (SOURCE, DESTINATION):
            self._server.create_database(database)
        with self._server.connect(SOURCE, user=USER) as connection:
            for number in range(self._streams):
                columns = "id bigint primary key, name text, at timestamptz"
                connection.execute(f"create table table_{number} ({columns})".encode())
                rows = f"select n, 'row ' || n, now() from generate_series(1, {ROWS}) n"
                connection.execute(f"insert into table_{number} {rows}".encode())
        config = {
            "host": self._server.host,
            "port": self._server.port,
            "user": USER,
            "password": self._server.password,
        }
        pipeline = {
            "version": "1.0",
            "pipeline": "wide",
            "source": {
                "use": "source-postgres",
                "config": {**config, "database": SOURCE},
                "streams": [
                    {"name": f"table_{number}", "sync_mode": "full_refresh"} for number in range(self._streams)
                ],
            },
            "destination": {
                "use": "dest-postgres",
                "config": {**config, "database": DESTINATION, "schema": "raw"},
                "write_mode": "replace",
            },
            "resources": {"parallelism": self._parallelism},
        }
        (self.folder / "wide.yaml").write_text(json.dumps(pipeline))  # every JSON is YAML
        (self.folder / "definitions.py").write_text(DEFINITIONS)
        (self.folder / "home").mkdir()
        (self.folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    def load(self) -> tuple[float, float]:
        """Seconds that the definitions take, beyond importing Dagster, and of CPU."""
        program = (
            "import time, dagster; before = time.perf_counter(), time.process_time(); import definitions;"
            " definitions.defs.get_repository_def();"
            " print(time.perf_counter() - before[0], time.process_time() - before[1])"
        )
        seconds, cpu = self._run(sys.executable, "-c", program).output.split()
        return float(seconds), float(cpu)

    def run(self) -> Measured:
        """`rapidbyte run`, the whole process."""
        measured = self._run(sys.executable, "-m", "rapidbyte_dagster.cli", "run", "wide.yaml", "--json")
        told = json.loads(measured.output)
        assert [stream["rows"] for stream in told["streams"]] == [ROWS] * self._streams
        return measured

    def run_in_dagster(self) -> Measured:
        """`dagster job execute`: a process per stream, which is not among its CPU: nobody waits for a fork server."""
        return self._run(sys.executable, "-m", "dagster", "job", "execute", "-f", "definitions.py", "-j", "wide_job")

    @contextlib.contextmanager
    def shown(self) -> Iterator[Webserver]:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        words = ["-f", "definitions.py", "-h", "127.0.0.1", "-p", str(port)]
        with (self.folder / "webserver.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dagster_webserver", *words],
                cwd=self.folder,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Webserver(port)
        finally:
            process.terminate()
            process.wait()

    def _run(self, *words: str) -> Measured:
        """Raises CommandFailed."""
        return measure(words, environment=self._environ, folder=self.folder)


class Webserver:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("query { version }")
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def ask(self, query: str) -> Any:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            told = json.load(answer)
        assert "errors" not in told, told["errors"]
        return told["data"]

    def asset_graph(self) -> list[dict[str, Any]]:
        return list(self.ask(ASSET_GRAPH)["assetNodes"])


@click.command()
@click.option("--streams", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--parallelism", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--dagster", is_flag=True, help="Run it in Dagster as well: a process per stream takes minutes.")
def main(streams: int, parallelism: int, dagster: bool) -> None:
    """Load, show and run a pipeline of many streams, and tell the seconds."""
    with tempfile.TemporaryDirectory(prefix="rapidbyte-wide-") as name, EmbeddedPostgres() as server:
        project = Project(Path(name), server, streams=streams, parallelism=parallelism)
        project.create()
        _tell("load the definitions, beyond importing Dagster", *project.load())
        started = time.perf_counter()
        with project.shown() as webserver:
            webserver.wait()
            _tell("start the web server", time.perf_counter() - started)
            for time_ in ("first time", "again"):
                started = time.perf_counter()
                webserver.asset_graph()
                _tell(f"the asset graph, {time_}", time.perf_counter() - started)
        for time_ in ("first time", "again"):
            ran = project.run()
            _tell(f"rapidbyte run, parallelism {parallelism}, {time_}", ran.wall_seconds, ran.cpu_seconds)
        if dagster:
            _tell(f"dagster job execute, parallelism {parallelism}", project.run_in_dagster().wall_seconds)


def _tell(what: str, seconds: float, cpu_seconds: float | None = None) -> None:
    cpu = "" if cpu_seconds is None else f" ({cpu_seconds:.2f} s of CPU)"
    click.echo(f"{seconds:8.2f} s  {what}{cpu}")


if __name__ == "__main__":
    main()
