"""The source's tables change while they are captured, and the policy of schema evolution says what becomes of it."""

from __future__ import annotations

from rapidbyte_dagster.errors import RapidbyteError
from tests.cdc.conftest import Follow, Replicate
from tests.cdc.replication import Replication

ITEMS = """
    CREATE TABLE items (id int PRIMARY KEY, name text, n int);
    INSERT INTO items SELECT i, 'item ' || i, i FROM generate_series(1, 20) i;
"""


def test_a_column_that_is_added_between_changes_is_added_and_filled_from_there_on(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "UPDATE items SET n = 100 WHERE id = 1",
        "ALTER TABLE items ADD extra text; UPDATE items SET extra = 'filled' WHERE id = 2; "
        "INSERT INTO items VALUES (21, 'new', 21, 'more')",
        "UPDATE items SET n = 300 WHERE id = 3",
    )
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1")


def test_columns_that_come_and_go_within_one_transaction_with_rows_between_arrive(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        """
        INSERT INTO items VALUES (30, 'before', 1);
        ALTER TABLE items ADD a int; INSERT INTO items VALUES (31, 'with a', 1, 2);
        ALTER TABLE items ADD b text; INSERT INTO items VALUES (32, 'with b', 1, 2, 'b');
        UPDATE items SET b = 'c' WHERE id = 31;
        """,
        "DELETE FROM items WHERE id = 30",
    )
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1")


def test_every_column_that_comes_within_one_transaction_is_told(replicate: Replicate) -> None:
    replication = replicate("items")
    replication.source.execute(ITEMS)
    replication.catch_up()
    names = [f"column_{number}" for number in range(12)]
    replication.source.execute(
        ";".join(f"ALTER TABLE items ADD {name} int; UPDATE items SET {name} = {len(name)}" for name in names)
    )
    told = replication.catch_up()["items"].schema_changes
    assert [change.column for change in told] == names
    assert [change.message.split(" is new")[0] for change in told] == [f"column {name} (integer)" for name in names]
    replication.assert_mirrors()


def test_a_column_that_is_dropped_keeps_what_the_table_has(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "ALTER TABLE items DROP name; UPDATE items SET n = 0 WHERE id = 1",
        "INSERT INTO items VALUES (50, 50); DELETE FROM items WHERE id = 2",
    )
    assert replication.rows("items", "id, n") == replication.source.fetch("SELECT id, n FROM items ORDER BY 1")
    kept = dict(replication.rows("items", "id, name"))
    assert kept[20] == "item 20"
    assert kept[50] is None


def test_a_table_that_loses_all_its_columns_stops_its_stream_and_no_other(replicate: Replicate) -> None:
    replication = replicate("items", {"name": "notes", "write_mode": "append"})
    replication.source.execute(ITEMS + "CREATE TABLE notes (note text)")
    replication.catch_up()
    replication.source.execute("INSERT INTO notes VALUES ('a'); ALTER TABLE notes DROP note")
    replication.source.execute("INSERT INTO notes DEFAULT VALUES; INSERT INTO items VALUES (21)")
    stopped = replication.run().streams["notes"]
    assert isinstance(stopped, RapidbyteError)
    assert "has no columns" in str(stopped)
    replication.assert_mirrors("items")


def test_a_column_that_is_renamed_is_one_that_went_and_one_that_came(follow: Follow) -> None:
    replication = follow(
        ITEMS, "ALTER TABLE items RENAME name TO title; UPDATE items SET title = 'renamed' WHERE id = 1"
    )
    assert replication.rows("items", "id, n, title")[0] == (1, 1, "renamed")


def test_a_renamed_table_is_still_the_one_that_it_was_and_no_change_is_lost(replicate: Replicate) -> None:
    """A stream names a table: once another has the name, a run says so, and does not take one for the other."""
    replication = replicate("items")
    replication.source.execute(ITEMS)
    replication.catch_up()
    replication.source.execute("INSERT INTO items VALUES (21)")
    replication.source.execute("ALTER TABLE items RENAME TO things")
    assert "items" in str(refusal(replication))
    replication.source.execute("ALTER TABLE things RENAME TO items")
    replication.catch_up()
    replication.assert_mirrors()


def refusal(replication: Replication) -> RapidbyteError:
    """Of the whole run, or of the stream."""
    try:
        outcome = replication.run().streams["items"]
    except RapidbyteError as error:
        return error
    assert isinstance(outcome, RapidbyteError)
    return outcome


def test_a_type_that_changes_is_refused_by_default_and_nothing_is_lost(replicate: Replicate) -> None:
    replication = replicate("items", "others")
    replication.source.execute(ITEMS + "CREATE TABLE others (id int PRIMARY KEY)")
    replication.catch_up()
    replication.source.execute("UPDATE items SET n = -1 WHERE id = 1")
    replication.source.execute("ALTER TABLE items ALTER n TYPE text USING 'n' || n")
    replication.source.execute("UPDATE items SET n = 'text' WHERE id = 2; INSERT INTO others VALUES (1)")
    outcome = replication.run().streams["items"]
    assert isinstance(outcome, RapidbyteError)
    assert "type_change" in f"{outcome} {outcome.hint}"
    replication.assert_mirrors("others")
    # What came before the change still has the old type: the policy must let both into a column of the new one.
    replication.destination.execute("ALTER TABLE raw.items ALTER n TYPE text USING 'n' || n")
    replication.sections = {"destination_section": {"schema_evolution": {"type_change": "coerce"}}}
    replication.catch_up()
    values = dict(replication.rows("items", "id, n"))
    assert (values[1], values[2], values[3]) == ("-1", "text", "n3")


def test_a_type_that_becomes_wider_is_coerced_where_that_is_wanted(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "ALTER TABLE items ALTER n TYPE bigint",
        "UPDATE items SET n = 3 WHERE id = 1; INSERT INTO items VALUES (99, 'x', 7)",
        sections={"destination_section": {"schema_evolution": {"type_change": "coerce"}}},
    )
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1")


def test_a_column_that_loses_its_not_null_takes_nulls(follow: Follow) -> None:
    follow(
        "CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL); INSERT INTO items VALUES (1, 'a')",
        "ALTER TABLE items ALTER name DROP NOT NULL; UPDATE items SET name = NULL; INSERT INTO items VALUES (2)",
    ).assert_mirrors()


def test_a_table_that_is_rewritten_sends_no_rows_and_goes_on(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "UPDATE items SET n = 1 WHERE id = 1",
        "CLUSTER items USING items_pkey",
        "UPDATE items SET n = 2 WHERE id = 2",
    )
    replication.source.execute("VACUUM FULL items")
    replication.source.execute("DELETE FROM items WHERE id = 3")
    assert replication.catch_up()["items"].rows == 1
    replication.assert_mirrors()


def test_a_history_gets_the_columns_that_come(follow: Follow) -> None:
    replication = follow(
        ITEMS, "ALTER TABLE items ADD extra int; INSERT INTO items VALUES (21, 'x', 1, 5)", write_mode="append"
    )
    assert replication.history("items", "id, extra")[-1] == (21, 5)
