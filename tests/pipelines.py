"""Pipeline files for tests: written to a folder, loaded like a user's, run by the engine."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rapidbyte_dagster.config import Pipeline, load_pipeline
from rapidbyte_dagster.engine import CancelToken, StreamResult, run_stream
from rapidbyte_dagster.engine.result import DriftListener, LogListener
from rapidbyte_dagster.state import StateStore, open_state
from tests.postgres_server import Database


def pipeline_text(
    source: Mapping[str, Any],
    destination: Mapping[str, Any],
    streams: Sequence[str | Mapping[str, Any]],
    *,
    name: str = "shop",
    write_mode: str = "append",
    **sections: Any,
) -> str:
    """A pipeline from one `config` to another. A stream is a table's name, or a mapping of the stream's keys.

    Extra `sections` go to the top level; a mapping called `destination` is merged into that section.
    """
    extra_destination = sections.pop("destination_section", {})
    extra_source = sections.pop("source_section", {})
    return yaml.safe_dump(
        {
            "version": "1.0",
            "pipeline": name,
            "source": {
                "use": "postgres",
                "config": dict(source),
                **extra_source,
                "streams": [
                    {"name": stream, "sync_mode": "full_refresh"}
                    if isinstance(stream, str)
                    else {"sync_mode": "full_refresh", **stream}
                    for stream in streams
                ],
            },
            "destination": {
                "use": "postgres",
                "config": dict(destination),
                "write_mode": write_mode,
                **extra_destination,
            },
            **sections,
        },
        sort_keys=False,
    )


def write_pipeline(
    folder: Path,
    source: Database | Mapping[str, Any],
    destination: Database | Mapping[str, Any],
    streams: Sequence[str | Mapping[str, Any]],
    **options: Any,
) -> Path:
    """`pipeline_text` in a file of its own; databases give their own `config`, tables land in schema `raw`."""
    source_config = source.config if isinstance(source, Database) else source
    destination_config = {**destination.config, "schema": "raw"} if isinstance(destination, Database) else destination
    path = folder / f"{options.get('name', 'shop')}.yaml"
    path.write_text(pipeline_text(source_config, destination_config, streams, **options))
    return path


def make_pipeline(
    folder: Path,
    source: Database | Mapping[str, Any],
    destination: Database | Mapping[str, Any],
    streams: Sequence[str | Mapping[str, Any]],
    **options: Any,
) -> Pipeline:
    return load_pipeline(write_pipeline(folder, source, destination, streams, **options))


def run(
    pipeline: Pipeline,
    stream: str | None = None,
    *,
    state: StateStore | None = None,
    cancel: CancelToken | None = None,
    environ: Mapping[str, str] | None = None,
    on_log: LogListener | None = None,
    on_drift: DriftListener | None = None,
) -> StreamResult:
    """Runs one stream (the first, unless named) with the pipeline's own state store."""
    chosen = pipeline.streams[0] if stream is None else pipeline.stream(stream)
    variables = dict(environ or {})
    with contextlib.nullcontext(state) if state is not None else open_state(pipeline, variables) as opened:
        return run_stream(
            pipeline,
            chosen,
            state=opened,
            run_id=str(uuid.uuid4()),
            environ=variables,
            on_log=on_log,
            on_drift=on_drift,
            cancel=cancel,
        )
