"""Partitioned tables, published as their root or by their parts; generated columns; inheritance."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import RapidbyteError
from tests.cdc.conftest import Follow, Replicate

ITEMS = """
    CREATE TABLE items (id int PRIMARY KEY, name text, n int) PARTITION BY RANGE (id);
    CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (100);
    -- Its columns lie in another order.
    CREATE TABLE items_2 (n int, dropped int, name text, id int NOT NULL);
    ALTER TABLE items_2 DROP dropped;
    ALTER TABLE items ATTACH PARTITION items_2 FOR VALUES FROM (100) TO (200);
    CREATE TABLE items_3 PARTITION OF items FOR VALUES FROM (200) TO (400) PARTITION BY RANGE (id);
    CREATE TABLE items_3a PARTITION OF items_3 FOR VALUES FROM (200) TO (300);
    INSERT INTO items SELECT i, 'item ' || i, i FROM generate_series(90, 250) i;
"""
CHANGES = (
    "INSERT INTO items VALUES (1, 'new', 1), (199, NULL, 2) ON CONFLICT (id) DO UPDATE SET n = -1",
    "UPDATE items SET name = 'changed' WHERE n % 10 = 0",
    # From part to part: the source deletes here and inserts there.
    "UPDATE items SET id = id + 100 WHERE id < 100",
    "DELETE FROM items WHERE n % 7 = 0",
    "CREATE TABLE items_4 PARTITION OF items DEFAULT; INSERT INTO items VALUES (1000, 'in a new part', 0)",
    "ALTER TABLE items_3 DETACH PARTITION items_3a; "
    "ALTER TABLE items_3 ATTACH PARTITION items_3a FOR VALUES FROM (200) TO (300)",
    "UPDATE items SET n = 0 WHERE id > 200",
)


def test_a_partitioned_table_arrives_as_one(follow: Follow) -> None:
    changes = [change for change in CHANGES if "id + 100" not in change]
    follow(ITEMS, "UPDATE items SET id = id - 90 WHERE id < 100", *changes).assert_mirrors()


def test_rows_that_move_from_part_to_part_are_there_once(follow: Follow) -> None:
    follow(
        ITEMS,
        "DELETE FROM items WHERE id BETWEEN 150 AND 199",
        "UPDATE items SET id = id + 100, name = NULL WHERE id < 100",
        "UPDATE items SET id = id - 100 WHERE id BETWEEN 190 AND 195",
    ).assert_mirrors()


@pytest.mark.full
def test_what_becomes_of_a_part_as_a_whole_is_not_told_and_a_new_load_brings_it(replicate: Replicate) -> None:
    """As with PostgreSQL's own subscriptions: the log has the rows of its changes, and these change none."""
    replication = replicate("items")
    replication.source.execute(ITEMS)
    replication.catch_up()
    before = replication.rows("items")
    replication.source.execute(
        """
        TRUNCATE items_1;
        ALTER TABLE items DETACH PARTITION items_2;
        CREATE TABLE more (LIKE items_1 INCLUDING ALL);
        INSERT INTO more (id, name) VALUES (1001, 'attached');
        ALTER TABLE items ATTACH PARTITION more FOR VALUES FROM (1000) TO (2000);
        INSERT INTO items (id, name) VALUES (1002, 'new');
        """
    )
    replication.catch_up()
    assert replication.rows("items", "id, name")[-1] == (1002, "new")
    assert replication.rows("items")[:-1] == before
    replication.catch_up(full_refresh=["items"])
    replication.assert_mirrors()


def test_a_part_is_a_table_of_its_own_where_the_publication_publishes_parts(replicate: Replicate) -> None:
    replication = replicate("items_1", "items_2", source_config=None)
    replication.source.execute(ITEMS)
    replication.source.execute(
        "CREATE PUBLICATION parts FOR TABLE items WITH (publish_via_partition_root = false)", superuser=True
    )
    replication.source_config = {**replication.source.config, "publication": "parts"}
    replication.catch_up()
    for transaction in CHANGES[:3]:
        if "id + 100" not in transaction:
            replication.source.execute(transaction)
    replication.source.execute("UPDATE items SET id = 50 WHERE id = 150")
    replication.catch_up()
    for part in ("items_1", "items_2"):
        told = "SELECT id, name, n FROM {} ORDER BY 1"
        assert replication.destination.fetch(told.format(f"raw.{part}")) == replication.source.fetch(told.format(part))


def test_a_table_whose_parts_are_published_arrives_as_one(replicate: Replicate) -> None:
    """Changes come under the names of the parts, whose columns lie in other orders."""
    replication = replicate("items")
    replication.source.execute(ITEMS)
    replication.source.execute(
        "CREATE PUBLICATION parts FOR TABLE items WITH (publish_via_partition_root = false)", superuser=True
    )
    replication.source_config = {**replication.source.config, "publication": "parts"}
    replication.catch_up()
    replication.source.execute("DELETE FROM items WHERE id BETWEEN 150 AND 199")
    replication.source.execute("UPDATE items SET id = id + 100, name = NULL WHERE id < 100")
    replication.source.execute("INSERT INTO items VALUES (1, 'new', 1), (260, 'new', 2)")
    replication.catch_up()
    replication.assert_mirrors()


def test_generated_columns_arrive_with_the_values_that_they_have(follow: Follow) -> None:
    replication = follow(
        """
        CREATE TABLE items (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED,
            number int GENERATED ALWAYS AS IDENTITY);
        INSERT INTO items (id, n) SELECT i, i FROM generate_series(1, 10) i;
        """,
        "UPDATE items SET n = n + 1 WHERE id < 5",
        "INSERT INTO items (id, n) VALUES (50, 50)",
    )
    columns = "SELECT id, n, twice, number FROM {} ORDER BY id"
    assert replication.destination.fetch(columns.format("raw.items")) == replication.source.fetch(
        columns.format("items")
    )


def test_a_table_that_others_inherit_from_is_refused_with_what_to_do(replicate: Replicate) -> None:
    """Its snapshot would hold their rows, and their changes are told under their own names."""
    replication = replicate("items")
    replication.source.execute(
        "CREATE TABLE items (id int PRIMARY KEY, n int); CREATE TABLE more (extra int) INHERITS (items)"
    )
    with pytest.raises(RapidbyteError, match="inherit") as caught:
        replication.catch_up()
    assert caught.value.hint


def test_a_truncate_of_a_part_that_cannot_be_followed_stops_its_stream_and_no_other(replicate: Replicate) -> None:
    """Where parts are published, the truncate of one tells nothing of the rows that went."""
    replication = replicate("items", "others")
    replication.source.execute(ITEMS + "CREATE TABLE others (id int PRIMARY KEY)")
    replication.source.execute(
        "CREATE PUBLICATION parts FOR TABLE items, others WITH (publish_via_partition_root = false)", superuser=True
    )
    replication.source_config = {**replication.source.config, "publication": "parts"}
    replication.catch_up()
    replication.source.execute("INSERT INTO others VALUES (1)")
    replication.source.execute("TRUNCATE items_1")
    replication.source.execute("INSERT INTO others VALUES (2)")
    for _ in range(2):
        outcome = replication.run().streams["items"]
        assert isinstance(outcome, RapidbyteError)
        assert "TRUNCATE" in str(outcome).upper()
        replication.assert_mirrors("others")
    replication.catch_up(full_refresh=["items"])
    replication.assert_mirrors()
