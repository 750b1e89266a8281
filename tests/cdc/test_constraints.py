"""Constraints of the destination's tables hold at each commit, and need not hold between the changes of one."""

from __future__ import annotations

import json
import threading

import pytest

from rapidbyte_dagster.errors import RapidbyteError
from rapidbyte_dagster.state import open_state
from tests.cdc.conftest import Follow, Replicate
from tests.cdc.replication import PIPELINE, Replication, in_background

UNIQUE = """
    CREATE TABLE items (id int PRIMARY KEY, code text UNIQUE DEFERRABLE, n int);
    INSERT INTO items SELECT i, 'code ' || i, i FROM generate_series(1, 20) i;
"""


def unique_at_the_destination(follow: Follow, *transactions: str) -> None:
    """The destination's constraint is of the strict kind, which is looked at row by row."""
    replication = follow(UNIQUE)
    replication.destination.execute("ALTER TABLE raw.items ADD UNIQUE (code)")
    for transaction in transactions:
        replication.source.execute(transaction)
    replication.catch_up()
    replication.assert_mirrors()


def test_a_unique_value_goes_from_one_row_to_another(follow: Follow) -> None:
    unique_at_the_destination(
        follow,
        "UPDATE items SET code = NULL WHERE id = 1",
        "UPDATE items SET code = 'code 1' WHERE id = 2",
        "DELETE FROM items WHERE id = 3",
        "UPDATE items SET code = 'code 3' WHERE id = 4",
        "INSERT INTO items VALUES (30, 'code 4', 0)",
    )


def test_unique_values_go_from_row_to_row_against_the_order_of_keys(follow: Follow) -> None:
    unique_at_the_destination(
        follow,
        *(f"UPDATE items SET code = 'free' || code WHERE id = {i}" for i in (20, 10)),
        *(f"UPDATE items SET code = 'code ' || {i + 1} WHERE id = {i}" for i in (19, 9, 18, 8)),
    )


def test_rows_that_exchange_a_unique_value_in_one_transaction_arrive(follow: Follow) -> None:
    """No order of single changes does this under a constraint that is looked at row by row, and it must be said so."""
    replication = follow(UNIQUE)
    replication.destination.execute("ALTER TABLE raw.items ADD UNIQUE (code) DEFERRABLE INITIALLY IMMEDIATE")
    replication.source.execute(
        "SET CONSTRAINTS ALL DEFERRED; UPDATE items SET code = 'code ' || (3 - id) WHERE id IN (1, 2)"
    )
    replication.catch_up()
    replication.assert_mirrors()


FAMILY = """
    CREATE TABLE parents (id int PRIMARY KEY, name text);
    CREATE TABLE children (
        id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE
    );
    INSERT INTO parents SELECT i, 'p' || i FROM generate_series(1, 10) i;
    INSERT INTO children SELECT i, 1 + i % 10 FROM generate_series(1, 30) i;
"""


@pytest.mark.parametrize(
    "constraint", ["", pytest.param("DEFERRABLE INITIALLY DEFERRED", id="deferred", marks=pytest.mark.full)]
)
def test_rows_that_refer_to_each_other_come_and_go_in_an_order_that_holds(follow: Follow, constraint: str) -> None:
    replication = follow(FAMILY, streams=["children", "parents"])
    replication.destination.execute(
        f"ALTER TABLE raw.children ADD FOREIGN KEY (parent) REFERENCES raw.parents {constraint}"
    )
    for transaction in (
        "INSERT INTO parents VALUES (11, 'new'); INSERT INTO children VALUES (31, 11)",
        # Cascades: the children go first at the source's triggers or last, and are told as rows of their own.
        "DELETE FROM parents WHERE id = 2",
        "SET CONSTRAINTS ALL DEFERRED; INSERT INTO children VALUES (32, 12); INSERT INTO parents VALUES (12, 'later')",
        "UPDATE children SET parent = 12 WHERE parent = 3; DELETE FROM parents WHERE id = 3",
        "DELETE FROM children; DELETE FROM parents WHERE id > 5; INSERT INTO children VALUES (1, 1)",
    ):
        replication.source.execute(transaction)
    replication.catch_up()
    replication.assert_mirrors()


def test_a_table_that_refers_to_itself_is_followed(follow: Follow) -> None:
    replication = follow(
        "CREATE TABLE items (id int PRIMARY KEY, boss int REFERENCES items); INSERT INTO items VALUES (1, NULL), (2, 1)"
    )
    replication.destination.execute("ALTER TABLE raw.items ADD FOREIGN KEY (boss) REFERENCES raw.items")
    for transaction in (
        "INSERT INTO items VALUES (9, 1), (5, 9), (7, 5)",
        "UPDATE items SET boss = 7 WHERE id = 2; DELETE FROM items WHERE id = 5 AND false",
        "UPDATE items SET boss = NULL WHERE id IN (7, 2); DELETE FROM items WHERE id IN (5, 9)",
    ):
        replication.source.execute(transaction)
    replication.catch_up()
    replication.assert_mirrors()


def test_a_reader_never_sees_half_of_a_transaction(replicate: Replicate) -> None:
    """Money goes from table to table; whoever looks at the destination at any moment finds all of it."""
    replication = replicate(
        "checking", "savings", sections={"resources": {"max_batch_bytes": "64kb", "checkpoint_interval_rows": 50}}
    )
    replication.source.execute(
        """
        CREATE TABLE checking (id int PRIMARY KEY, amount int); CREATE TABLE savings (id int PRIMARY KEY, amount int);
        INSERT INTO checking SELECT i, 100 FROM generate_series(1, 50) i;
        INSERT INTO savings SELECT i, 100 FROM generate_series(1, 50) i;
        """
    )
    replication.catch_up()
    with replication.source.connect() as session:
        for number in range(600):
            with session.transaction():
                session.execute("UPDATE checking SET amount = amount - %s WHERE id = %s", [number, 1 + number % 50])
                session.execute("UPDATE savings SET amount = amount + %s WHERE id = %s", [number, 1 + number * 7 % 50])
    seen: set[object] = set()
    looks = 0
    done = threading.Event()

    def look() -> None:
        nonlocal looks
        with replication.destination.connect() as session:
            while not done.is_set():
                [row] = session.execute(
                    "SELECT (SELECT sum(amount) FROM raw.checking) + (SELECT sum(amount) FROM raw.savings)"
                ).fetchall()
                seen.add(row[0])
                looks += 1

    with in_background(look):
        try:
            replication.catch_up()
        finally:
            done.set()
    assert looks > 1
    assert seen == {10_000}
    replication.assert_mirrors()


POISON = """
    CREATE TABLE items (id int PRIMARY KEY, n int); CREATE TABLE others (id int PRIMARY KEY, n int);
    INSERT INTO items SELECT i, i FROM generate_series(1, 10) i;
    INSERT INTO others SELECT i, i FROM generate_series(1, 10) i;
"""
BAD_CHANGES = (
    "INSERT INTO items VALUES (11, 11); INSERT INTO others VALUES (11, 11)",
    "INSERT INTO items VALUES (12, -1), (13, 13); INSERT INTO others VALUES (12, 12)",
    "UPDATE items SET n = -5 WHERE id = 1; UPDATE items SET n = 22 WHERE id = 2; UPDATE others SET n = 22 WHERE id = 2",
    "DELETE FROM items WHERE id = 3; DELETE FROM others WHERE id = 3",
)


def poisoned(replicate: Replicate, on_data_error: str) -> Replication:
    replication = replicate("items", "others", sections={"destination_section": {"on_data_error": on_data_error}})
    replication.source.execute(POISON)
    replication.catch_up()
    replication.destination.execute("ALTER TABLE raw.items ADD CONSTRAINT positive CHECK (n > 0)")
    for transaction in BAD_CHANGES:
        replication.source.execute(transaction)
    return replication


def test_a_table_that_refuses_a_row_stops_its_stream_and_no_other_and_loses_nothing(replicate: Replicate) -> None:
    replication = poisoned(replicate, "fail")
    before = replication.position("items")
    result = replication.run()
    stopped = result.streams["items"]
    assert isinstance(stopped, RapidbyteError)
    assert "positive" in str(stopped)
    assert not isinstance(result.streams["others"], RapidbyteError)
    replication.assert_mirrors("others")
    # Nothing that it still needs may be forgotten by the slot, however far the others are.
    assert not replication.is_behind(replication.position("items"), before)
    assert not replication.is_behind(replication.position("items"), replication.slot_position())
    assert replication.is_behind(replication.position("items"), replication.position("others"))
    # Another run changes nothing about it, and the others go on.
    replication.source.execute("INSERT INTO others VALUES (99, 99); INSERT INTO items VALUES (99, 99)")
    again = replication.run()
    assert isinstance(again.streams["items"], RapidbyteError)
    replication.assert_mirrors("others")
    # Once the table takes the row, all of it arrives.
    replication.destination.execute("ALTER TABLE raw.items DROP CONSTRAINT positive")
    replication.catch_up()
    replication.assert_mirrors()


def test_a_row_that_is_refused_behind_more_than_fits_into_memory_stops_its_stream_alone(replicate: Replicate) -> None:
    """What is written of the stream's transaction before is taken back with that of the others, which begin again."""
    replication = replicate("items", "others")
    replication.source.execute(
        "CREATE TABLE items (id int PRIMARY KEY, n int); CREATE TABLE others (id int PRIMARY KEY, t text)"
    )
    replication.catch_up()
    replication.destination.execute("ALTER TABLE raw.items ADD CONSTRAINT positive CHECK (n > 0)")
    replication.source.execute(
        "INSERT INTO items VALUES (1, 1);"
        "INSERT INTO others SELECT i, repeat('x', 100000) FROM generate_series(1, 700) i;"
        "INSERT INTO items VALUES (2, -1)"
    )
    stopped = replication.run().streams["items"]
    assert isinstance(stopped, RapidbyteError)
    assert "positive" in str(stopped)
    replication.assert_mirrors("others")
    assert replication.rows("items") == []
    replication.destination.execute("ALTER TABLE raw.items DROP CONSTRAINT positive")
    replication.catch_up()
    replication.assert_mirrors()


def test_a_row_that_refers_to_nothing_at_the_end_of_a_large_transaction_stops_its_stream_alone(
    replicate: Replicate,
) -> None:
    """It was written in an earlier part of the transaction, when what it refers to could still have come."""
    replication = replicate("items", "others")
    replication.source.execute(
        "CREATE TABLE items (id int PRIMARY KEY, parent int); CREATE TABLE others (id int PRIMARY KEY, t text)"
    )
    replication.catch_up()
    replication.destination.execute(
        "CREATE TABLE raw.parents (id int PRIMARY KEY);"
        "ALTER TABLE raw.items ADD FOREIGN KEY (parent) REFERENCES raw.parents DEFERRABLE INITIALLY DEFERRED"
    )
    replication.source.execute(
        "INSERT INTO items VALUES (1, 5);"
        "INSERT INTO others SELECT i, repeat('x', 100000) FROM generate_series(1, 700) i;"
    )
    stopped = replication.run().streams["items"]
    assert isinstance(stopped, RapidbyteError)
    assert "violates foreign key" in str(stopped)
    replication.assert_mirrors("others")
    replication.destination.execute("INSERT INTO raw.parents VALUES (5)")
    replication.catch_up()
    replication.assert_mirrors()


def test_a_stream_that_stops_alone_fails_the_run_with_its_own_error(replicate: Replicate) -> None:
    replication = replicate("items")
    replication.source.execute("CREATE TABLE items (id int PRIMARY KEY, n int)")
    replication.catch_up()
    replication.destination.execute("ALTER TABLE raw.items ADD CONSTRAINT positive CHECK (n > 0)")
    replication.source.execute("INSERT INTO items VALUES (1, 0)")
    with pytest.raises(RapidbyteError, match="violates check constraint"):
        replication.run()


def test_rows_that_a_table_refuses_go_to_the_dead_letters_and_hold_nothing_back(replicate: Replicate) -> None:
    replication = poisoned(replicate, "dlq")
    results = replication.catch_up()
    assert results["items"].dead_letters == 2
    assert results["others"].dead_letters == 0
    replication.assert_mirrors("others")
    expected = dict(replication.source.fetch("SELECT id, n FROM items"))
    del expected[12]
    expected[1] = 1
    assert dict(replication.rows("items")) == expected
    with open_state(replication.pipeline, {}) as state:
        letters = state.dead_letters(PIPELINE, "items").to_pylist()
    assert sorted(_told(letter["record_json"]) for letter in letters) == [("insert", 12), ("update", 1)]


def _told(record: str) -> tuple[str, int]:
    row = json.loads(record)
    return row["_rb_op"], int(row["id"])


def test_rows_that_a_table_refuses_are_skipped_where_that_is_wanted(replicate: Replicate) -> None:
    replication = poisoned(replicate, "skip")
    results = replication.catch_up()
    assert results["items"].rejected == 2
    replication.assert_mirrors("others")
    assert {12} == set(dict(replication.source.fetch("TABLE items"))) - set(dict(replication.rows("items")))


def test_a_delete_that_the_table_refuses_is_a_dead_letter(replicate: Replicate) -> None:
    replication = replicate("items", sections={"destination_section": {"on_data_error": "dlq"}})
    replication.source.execute(
        "CREATE TABLE items (id int PRIMARY KEY, n int); INSERT INTO items VALUES (1, 1), (2, 2)"
    )
    replication.catch_up()
    replication.destination.execute(
        "CREATE TABLE raw.kept (item int REFERENCES raw.items); INSERT INTO raw.kept VALUES (1)"
    )
    replication.source.execute("DELETE FROM items; INSERT INTO items VALUES (3, 3)")
    assert replication.catch_up()["items"].dead_letters == 1
    assert replication.rows("items") == [(1, 1), (3, 3)]


def test_a_stream_that_stops_when_part_of_it_was_applied_holds_back_no_other(replicate: Replicate) -> None:
    """A new column makes the destination write what it has so far, in the transaction that then fails."""
    replication = replicate("items", "others")
    replication.source.execute(POISON)
    replication.catch_up()
    replication.destination.execute("ALTER TABLE raw.items ADD CONSTRAINT positive CHECK (n > 0)")
    replication.source.execute("INSERT INTO items VALUES (11, 11); INSERT INTO others VALUES (11, 11)")
    replication.source.execute("ALTER TABLE items ADD extra int; INSERT INTO items VALUES (12, -1, 0)")
    for number in (13, 14):
        replication.source.execute(f"INSERT INTO others VALUES ({number}, 0)")
        outcomes = replication.run().streams
        assert isinstance(outcomes["items"], RapidbyteError)
        replication.assert_mirrors("others")
    replication.destination.execute("ALTER TABLE raw.items DROP CONSTRAINT positive")
    replication.catch_up()
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1")
