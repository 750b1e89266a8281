"""A pipeline of two hundred streams: it loads, shows and runs. How long that takes is the benchmark's business."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.wide import ROWS, Project
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

STREAMS = 200


@pytest.mark.full
def test_two_hundred_streams_load_show_and_run(tmp_path: Path, own_postgres: EmbeddedPostgres) -> None:
    project = Project(tmp_path, own_postgres, streams=STREAMS, parallelism=4)
    project.create()
    with project.shown() as webserver:
        # Meanwhile: it starts, and loads the definitions.
        project.run()
        webserver.wait()
        # A table, what is kept beside it, and what it is read from.
        assert len(webserver.asset_graph()) == 5 * STREAMS
    with own_postgres.connect("destination", user=USER) as connection:
        arrived = " union all ".join(f"select count(*) from raw.table_{number}" for number in range(STREAMS))
        assert connection.execute(arrived.encode()).fetchall() == [(ROWS,)] * STREAMS
