"""TRUNCATE at the source: applied, ignored or refused, as the stream says."""

from __future__ import annotations

from rapidbyte_dagster.errors import RapidbyteError
from tests.cdc.conftest import Follow, Replicate

ITEMS = (
    "CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items SELECT i, 'a' FROM generate_series(1, 9) i;"
)


def test_a_truncate_empties_the_table(follow: Follow) -> None:
    replication = follow(ITEMS, "TRUNCATE items")
    assert replication.rows("items") == []


def test_rows_around_a_truncate_are_those_that_came_after_it(follow: Follow) -> None:
    follow(
        ITEMS,
        "INSERT INTO items VALUES (10, 'before'); TRUNCATE items; INSERT INTO items VALUES (1, 'after'), (11, 'after')",
        "UPDATE items SET name = 'changed' WHERE id = 1",
        "INSERT INTO items VALUES (2, 'x'); UPDATE items SET id = 3 WHERE id = 2; TRUNCATE items; "
        "INSERT INTO items VALUES (4)",
        "TRUNCATE items; INSERT INTO items VALUES (4, 'again'); DELETE FROM items WHERE id = 4",
        "INSERT INTO items VALUES (5, 'last')",
    ).assert_mirrors()


def test_tables_that_refer_to_each_other_are_truncated_together(follow: Follow) -> None:
    """At the destination too, whose foreign key a truncate of one table alone would break."""
    replication = follow(
        ITEMS + "CREATE TABLE parts (id int PRIMARY KEY, item int REFERENCES items); "
        "INSERT INTO parts VALUES (1, 1), (2, NULL)",
        streams=["items", "parts"],
    )
    replication.destination.execute("ALTER TABLE raw.parts ADD FOREIGN KEY (item) REFERENCES raw.items")
    replication.source.execute(
        "TRUNCATE items, parts; INSERT INTO items VALUES (1, 'new'); INSERT INTO parts VALUES (7, 1)"
    )
    replication.catch_up()
    replication.assert_mirrors()
    replication.source.execute("TRUNCATE items CASCADE")
    replication.catch_up()
    replication.assert_mirrors()


def test_a_truncate_that_is_ignored_leaves_the_rows(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "TRUNCATE items",
        "INSERT INTO items VALUES (3, 'new'), (100, 'new')",
        streams=[{"name": "items", "truncate": "ignore"}],
    )
    assert replication.rows("items") == [*((i, "new" if i == 3 else "a") for i in range(1, 10)), (100, "new")]


def test_a_truncate_that_is_refused_stops_its_stream_and_no_other(replicate: Replicate) -> None:
    replication = replicate({"name": "items", "truncate": "fail"}, "others")
    replication.source.execute(ITEMS + "CREATE TABLE others (id int PRIMARY KEY)")
    replication.catch_up()
    replication.source.execute("INSERT INTO items VALUES (10, 'before'); INSERT INTO others VALUES (1)")
    replication.source.execute("TRUNCATE items; INSERT INTO others VALUES (2)")
    replication.source.execute("INSERT INTO others VALUES (3)")
    outcomes = replication.run().streams
    stopped = outcomes["items"]
    assert isinstance(stopped, RapidbyteError)
    assert "TRUNCATE" in str(stopped).upper()
    assert stopped.hint
    assert replication.rows("others", order="1") == [(1,), (2,), (3,)]
    assert len(replication.rows("items")) in (9, 10)
    # Once it may, it goes on from there.
    replication.streams = ["items", "others"]
    replication.catch_up()
    assert replication.rows("items") == []


def test_a_truncate_marks_all_rows_of_soft_deletes(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "TRUNCATE items",
        "INSERT INTO items VALUES (3, 'new')",
        streams=[{"name": "items", "deletes": "soft"}],
    )
    alive = replication.rows("items", "id, name, _rb_deleted_at IS NULL", "id")
    assert alive == [(i, "new" if i == 3 else "a", i == 3) for i in range(1, 10)]


def test_a_truncate_is_one_entry_of_a_history(follow: Follow) -> None:
    replication = follow(
        ITEMS, "TRUNCATE items; INSERT INTO items VALUES (1, 'b')", "DELETE FROM items", write_mode="append"
    )
    assert replication.history("items", "_rb_op, id, name")[9:] == [
        ("truncate", None, None),
        ("insert", 1, "b"),
        ("delete", 1, None),
    ]


def test_a_truncate_of_a_partitioned_table_empties_it(follow: Follow) -> None:
    follow(
        """
        CREATE TABLE items (id int PRIMARY KEY, value int) PARTITION BY RANGE (id);
        CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (100);
        CREATE TABLE items_2 PARTITION OF items FOR VALUES FROM (100) TO (200);
        INSERT INTO items SELECT i, i FROM generate_series(90, 110) i;
        """,
        "TRUNCATE items",
        "INSERT INTO items VALUES (95, 0)",
    ).assert_mirrors()
