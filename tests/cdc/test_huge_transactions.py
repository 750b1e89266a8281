"""Transactions that are larger than any buffer: streamed before they end, kept aside, applied as one."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.cdc.conftest import Replicate
from tests.cdc.replication import Replication

ITEMS = "CREATE TABLE items (id int PRIMARY KEY, name text, n int); CREATE TABLE others (id int PRIMARY KEY, n int);"
SMALL = {"max_batch_bytes": "64kb", "max_inflight_bytes": "256kb"}


@pytest.fixture
def replication(replicate: Replicate) -> Replication:
    """The server sends what is open as soon as a transaction has more than 64 kB."""
    replication = replicate("items", "others", sections={"resources": SMALL})
    replication.source.execute(
        f"ALTER DATABASE {replication.source.name} SET logical_decoding_work_mem = '64kB'", superuser=True
    )
    replication.source.execute(ITEMS)
    replication.catch_up()
    return replication


INSERTED = "INSERT INTO items SELECT i, 'item ' || i, i FROM generate_series({}, {}) i;"


def test_a_transaction_larger_than_every_buffer_arrives_as_one(replication: Replication) -> None:
    replication.source.execute(
        INSERTED.format(1, 100_000)
        + "UPDATE items SET n = -n WHERE id % 3 = 0; DELETE FROM items WHERE id % 5 = 0; INSERT INTO others VALUES (1)"
    )
    streamed = "SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = 'rapidbyte_replica'"
    result = replication.run()
    assert result.transactions == 1
    replication.assert_mirrors()
    replication.wait_until(streamed, why="the transaction was sent in parts")


@pytest.mark.full
def test_small_transactions_that_end_before_a_huge_one_arrive_before_it(replication: Replication) -> None:
    with replication.source.connect() as session:
        session.execute("BEGIN")
        session.execute(INSERTED.format(1, 20_000))
        replication.source.execute("INSERT INTO others SELECT i, i FROM generate_series(1, 10) i")
        replication.catch_up()
        # The huge one is open: nothing of it is there, and it holds nobody up.
        replication.assert_mirrors()
        session.execute(INSERTED.format(20_001, 40_000))
        replication.source.execute("UPDATE others SET n = 0")
        session.execute("DELETE FROM items WHERE id % 2 = 0")
        replication.catch_up()
        replication.assert_mirrors()
        session.execute("COMMIT")
    replication.catch_up()
    replication.assert_mirrors()


def test_parts_of_a_huge_transaction_that_were_rolled_back_never_arrive(replication: Replication) -> None:
    with replication.source.connect() as session:
        session.execute("BEGIN")
        session.execute(INSERTED.format(1, 10_000))
        session.execute("SAVEPOINT a")
        session.execute(INSERTED.format(10_001, 20_000))
        session.execute("SAVEPOINT b")
        session.execute("UPDATE items SET n = 0")
        session.execute("ROLLBACK TO b")
        session.execute(INSERTED.format(20_001, 30_000))
        session.execute("ROLLBACK TO a")
        session.execute("SAVEPOINT c")
        session.execute(INSERTED.format(30_001, 40_000))
        session.execute("RELEASE c")
        session.execute("DELETE FROM items WHERE id % 2 = 0")
        session.execute("COMMIT")
    replication.catch_up()
    assert len(replication.rows("items", "id", "id")) == 10_000
    replication.assert_mirrors()


def test_a_huge_transaction_that_is_rolled_back_leaves_nothing(replication: Replication) -> None:
    with replication.source.connect() as session:
        session.execute("BEGIN")
        session.execute(INSERTED.format(1, 50_000))
        replication.catch_up()
        session.execute("ROLLBACK")
    replication.source.execute("INSERT INTO others VALUES (1, 1)")
    assert replication.run().transactions == 1
    replication.assert_mirrors()


@pytest.mark.full
def test_huge_transactions_that_overlap_arrive_in_the_order_of_their_ends(replication: Replication) -> None:
    with replication.source.connect() as first, replication.source.connect() as second:
        for session in (first, second):
            session.execute("BEGIN")
        first.execute(INSERTED.format(1, 15_000))
        second.execute(INSERTED.format(100_001, 115_000))
        first.execute(INSERTED.format(15_001, 30_000))
        second.execute("UPDATE items SET name = 'second' WHERE id > 100000")
        second.execute("COMMIT")
        first.execute("UPDATE items SET name = 'first' WHERE id > 110000")
        first.execute("COMMIT")
    replication.catch_up()
    replication.assert_mirrors()


def test_a_truncate_and_a_new_column_within_a_huge_transaction_are_followed(replication: Replication) -> None:
    with replication.source.connect() as session:
        session.execute("BEGIN")
        session.execute(INSERTED.format(1, 10_000))
        session.execute("TRUNCATE items")
        session.execute("ALTER TABLE items ADD extra text")
        session.execute("INSERT INTO items SELECT i, 'x', i, 'extra ' || i FROM generate_series(5001, 15000) i")
        session.execute("COMMIT")
    replication.catch_up()
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1, 2")


LARGE = "INSERT INTO items VALUES ({0}, repeat('x', {1}), 1);"


@pytest.mark.parametrize(
    "streamed",
    [pytest.param(False, id="at its end", marks=pytest.mark.full), pytest.param(True, id="before its end")],
)
@pytest.mark.parametrize(
    "megabytes",
    [
        pytest.param(40, id="not to be received"),
        pytest.param(25, id="not to be turned into columns", marks=pytest.mark.full),
    ],
)
def test_a_change_larger_than_the_memory_stops_its_stream_and_no_other(
    replicate: Replicate, megabytes: int, streamed: bool
) -> None:
    replication = replicate("items", "others", sections={"resources": {"max_memory": "48mb"}})
    limit = "64kB" if streamed else "1GB"
    replication.source.execute(
        f"ALTER DATABASE {replication.source.name} SET logical_decoding_work_mem = '{limit}'", superuser=True
    )
    replication.source.execute(ITEMS)
    replication.catch_up()
    size = megabytes * 1_000_000
    replication.source.execute(
        "INSERT INTO items VALUES (1, 'before'); INSERT INTO others VALUES (1);"
        + (INSERTED.format(100, 3000) if streamed else "")
        + LARGE.format(2, size)
        + "INSERT INTO others VALUES (2)"
    )
    replication.source.execute("INSERT INTO items VALUES (3, 'after'); INSERT INTO others VALUES (3)")
    for _ in range(2):
        outcome = replication.run().streams["items"]
        assert isinstance(outcome, RapidbyteError)
        assert outcome.kind is Kind.RESOURCE
        assert "stream items" in str(outcome)
        assert "a change of public.items has" in str(outcome)
        assert str(size)[:2] in str(outcome)
        assert "resources.max_memory" in str(outcome)
        replication.assert_mirrors("others")
        assert replication.rows("items") == []
    replication.sections = {}
    replication.catch_up()
    replication.assert_mirrors()


@pytest.mark.full
def test_a_large_change_that_was_rolled_back_stops_nobody(replicate: Replicate) -> None:
    replication = replicate("items", "others", sections={"resources": {"max_memory": "48mb"}})
    replication.source.execute(
        f"ALTER DATABASE {replication.source.name} SET logical_decoding_work_mem = '64kB'", superuser=True
    )
    replication.source.execute(ITEMS)
    replication.catch_up()
    with replication.source.connect() as session:
        session.execute("BEGIN")
        session.execute("SAVEPOINT a")
        session.execute(INSERTED.format(1, 3000))
        session.execute(LARGE.format(50_000, 40_000_000))
        session.execute(INSERTED.format(3001, 6000))
        # It is sent, and kept, before it is undone.
        replication.catch_up()
        session.execute("ROLLBACK TO a")
        session.execute(INSERTED.format(6001, 9000))
        session.execute("COMMIT")
    replication.catch_up()
    replication.assert_mirrors()


WIDE = ", ".join(f"c{i} boolean" for i in range(300))


@pytest.mark.full
def test_deleted_rows_of_many_columns_are_marked_in_bounded_memory(replicate: Replicate) -> None:
    replication = replicate({"name": "items", "deletes": "soft"})
    replication.source.execute(f"CREATE TABLE items (id int PRIMARY KEY, {WIDE})")
    replication.source.execute("INSERT INTO items (id, c0) SELECT i, true FROM generate_series(1, 120000) i")
    replication.catch_up()
    replication.source.execute("DELETE FROM items")
    replication.catch_up()
    marked = "SELECT count(*), count(_rb_deleted_at), count(c0) FROM raw.items"
    assert replication.destination.fetch(marked) == [(120_000, 120_000, 120_000)]


@pytest.mark.full
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(("UPDATE items SET c1 = true",), id="once"),
        pytest.param(("UPDATE items SET c1 = true", "UPDATE items SET c2 = true"), id="twice"),
        pytest.param(("UPDATE items SET id = -id", "UPDATE items SET c2 = true"), id="by their key"),
    ],
)
@pytest.mark.parametrize("deletes", ["hard", "soft"])
def test_updates_that_leave_values_out_of_line_are_applied_in_bounded_memory(
    replicate: Replicate, changes: tuple[str, ...], deletes: str
) -> None:
    replication = replicate({"name": "items", "deletes": deletes}, sections={"resources": {"max_memory": "96mb"}})
    replication.source.execute(
        f"CREATE TABLE items (id int PRIMARY KEY, body text, {WIDE});"
        "ALTER TABLE items ALTER body SET STORAGE EXTERNAL;"
        "INSERT INTO items (id, body) SELECT i, repeat('x', 2100) || i FROM generate_series(1, 40000) i"
    )
    replication.catch_up()
    replication.source.execute("; ".join(changes))
    replication.catch_up()
    columns = "id, md5(body), c1, c2"
    alive = "" if deletes == "hard" else "WHERE _rb_deleted_at IS NULL"
    found = replication.destination.fetch(f"SELECT {columns} FROM raw.items {alive} ORDER BY id")
    assert found == replication.source.fetch(f"SELECT {columns} FROM items ORDER BY id")
