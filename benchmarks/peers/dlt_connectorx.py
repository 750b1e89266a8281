"""dlt with its connectorx backend, `write_disposition="replace"`.

Arguments: the source's and the destination's SQLAlchemy URL, and a folder for dlt's working files.
"""

from __future__ import annotations

import sys

import dlt
from dlt.sources.sql_database import sql_table


def main(source_url: str, destination_url: str, folder: str) -> None:
    pipeline = dlt.pipeline(
        "events",
        destination=dlt.destinations.postgres(destination_url),
        dataset_name="raw",
        pipelines_dir=folder,
    )
    table = sql_table(source_url, table="events", backend="connectorx", reflection_level="full_with_precision")
    pipeline.run(table, write_disposition="replace")


if __name__ == "__main__":
    main(*sys.argv[1:])
