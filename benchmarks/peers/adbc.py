"""ADBC's PostgreSQL driver: reads into Arrow batches and ingests them as they come.

Arguments: the source's and the destination's connection string. The destination's table must not exist.
"""

from __future__ import annotations

import sys

from adbc_driver_postgresql import dbapi


def main(source_dsn: str, destination_dsn: str) -> None:
    with dbapi.connect(source_dsn) as source, dbapi.connect(destination_dsn) as destination:
        with source.cursor() as reading, destination.cursor() as writing:
            reading.execute("select * from events")
            writing.adbc_ingest("events", reading.fetch_record_batch(), mode="create", db_schema_name="raw")
        destination.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
