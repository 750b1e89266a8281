"""Concurrent writers, run after run: what applications do to a database, in no order that anybody chose.

A failure prints its seed; `RAPIDBYTE_TEST_SEED=… pytest tests/cdc/test_random_changes.py` repeats what the writers try,
though not how they meet.
"""

from __future__ import annotations

import pytest

from rapidbyte_dagster.engine import StreamResult
from tests.cdc.agreement import assert_follows
from tests.cdc.conftest import Replicate
from tests.cdc.tables import AUDIT, DEFINITIONS, ROWS, TABLES
from tests.cdc.writers import Writers
from tests.roundtrip.seed import SEED

SMALL = {"max_batch_bytes": "64kb", "max_inflight_bytes": "256kb"}


@pytest.mark.parametrize(
    ("write_mode", "resources"),
    [
        pytest.param("upsert", {}, id="upsert"),
        pytest.param("upsert", SMALL, id="upsert, small buffers", marks=pytest.mark.full),
        pytest.param("append", SMALL, id="append, small buffers"),
        pytest.param("append", {}, id="append", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.full) for number in range(1, 6))])
def test_what_concurrent_writers_do_arrives(
    replicate: Replicate, number: int, write_mode: str, resources: dict[str, str]
) -> None:
    print(f"RAPIDBYTE_TEST_SEED={SEED}")  # noqa: T201  shown when it fails
    replication = replicate(*TABLES, write_mode=write_mode, sections={"resources": resources})
    replication.source.execute(DEFINITIONS + AUDIT)
    replication.catch_up()
    # From here on a history has everything to tell.
    replication.source.execute(ROWS)
    with Writers(replication.source, f"{SEED}/{number}", sessions=4) as writers:
        for _ in range(3):
            writers.wait_for(writers.committed + 60)
            replication.catch_up()
    replication.catch_up()
    assert_follows(replication, audited=True)


@pytest.mark.full
def test_a_catch_up_ends_where_the_source_was_when_it_began_although_the_writers_go_on(replicate: Replicate) -> None:
    replication = replicate(*TABLES)
    replication.source.execute(DEFINITIONS + AUDIT + ROWS)
    replication.catch_up()
    with Writers(replication.source, SEED, sessions=4, truncates=False, pause=0.0) as writers:
        writers.wait_for(100)
        before = replication.source.fetch_value("SELECT pg_current_wal_lsn()::text")
        replication.catch_up()
        for stream in TABLES:
            assert not replication.is_behind(replication.position(stream), before)
        count = writers.committed
        writers.wait_for(count + 20)
    replication.catch_up()
    assert_follows(replication, audited=False)


def test_streams_of_two_slots_are_followed_each_by_its_own_run(replicate: Replicate) -> None:
    own = "rapidbyte_replica_own"
    replication = replicate("accounts", {"name": "documents", "replication_slot": own})
    replication.source.execute(DEFINITIONS + AUDIT + ROWS)
    groups = [group.name for group in replication.pipeline.slot_groups]
    assert len(groups) == 2
    for group in groups:
        replication.catch_up(group=group)
    with Writers(replication.source, SEED, tables=("accounts", "documents"), transactions=40):
        pass
    first = replication.run(group=groups[0])
    assert all(isinstance(outcome, StreamResult) for outcome in first.streams.values())
    assert len(first.streams) == 1
    replication.catch_up(group=groups[1])
    replication.assert_mirrors()
    slots = replication.source.fetch(
        "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() ORDER BY 1"
    )
    assert slots == [("rapidbyte_replica",), (own,)]
