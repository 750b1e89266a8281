"""Pipeline file in, `rapidbyte run` out: the ways through this engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import LiteralString

from benchmarks import delayed
from benchmarks.way import DESTINATION, SOURCE, Before, Told, Way
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

FULL_REFRESH: Mapping[str, Any] = {"sync_mode": "full_refresh"}


def engine(
    name: str,
    title: str,
    *,
    write_mode: str,
    before: Before,
    stream: Mapping[str, Any] = FULL_REFRESH,
    streams: Sequence[Mapping[str, Any]] | None = None,
    resources: Mapping[str, Any] | None = None,
    on_data_error: str = "fail",
    transforms: Sequence[Mapping[str, Any]] = (),
    keyed: bool = False,
    fits: LiteralString | None = None,
    delay_seconds: float | None = None,
) -> Way:
    """`stream` and `resources` are keys of the pipeline file, beyond the stream's name, `streams` those of several with
    their names. `keyed`, `fits`: see `Way`. `delay_seconds`: see `delayed.py`.
    """

    def command(server: EmbeddedPostgres, folder: Path) -> list[str]:
        port = server.port if delay_seconds is None else f"${{{delayed.PORT_VARIABLE}}}"
        config = {"host": server.host, "port": port, "user": USER, "password": server.password}
        pipeline: dict[str, Any] = {
            "version": "1.0",
            "pipeline": "bench",
            "source": {
                "use": "source-postgres",
                "config": {**config, "database": SOURCE},
                "streams": streams or [{"name": "events", **stream}],
            },
            "destination": {
                "use": "dest-postgres",
                "config": {**config, "database": DESTINATION, "schema": "raw"},
                "write_mode": write_mode,
                "on_data_error": on_data_error,
            },
            "state": {"backend": "sqlite", "path": str(folder / "state.sqlite")},
        }
        if transforms:
            pipeline["transforms"] = [dict(transform) for transform in transforms]
        if resources:
            pipeline["resources"] = dict(resources)
        file = folder / "bench.yaml"
        file.write_text(json.dumps(pipeline))  # every JSON is YAML
        words = [sys.executable, "-m", "rapidbyte_dagster.cli", "run", str(file), "--json"]
        if delay_seconds is None:
            return words
        there = [str(delay_seconds), server.host, str(server.port)]
        return [sys.executable, "-m", "benchmarks.delayed", *there, *words]

    return Way(name, title, command, before, _told, keyed=keyed, fits=fits)


def _told(output: str) -> Told:
    streams = json.loads(output)["streams"]
    # What several take together is what the whole process takes.
    seconds = float(streams[0]["seconds"]) if len(streams) == 1 else None
    return Told(seconds=seconds, rows=sum(int(stream["rows"]) for stream in streams))
