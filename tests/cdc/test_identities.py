"""What tells rows apart: all four replica identities, keys of the user's choice, and tables without any."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.cdc.conftest import Follow, Replicate
from tests.cdc.tables import LONG

CHANGES = (
    "INSERT INTO items SELECT i, 'new', i FROM generate_series(21, 30) i",
    "UPDATE items SET name = NULL, n = n + 1 WHERE id % 2 = 0",
    "UPDATE items SET id = id + 100 WHERE id % 5 = 0",
    "DELETE FROM items WHERE id % 3 = 0",
)
ROWS = "INSERT INTO items SELECT i, 'item ' || i, i FROM generate_series(1, 20) i;"


def test_a_table_is_followed_by_its_primary_key(follow: Follow) -> None:
    follow("CREATE TABLE items (id int PRIMARY KEY, name text, n int);" + ROWS, *CHANGES).assert_mirrors()


def test_a_table_is_followed_by_the_index_that_is_its_identity(follow: Follow) -> None:
    replication = follow(
        "CREATE TABLE items (id int NOT NULL, name text, n int); CREATE UNIQUE INDEX one ON items (id);"
        " ALTER TABLE items REPLICA IDENTITY USING INDEX one;" + ROWS,
        *CHANGES,
    )
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1")


def test_a_table_of_full_identity_is_followed_by_its_primary_key(follow: Follow) -> None:
    follow(
        "CREATE TABLE items (id int PRIMARY KEY, name text, n int); ALTER TABLE items REPLICA IDENTITY FULL;" + ROWS,
        *CHANGES,
    ).assert_mirrors()


def test_a_table_of_full_identity_is_followed_by_a_key_of_the_users_choice(follow: Follow) -> None:
    replication = follow(
        "CREATE TABLE items (id int, name text, n int NOT NULL); ALTER TABLE items REPLICA IDENTITY FULL;" + ROWS,
        "UPDATE items SET id = NULL WHERE n = 3",
        "UPDATE items SET n = n + 100 WHERE id < 10",
        "DELETE FROM items WHERE n > 105",
        streams=[{"name": "items", "primary_key": ["n"]}],
    )
    assert replication.rows("items", order="n") == replication.source.fetch("SELECT * FROM items ORDER BY n")


def test_rows_without_a_key_are_told_apart_by_all_that_they_hold(follow: Follow) -> None:
    """Equal rows are as many as at the source: an update or a delete meets one of them."""
    replication = follow(
        "CREATE TABLE items (id int, name text, n float8); ALTER TABLE items REPLICA IDENTITY FULL;"
        "INSERT INTO items SELECT i % 5, CASE WHEN i % 2 = 0 THEN 'twin' END, i % 3 FROM generate_series(1, 60) i",
        "DELETE FROM items WHERE ctid = (SELECT min(ctid) FROM items WHERE name IS NULL)",
        "UPDATE items SET n = 'NaN' WHERE ctid = (SELECT max(ctid) FROM items)",
        "INSERT INTO items VALUES (1, NULL, 1), (1, NULL, 1), (NULL, NULL, NULL), (NULL, NULL, NULL)",
        "DELETE FROM items WHERE ctid IN (SELECT ctid FROM items WHERE id IS NULL LIMIT 1)",
        "UPDATE items SET id = id + 1 WHERE name = 'twin'; UPDATE items SET id = id + 1 WHERE name = 'twin'",
    )
    rows = "SELECT id, name, n::text, count(*) FROM {} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    assert replication.destination.fetch(rows.format("raw.items")) == replication.source.fetch(rows.format("items"))


def test_long_values_of_rows_without_a_key_are_kept(follow: Follow) -> None:
    replication = follow(
        "CREATE TABLE items (id int, body text); ALTER TABLE items ALTER body SET STORAGE EXTERNAL,"
        f" REPLICA IDENTITY FULL; INSERT INTO items SELECT i, {LONG.format('i')} FROM generate_series(1, 9) i",
        "UPDATE items SET id = 100 WHERE id = 1",
        "UPDATE items SET id = 101 WHERE id = 100; DELETE FROM items WHERE id = 2",
    )
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1")


@pytest.mark.parametrize(
    "definition",
    [
        pytest.param("CREATE TABLE items (id int, name text);", id="no key"),
        pytest.param(
            "CREATE TABLE items (id int PRIMARY KEY, name text); ALTER TABLE items REPLICA IDENTITY NOTHING;",
            id="identity nothing",
        ),
    ],
)
def test_an_upsert_without_an_identity_is_refused_with_what_to_do(replicate: Replicate, definition: str) -> None:
    replication = replicate("items")
    replication.source.execute(definition + "INSERT INTO items VALUES (1, 'a')")
    with pytest.raises(RapidbyteError) as caught:
        replication.catch_up()
    told = f"{caught.value} {caught.value.hint}"
    assert "items" in told
    assert "REPLICA IDENTITY" in told
    # The source's applications could still insert, and their updates are as free as before.
    replication.source.execute("INSERT INTO items VALUES (2, 'b')")


def test_an_upsert_whose_key_is_not_the_tables_identity_is_refused_with_what_to_do(replicate: Replicate) -> None:
    replication = replicate({"name": "items", "primary_key": ["name"]})
    replication.source.execute("CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL UNIQUE)")
    with pytest.raises(RapidbyteError) as caught:
        replication.catch_up()
    assert "REPLICA IDENTITY" in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("identity", ["", "ALTER TABLE items REPLICA IDENTITY NOTHING;"], ids=["default", "nothing"])
def test_a_table_without_a_key_is_appended_to_by_its_inserts(follow: Follow, identity: str) -> None:
    replication = follow(
        "CREATE TABLE items (id int, name text);" + identity + "INSERT INTO items VALUES (1, 'a'), (1, 'a')",
        "INSERT INTO items VALUES (1, 'a'), (2, NULL)",
        "INSERT INTO items VALUES (3, 'c')",
        write_mode="append",
    )
    assert replication.history("items", "_rb_op, id, name") == [
        ("insert", 1, "a"),
        ("insert", 1, "a"),
        ("insert", 1, "a"),
        ("insert", 2, None),
        ("insert", 3, "c"),
    ]


def test_an_identity_that_changes_between_runs_is_followed(follow: Follow) -> None:
    follow(
        "CREATE TABLE items (id int PRIMARY KEY, name text, n int);" + ROWS,
        CHANGES[0],
        "ALTER TABLE items REPLICA IDENTITY FULL",
        *CHANGES[1:3],
        "ALTER TABLE items REPLICA IDENTITY DEFAULT",
        CHANGES[3],
    ).assert_mirrors()


NEW_KEYS = {
    "another primary key": "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (code)",
    "another index": "CREATE UNIQUE INDEX codes ON items (code); ALTER TABLE items REPLICA IDENTITY USING INDEX codes",
}
CODED = """
    CREATE TABLE items (id int PRIMARY KEY, code text NOT NULL, n int);
    INSERT INTO items SELECT i, 'code ' || i, i FROM generate_series(1, 10) i;
"""


@pytest.mark.parametrize("new_key", ["another primary key", pytest.param("another index", marks=pytest.mark.full)])
def test_rows_that_are_told_apart_by_another_key_amid_the_changes_are_followed(follow: Follow, new_key: str) -> None:
    replication = follow(
        CODED,
        "UPDATE items SET n = 0 WHERE id < 3; DELETE FROM items WHERE id = 3",
        NEW_KEYS[new_key],
        "UPDATE items SET n = -1, id = 40 WHERE code = 'code 4'; UPDATE items SET code = 'moved' WHERE id = 5",
        "DELETE FROM items WHERE id IN (6, 40); INSERT INTO items VALUES (11, 'code 4', 11)",
    )
    expected = replication.source.fetch("SELECT * FROM items ORDER BY id")
    assert replication.rows("items", order="id") == expected


@pytest.mark.full
def test_a_new_key_that_the_destinations_rows_cannot_have_stops_the_stream_and_no_other(replicate: Replicate) -> None:
    """What the destination alone has stands in the way of the index that rows would be found by."""
    replication = replicate("items", "others")
    replication.source.execute(CODED + "CREATE TABLE others (id int PRIMARY KEY)")
    replication.catch_up()
    replication.destination.execute("INSERT INTO raw.items VALUES (100, 'code 1', 0)")
    replication.source.execute("UPDATE items SET n = 0 WHERE id = 1; INSERT INTO others VALUES (1)")
    replication.source.execute(NEW_KEYS["another primary key"])
    replication.source.execute("UPDATE items SET n = 0 WHERE code = 'code 2'; INSERT INTO others VALUES (2)")
    stopped = replication.run().streams["items"]
    assert isinstance(stopped, RapidbyteError)
    assert "needs a unique index on (code)" in str(stopped)
    replication.assert_mirrors("others")
    replication.destination.execute("DELETE FROM raw.items WHERE id = 100")
    replication.catch_up()
    expected = replication.source.fetch("SELECT * FROM items ORDER BY id")
    assert replication.rows("items", order="id") == expected


WITHOUT_A_KEY = """
    CREATE TABLE items (id int, name text); ALTER TABLE items REPLICA IDENTITY FULL;
    INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 9) i;
"""


@pytest.mark.parametrize("change", ["DELETE FROM items WHERE id = 3", "UPDATE items SET name = 'x' WHERE id = 3"])
def test_a_change_of_a_row_that_was_lost_is_an_error_and_not_passed_over(replicate: Replicate, change: str) -> None:
    """Without a key nothing else tells which row is meant: the table would be another one from there on."""
    replication = replicate("items")
    replication.source.execute(WITHOUT_A_KEY)
    replication.catch_up()
    replication.destination.execute("UPDATE raw.items SET name = 'other' WHERE id = 3")
    replication.source.execute(change)
    replication.source.execute("DELETE FROM items WHERE id = 4")
    with pytest.raises(RapidbyteError, match="not there") as caught:
        replication.catch_up()
    assert caught.value.kind is Kind.DATA
    assert "--full-refresh" in str(caught.value)
    assert len(replication.rows("items")) == 9
    replication.catch_up(full_refresh=["items"])
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1")


def test_a_change_of_a_row_that_was_lost_is_set_aside_where_that_is_wanted(replicate: Replicate) -> None:
    replication = replicate("items", sections={"destination_section": {"on_data_error": "dlq"}})
    replication.source.execute(WITHOUT_A_KEY)
    replication.catch_up()
    replication.destination.execute("DELETE FROM raw.items WHERE id IN (3, 5)")
    replication.source.execute(
        "UPDATE items SET name = 'x' WHERE id IN (2, 3, 4); DELETE FROM items WHERE id IN (5, 6, 7)"
    )
    assert replication.catch_up()["items"].dead_letters == 2
    rows = dict(replication.rows("items"))
    assert rows == {1: "item 1", 2: "x", 4: "x", 8: "item 8", 9: "item 9"}
