"""The first run: what was there, what changed meanwhile, and what was open when the slot was made arrive once."""

from __future__ import annotations

import threading

import pytest

from rapidbyte_dagster.errors import RapidbyteError
from tests.cdc.agreement import assert_follows
from tests.cdc.conftest import Replicate
from tests.cdc.replication import in_background
from tests.cdc.tables import AUDIT, DEFINITIONS, ROWS, TABLES
from tests.cdc.writers import Writers
from tests.postgres_server import Database
from tests.recovery.proxy import Moment, Proxy
from tests.roundtrip.seed import SEED

ITEMS = "CREATE TABLE items (id int PRIMARY KEY, name text, n int);"


def test_rows_that_existed_arrive_with_the_first_run(replicate: Replicate) -> None:
    replication = replicate("items")
    replication.source.execute(ITEMS + "INSERT INTO items SELECT i, 'item', i FROM generate_series(1, 5000) i")
    assert replication.catch_up()["items"].rows == 5000
    replication.assert_mirrors()
    # The next run has nothing left.
    assert replication.catch_up()["items"].rows == 0
    replication.assert_mirrors()


@pytest.mark.parametrize("write_mode", ["upsert", "append"])
def test_an_empty_table_is_created(replicate: Replicate, write_mode: str) -> None:
    replication = replicate("items", write_mode=write_mode)
    replication.source.execute(ITEMS)
    assert replication.catch_up()["items"].rows == 0
    assert replication.rows("items") == []
    if write_mode == "upsert":
        replication.assert_mirrors()
    replication.source.execute("INSERT INTO items VALUES (1)")
    assert replication.catch_up()["items"].rows == 1


def test_a_snapshot_replaces_what_an_upserts_table_held_before(replicate: Replicate) -> None:
    """Rows that the source deleted before it was captured would otherwise stay for ever."""
    replication = replicate("items")
    replication.source.execute(ITEMS + "INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 2)")
    replication.destination.execute(
        "CREATE SCHEMA raw; CREATE TABLE raw.items (id int PRIMARY KEY, name text, n int);"
        "INSERT INTO raw.items VALUES (2, 'old', 0), (3, 'gone', 0)"
    )
    replication.catch_up()
    replication.assert_mirrors()


def test_rows_of_a_snapshot_begin_a_history(replicate: Replicate) -> None:
    replication = replicate("items", write_mode="append")
    replication.source.execute(ITEMS + "INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 2)")
    replication.catch_up()
    told = replication.rows("items", "_rb_op, _rb_seq, _rb_unchanged, id, name", "id")
    assert told == [("insert", 0, None, 1, "a"), ("insert", 0, None, 2, "b")]
    [[taken]] = replication.rows("items", "DISTINCT _rb_lsn", "1")
    assert not replication.is_behind(replication.position("items"), taken)


@pytest.mark.parametrize("write_mode", ["upsert", "append"])
def test_rows_that_change_during_the_snapshot_arrive_once(replicate: Replicate, write_mode: str) -> None:
    print(f"RAPIDBYTE_TEST_SEED={SEED}")  # noqa: T201  shown when it fails
    replication = replicate(*TABLES, write_mode=write_mode)
    replication.source.execute(DEFINITIONS + AUDIT + ROWS)
    with Writers(replication.source, SEED, sessions=3, pause=0.3) as writers:
        writers.wait_for(20)
        replication.catch_up()
        writers.wait_for(writers.committed + 20)
    replication.catch_up()
    assert_follows(replication, audited=False)


def test_a_transaction_that_is_open_when_the_slot_is_made_arrives_once(replicate: Replicate) -> None:
    """The slot waits for transactions that are older than itself; those that begin meanwhile need not end."""
    replication = replicate("items", write_mode="append")
    replication.source.execute(ITEMS + "INSERT INTO items VALUES (1, 'there', 0)")
    with replication.source.connect() as older, replication.source.connect() as younger:
        older.execute("BEGIN")
        older.execute("INSERT INTO items VALUES (2, 'older', 0)")
        with in_background(replication.catch_up):
            replication.wait_until(
                "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted",
                why="the slot waits for the open transaction",
            )
            younger.execute("BEGIN")
            younger.execute("INSERT INTO items VALUES (3, 'younger', 0)")
            replication.source.execute("INSERT INTO items VALUES (4, 'meanwhile', 0)")
            older.execute("COMMIT")
            # Whatever else the run waits for, it is not for ever.
            threading.Event().wait(0.3)
            younger.execute("COMMIT")
    replication.catch_up()
    assert replication.rows("items", "id", "1") == [(1,), (2,), (3,), (4,)]


def test_a_stream_that_is_added_later_gets_its_own_snapshot_while_the_others_go_on(replicate: Replicate) -> None:
    replication = replicate("items")
    replication.source.execute(ITEMS + "CREATE TABLE others (id int PRIMARY KEY); INSERT INTO others VALUES (1), (2)")
    replication.catch_up()
    replication.source.execute(
        "INSERT INTO items VALUES (1); INSERT INTO others VALUES (3); DELETE FROM others WHERE id = 1"
    )
    replication.streams = ["items", "others"]
    results = replication.catch_up()
    assert results["items"].rows == 1
    assert results["others"].rows == 2
    replication.assert_mirrors()
    replication.source.execute(
        "INSERT INTO items VALUES (2); INSERT INTO others VALUES (4); DELETE FROM others WHERE id = 2"
    )
    replication.catch_up()
    replication.assert_mirrors()


def test_a_stream_that_leaves_and_comes_back_says_that_it_missed_changes(replicate: Replicate) -> None:
    replication = replicate("items", "others")
    replication.source.execute(ITEMS + "CREATE TABLE others (id int PRIMARY KEY)")
    replication.catch_up()
    replication.streams = ["items"]
    replication.source.execute("INSERT INTO others VALUES (1); INSERT INTO items VALUES (1)")
    replication.catch_up()
    replication.streams = ["items", "others"]
    outcomes = replication.run().streams
    missed = outcomes["others"]
    if isinstance(missed, RapidbyteError):
        assert "--full-refresh" in f"{missed} {missed.hint}"
        replication.catch_up(full_refresh=["others"])
    replication.assert_mirrors()


def test_one_stream_is_snapshotted_again_on_request_and_the_others_go_on(replicate: Replicate) -> None:
    replication = replicate("items", "others")
    replication.source.execute(ITEMS + "CREATE TABLE others (id int PRIMARY KEY)")
    replication.catch_up()
    replication.source.execute("INSERT INTO items VALUES (1), (2); INSERT INTO others VALUES (1)")
    replication.catch_up()
    # Somebody touched the destination.
    replication.destination.execute("DELETE FROM raw.items WHERE id = 1; INSERT INTO raw.items VALUES (77)")
    replication.source.execute("INSERT INTO items VALUES (3); INSERT INTO others VALUES (2)")
    results = replication.catch_up(full_refresh=["items"])
    assert results["items"].rows == 3
    replication.assert_mirrors()
    replication.source.execute("DELETE FROM items WHERE id = 2; INSERT INTO others VALUES (3)")
    replication.catch_up()
    replication.assert_mirrors()


@pytest.mark.full
def test_a_large_table_is_snapshotted_in_shards_while_it_changes(replicate: Replicate) -> None:
    replication = replicate(
        {"name": "accounts", "shards": 3},
        {"name": "documents", "shards": 2},
        sections={"resources": {"parallelism": 2}},
    )
    replication.source.execute(DEFINITIONS + AUDIT + ROWS)
    replication.source.execute("INSERT INTO accounts SELECT i, 'x', 0 FROM generate_series(10001, 60000) i")
    with Writers(replication.source, SEED, tables=("accounts", "documents"), truncates=False) as writers:
        writers.wait_for(5)
        replication.catch_up()
    replication.catch_up()
    replication.assert_mirrors()


@pytest.mark.parametrize(
    "rewritten",
    [
        pytest.param("ALTER TABLE items ALTER n TYPE int USING n + 0", id="rewrite"),
        pytest.param("TRUNCATE items; INSERT INTO items VALUES (1)", id="truncate", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("write_mode", ["upsert", "append"])
def test_a_table_that_is_rewritten_between_the_snapshot_and_its_load_is_not_taken_for_empty(
    replicate: Replicate, source: Database, rewritten: str, write_mode: str
) -> None:
    """An older snapshot finds such a table empty, and nothing of the rewritten rows is told as changes."""
    replication = replicate("items", write_mode=write_mode, sections={"resources": {"max_retries": 1}})
    replication.source.execute(ITEMS + "INSERT INTO items SELECT i, 'item', i FROM generate_series(1, 1000) i")
    with Proxy(source) as proxy:
        replication.source_config = proxy.config(source)
        proxy.arm(
            Moment("SET TRANSACTION SNAPSHOT", "answered"), lambda: replication.source.execute(rewritten), cuts=False
        )
        replication.catch_up()
        assert proxy.struck.is_set(), proxy.statements
        replication.catch_up()
    if write_mode == "upsert":
        replication.assert_mirrors()
    else:
        told = dict(
            replication.destination.fetch("SELECT _rb_op, count(*) FROM raw.items GROUP BY 1"),
        )
        rows = 1 if "TRUNCATE" in rewritten else 1000
        # Loaded after the rows were gone, or before, and then it tells how they went.
        assert told in ({"insert": rows}, {"insert": 1000 + rows, "truncate": 1})
