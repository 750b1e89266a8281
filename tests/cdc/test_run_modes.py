"""Catch-up reads to where the source was when it began; tail goes on for a time, and commits as it goes."""

from __future__ import annotations

import json
import time

import pytest

from rapidbyte_dagster.engine import CancelToken, Progress
from rapidbyte_dagster.errors import ConfigError, RunCancelled
from tests.cdc.agreement import assert_follows
from tests.cdc.conftest import Replicate
from tests.cdc.replication import WAIT_SECONDS, Replication, in_background, wait_until
from tests.cdc.tables import AUDIT, DEFINITIONS, ROWS, TABLES
from tests.cdc.writers import Writers
from tests.integration.cli.command import rapidbyte
from tests.roundtrip.seed import SEED

ITEMS = "CREATE TABLE items (id int PRIMARY KEY, n int);"


def tailed(replicate: Replicate) -> Replication:
    replication = replicate("items")
    replication.source.execute(ITEMS)
    replication.catch_up()
    return replication


def test_a_change_is_visible_within_a_second_while_a_tail_runs(replicate: Replicate) -> None:
    replication = tailed(replicate)
    latencies = []

    def tail() -> None:
        replication.catch_up(tail_seconds=5)

    with in_background(tail), replication.destination.connect() as reader:
        replication.wait_until("SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND NOT temporary")
        for number in range(10):
            replication.source.execute("INSERT INTO items VALUES (%s, 0)", [number])
            began = time.monotonic()
            while reader.execute("SELECT count(*) FROM raw.items WHERE id = %s", [number]).fetchone() != (1,):
                assert time.monotonic() < began + WAIT_SECONDS, f"row {number} does not arrive"
            latencies.append(time.monotonic() - began)
    assert sorted(latencies)[len(latencies) // 2] < 1.0, latencies


@pytest.mark.full
def test_a_tail_tells_how_far_it_is_while_it_runs(replicate: Replicate) -> None:
    replication = tailed(replicate)
    told: list[int] = []

    def listen(progress: Progress) -> None:
        assert progress.stream == "items"
        told.append(progress.rows_committed)
        if len(told) < 4:
            replication.source.execute("INSERT INTO items VALUES (%s, 0)", [len(told)])

    replication.catch_up(tail_seconds=5, on_progress=listen)
    assert told == sorted(told)
    assert told[0] == 0
    assert 0 < told[2] <= 2
    replication.assert_mirrors()


@pytest.mark.full
def test_a_tail_ends_after_its_time_and_leaves_nothing_half_done(replicate: Replicate) -> None:
    replication = replicate(*TABLES)
    replication.source.execute(DEFINITIONS + AUDIT + ROWS)
    replication.catch_up()
    with Writers(replication.source, SEED, sessions=3) as writers:
        began = time.monotonic()
        replication.catch_up(tail_seconds=3)
        assert 2.5 < time.monotonic() - began < 10
        writers.wait_for(writers.committed + 5)
    replication.catch_up()
    assert_follows(replication, audited=False)


def test_a_tail_that_is_cancelled_ends_at_once_and_keeps_what_was_committed(replicate: Replicate) -> None:
    replication = tailed(replicate)
    cancel = CancelToken()
    ended: list[float] = []

    def tail() -> None:
        try:
            replication.catch_up(tail_seconds=60, cancel=cancel)
        except RunCancelled:
            ended.append(time.monotonic())

    with in_background(tail):
        replication.wait_until("SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND NOT temporary")
        replication.source.execute("INSERT INTO items VALUES (1, 1)")
        wait_until(lambda: replication.rows("items") == [(1, 1)], "the row arrives")
        asked = time.monotonic()
        cancel.cancel()
    assert len(ended) == 1
    assert ended[0] - asked < 5
    replication.source.execute("INSERT INTO items VALUES (2, 2)")
    replication.catch_up()
    replication.assert_mirrors()


@pytest.mark.full
def test_the_slot_follows_while_a_tail_runs_so_that_the_server_need_not_keep_its_log(replicate: Replicate) -> None:
    replication = tailed(replicate)

    def tail() -> None:
        replication.catch_up(tail_seconds=14)

    with in_background(tail):
        replication.wait_until("SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND NOT temporary")
        replication.source.execute("INSERT INTO items VALUES (1, 1)")
        written = replication.source.fetch_value("SELECT pg_current_wal_lsn()::text")
        wait_until(lambda: not replication.is_behind(replication.slot_position(), written), "the slot is told")


def test_the_command_catches_up_and_tails_and_says_what_it_did(replicate: Replicate) -> None:
    replication = replicate("items", "others")
    replication.source.execute(
        ITEMS + "CREATE TABLE others (id int PRIMARY KEY); INSERT INTO items VALUES (1, 1), (2, 2)"
    )
    first = rapidbyte("run", replication.write(), "--json")
    assert first.returncode == 0, first.stderr
    told = {stream["stream"]: (stream["status"], stream["rows"]) for stream in json.loads(first.stdout)["streams"]}
    assert told == {"items": ("ok", 2), "others": ("ok", 0)}
    replication.source.execute("DELETE FROM items WHERE id = 1; INSERT INTO others VALUES (1)")
    second = rapidbyte("run", replication.write(), "--tail", "1s")
    assert second.returncode == 0, second.stderr
    replication.assert_mirrors()
    # A new snapshot of one stream.
    replication.destination.execute("DELETE FROM raw.items")
    third = rapidbyte("run", replication.write(), "--stream", "items", "--full-refresh", "--json")
    assert third.returncode == 0, third.stderr
    replication.assert_mirrors()


def test_a_replace_of_streams_that_bring_changes_is_refused(replicate: Replicate) -> None:
    replication = replicate("items", write_mode="replace")
    with pytest.raises(ConfigError, match="replace keeps only what one run reads"):
        replication.catch_up()
