"""dlt with its connectorx backend.

Arguments: one of `LOADS`, the source's and the destination's SQLAlchemy URL, and a folder for dlt's working files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import dlt
from dlt.sources.sql_database import sql_table


def _replace(url: str) -> tuple[Any, Any]:
    return _table(url), "replace"


def _append_new(url: str) -> tuple[Any, Any]:
    return _table(url, incremental=dlt.sources.incremental("id")), "append"


def _merge(url: str) -> tuple[Any, Any]:
    # Its strategy that does what ON CONFLICT DO UPDATE does, told to leave rows alone that did not change.
    disposition = {"disposition": "merge", "strategy": "upsert", "skip_unchanged_rows": True}
    return _table(url, primary_key="id"), disposition


LOADS: dict[str, Callable[[str], tuple[Any, Any]]] = {"replace": _replace, "append-new": _append_new, "merge": _merge}
"""What is read, and dlt's write disposition for it."""


def _table(url: str, **options: Any) -> Any:
    return sql_table(url, table="events", backend="connectorx", reflection_level="full_with_precision", **options)


def main(load: str, source_url: str, destination_url: str, folder: str) -> None:
    pipeline = dlt.pipeline(
        "events",
        destination=dlt.destinations.postgres(destination_url),
        dataset_name="raw",
        pipelines_dir=folder,
    )
    table, disposition = LOADS[load](source_url)
    pipeline.run(table, write_disposition=disposition)


if __name__ == "__main__":
    main(*sys.argv[1:])
