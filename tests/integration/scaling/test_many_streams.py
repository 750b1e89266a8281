"""Fifty streams in one process: how many at once, and how much memory they take."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.state import RunRecord, open_state
from tests.integration.scaling.process_tree import Watched, linux_only, watch
from tests.pipelines import write_pipeline
from tests.postgres_server import Database

MEGABYTE = 1024 * 1024

TABLES = [f"table_{number}" for number in range(1, 51)]

# 4 MB each: more than may wait between a stream's two sides, and than either of them can hold.
SEED = """
    create table table_1 as select n as id, repeat(md5(n::text), 32) as text from generate_series(1, 4000) as n;
    do $$ begin
        for number in 2..50 loop execute format('create table table_%s as table table_1', number); end loop;
    end $$
"""

MAX_MEMORY, MAX_INFLIGHT, MAX_BATCH = 16 * MEGABYTE, MEGABYTE, MEGABYTE // 2
RESOURCES = {"max_memory": MAX_MEMORY, "max_inflight_bytes": MAX_INFLIGHT, "max_batch_bytes": MAX_BATCH}

# On docs/scaling.md, in megabytes.
BOUND = (
    r"(\d+) MB \+ parallelism × \( \((\d+) \+ transforms\) × max_memory \+ \((\d+) \+ transforms\) × max_inflight_bytes"
    r" \+ (\d+) × max_batch_bytes \)"
)


def bound(streams_at_once: int) -> int:
    [found] = re.findall(BOUND, (Path(__file__).parents[3] / "docs" / "scaling.md").read_text())
    base, memories, channels, batches = map(int, found)
    of_one = memories * MAX_MEMORY + channels * MAX_INFLIGHT + batches * MAX_BATCH
    return base * MEGABYTE + streams_at_once * of_one


@pytest.fixture
def fifty_tables(source_db: Database) -> Database:
    source_db.execute(SEED)
    return source_db


def run(path: Path) -> tuple[Watched, Sequence[RunRecord]]:
    """The command, and what it wrote down of each stream's run."""
    done = watch([sys.executable, "-m", "rapidbyte_dagster.cli", "run", str(path), "--json"])
    assert done.code == 0, done.errors
    pipeline = load_pipeline(path)
    run_id = json.loads(done.output)["run_id"]
    with open_state(pipeline, {}) as state:
        records = [state.run(run_id, pipeline.name, stream.name) for stream in pipeline.streams]
    assert all(record is not None for record in records)
    return done, [record for record in records if record is not None]


def most_at_once(records: Sequence[RunRecord]) -> int:
    ends = [(record.ended_at, -1) for record in records if record.ended_at is not None]
    assert len(ends) == len(records)
    running = most = 0
    for _, step in sorted([*((record.started_at, 1) for record in records), *ends]):
        running += step
        most = max(most, running)
    return most


@linux_only
def test_fifty_streams_take_the_memory_of_the_four_that_run_at_once(
    tmp_path: Path, fifty_tables: Database, destination_db: Database
) -> None:
    peaks = []
    for count in (4, 50):
        path = write_pipeline(
            tmp_path,
            fifty_tables,
            destination_db,
            TABLES[:count],
            name=f"pipeline_of_{count}",
            write_mode="replace",
            resources={"parallelism": 4, **RESOURCES},
        )
        done, records = run(path)
        assert most_at_once(records) == 4
        assert [record.rows for record in records] == [4000] * count
        assert done.peak_bytes < bound(4)
        peaks.append(done.peak_bytes)
    four, fifty = peaks
    assert fifty < four + 30 * MEGABYTE, "what a stream had is given back when it ends"


def test_a_parallelism_of_one_is_one_stream_after_the_other(
    tmp_path: Path, fifty_tables: Database, destination_db: Database
) -> None:
    path = write_pipeline(tmp_path, fifty_tables, destination_db, TABLES[:6], resources={"parallelism": 1})
    _, records = run(path)
    assert most_at_once(records) == 1
    assert [record.stream for record in sorted(records, key=lambda record: record.started_at)] == TABLES[:6]
