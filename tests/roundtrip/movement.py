"""Moves tables from one database to another in every write mode, and holds the two against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database
from tests.roundtrip.comparison import Table, assert_same

LANDING = "raw"
"""The schema of the destination's tables."""


@dataclass(frozen=True)
class Pair:
    """Where tables come from and where they go."""

    source: Database
    destination: Database


def assert_moves(
    folder: Path,
    pair: Pair,
    table: str,
    *,
    schema: str = "public",
    columns: Sequence[str] | None = None,
    resources: Mapping[str, Any] | None = None,
) -> StreamResult:
    """Moves the table by append and by replace, each into no table and into an existing one.

    After each the destination's table must have the source's columns and content, and after a replace its key. Returns
    the last result.
    """
    stream: dict[str, Any] = {"name": table, "schema": schema}
    if columns is not None:
        stream["columns"] = list(columns)
    pipelines = {
        mode: make_pipeline(
            folder,
            pair.source,
            pair.destination,
            [{**stream, "table": f"{table} by {mode}"[:63]}],
            name=f"by_{mode}",
            write_mode=mode,
            **({"resources": dict(resources)} if resources else {}),
        )
        for mode in ("append", "replace")
    }
    results = []
    with open_state(pipelines["append"], {}) as state:
        for mode, pipeline in pipelines.items():
            target = Table(pair.destination, LANDING, f"{table} by {mode}"[:63])
            pair.destination.execute(f"DROP TABLE IF EXISTS {target.quoted}", superuser=True)
            for again in (False, True):
                if again and mode == "append":
                    pair.destination.execute(f"TRUNCATE {target.quoted}", superuser=True)
                results.append(run(pipeline, state=state))
                assert_same(Table(pair.source, schema, table), target, columns, keyed=mode == "replace")
    return results[-1]
