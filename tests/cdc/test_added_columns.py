"""A column is added with a DEFAULT: rows that are there have a value in it at the source, and no change tells so."""

from __future__ import annotations

import pytest

from tests.cdc.conftest import Follow, Replicate
from tests.cdc.replication import Replication
from tests.cdc.tables import LONG

ITEMS = """
    CREATE TABLE items (id int PRIMARY KEY, name text);
    INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 9) i;
"""

DEFAULTS = (
    ("int NOT NULL", "7"),
    ("text", r"$$it's a \ 'default' -- $$"),
    ("text", "''"),
    ("numeric(12,4)", "'-1.5'"),
    ("float8", "'NaN'"),
    ("timestamptz NOT NULL", "now()"),
    ("interval", "'1 year -2 days 00:00:03'"),
    ("bytea", r"'\x00ff'"),
    ("jsonb", """'{"a": [1, "x\\"y"]}'"""),
    ("text[]", """ARRAY['a,b', NULL, '"q"', '']"""),
    ("varchar(5)[]", "'{}'"),
    ("int4range", "'[1,5)'"),
    ("box", "'(2,2),(1,1)'"),
    ("boolean", "false"),
    ("text", "NULL"),
)


def test_rows_that_are_there_get_the_value_that_a_column_is_added_with(follow: Follow) -> None:
    added = ", ".join(f"ADD c{i} {kind} DEFAULT {value}" for i, (kind, value) in enumerate(DEFAULTS))
    follow(
        ITEMS,
        f"ALTER TABLE items {added}",
        "UPDATE items SET name = 'changed' WHERE id = 2; UPDATE items SET c0 = 8, c1 = NULL WHERE id = 3",
        "INSERT INTO items VALUES (10, 'new'); DELETE FROM items WHERE id = 4; UPDATE items SET id = 50 WHERE id = 5",
    ).assert_mirrors()


@pytest.mark.full
def test_a_column_that_is_added_amid_a_transaction_is_filled_for_the_rows_from_before(follow: Follow) -> None:
    follow(
        ITEMS,
        """
        INSERT INTO items VALUES (30, 'before');
        ALTER TABLE items ADD a int NOT NULL DEFAULT 1; INSERT INTO items VALUES (31, 'with a', 2);
        UPDATE items SET a = 3 WHERE id = 30;
        ALTER TABLE items ADD b text DEFAULT 'b', ALTER a SET DEFAULT 10; INSERT INTO items VALUES (32, 'with b');
        DELETE FROM items WHERE id = 1;
        """,
        "UPDATE items SET b = NULL WHERE id = 31",
    ).assert_mirrors()


@pytest.mark.full
def test_values_out_of_line_stay_beside_a_column_that_is_added(follow: Follow) -> None:
    follow(
        "CREATE TABLE items (id int PRIMARY KEY, body text, n int); ALTER TABLE items ALTER body SET STORAGE EXTERNAL;"
        f"INSERT INTO items SELECT i, {LONG.format('i')}, i FROM generate_series(1, 9) i",
        "ALTER TABLE items ADD long text NOT NULL DEFAULT repeat('long', 3000)",
        "UPDATE items SET n = -n WHERE id < 5",
        "UPDATE items SET id = id + 100, long = 'short' WHERE id IN (2, 7)",
        "UPDATE items SET n = 0",
    ).assert_mirrors()


def test_rows_without_a_key_are_found_by_the_value_that_a_column_was_added_with(follow: Follow) -> None:
    replication = follow(
        "CREATE TABLE items (id int, name text); ALTER TABLE items REPLICA IDENTITY FULL;"
        "INSERT INTO items SELECT i % 5, 'twin' FROM generate_series(1, 20) i",
        "ALTER TABLE items ADD c int NOT NULL DEFAULT 5",
        "UPDATE items SET name = 'other' WHERE ctid = (SELECT min(ctid) FROM items)",
        "DELETE FROM items WHERE id = 3; INSERT INTO items VALUES (3, 'twin', 6)",
    )
    rows = "SELECT id, name, c, count(*) FROM {} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    assert replication.destination.fetch(rows.format("raw.items")) == replication.source.fetch(rows.format("items"))


def test_entries_of_a_history_stay_what_they_were(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "ALTER TABLE items ADD c int NOT NULL DEFAULT 5; UPDATE items SET name = 'changed' WHERE id = 1",
        write_mode="append",
    )
    assert replication.history("items", "_rb_op, id, c")[-2:] == [("insert", 9, None), ("update", 1, 5)]
    # A column of the history has no default of its own.
    replication.source.execute("DELETE FROM items WHERE id = 2")
    replication.catch_up()
    assert replication.history("items", "_rb_op, id, c")[-1] == ("delete", 2, None)


@pytest.mark.full
@pytest.mark.parametrize("via_root", [True, False], ids=["as the root", "by their own names"])
def test_rows_in_partitions_get_the_value_too(follow: Follow, via_root: bool) -> None:
    follow(
        """
        CREATE TABLE items (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
        CREATE TABLE items_low PARTITION OF items FOR VALUES FROM (MINVALUE) TO (10);
        CREATE TABLE items_high PARTITION OF items DEFAULT;
        INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 20) i;
        """
        + ("" if via_root else "CREATE PUBLICATION rapidbyte_replica FOR TABLE items;"),
        "ALTER TABLE items ADD c timestamptz NOT NULL DEFAULT now()",
        "CREATE TABLE items_next PARTITION OF items FOR VALUES FROM (100) TO (200);"
        "INSERT INTO items VALUES (100, 'new')",
        "UPDATE items SET id = id + 20 WHERE id = 5",
    ).assert_mirrors()


@pytest.mark.full
def test_a_column_that_the_table_has_already_keeps_what_it_holds(follow: Follow) -> None:
    replication = follow(ITEMS)
    replication.destination.execute("ALTER TABLE raw.items ADD c int; UPDATE raw.items SET c = 100 + id")
    replication.source.execute("ALTER TABLE items ADD c int DEFAULT 5; UPDATE items SET c = 6 WHERE id = 1")
    replication.catch_up()
    assert replication.rows("items", "id, c")[:2] == [(1, 6), (2, 102)]


@pytest.mark.full
def test_a_column_that_is_left_out_stays_out(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "ALTER TABLE items ADD c int DEFAULT 5; UPDATE items SET name = 'x' WHERE id = 1",
        sections={"destination_section": {"schema_evolution": {"new_column": "ignore"}}},
    )
    assert [len(row) for row in replication.rows("items")] == [2] * 9


def changes_of(replication: Replication) -> list[tuple[str | None, str]]:
    return [(change.column, change.action) for change in replication.catch_up()["items"].schema_changes]


@pytest.mark.parametrize(
    "added",
    [
        pytest.param("ADD c uuid DEFAULT gen_random_uuid()", id="volatile"),
        pytest.param("ADD c int GENERATED BY DEFAULT AS IDENTITY", id="identity", marks=pytest.mark.full),
        pytest.param("ADD c int GENERATED ALWAYS AS (id * 2) STORED", id="computed", marks=[pytest.mark.full]),
        pytest.param("ADD c int DEFAULT 5; VACUUM FULL items", id="written again since", marks=pytest.mark.full),
        pytest.param(
            "ADD c int DEFAULT 5; ALTER TABLE items ALTER c TYPE bigint USING c + id",
            id="another type since",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_value_that_nobody_tells_is_warned_of_with_what_to_do(replicate: Replicate, added: str) -> None:
    replication = replicate("items")
    replication.source.execute(ITEMS)
    replication.catch_up()
    for statement in f"ALTER TABLE items {added}".split("; "):
        replication.source.execute(statement)
    replication.source.execute("UPDATE items SET name = 'x' WHERE id = 1")
    lines: list[str] = []
    [change] = replication.catch_up(on_log=lambda level, line: lines.append(line) if level >= 30 else None)[
        "items"
    ].schema_changes
    assert (change.column, change.action) == ("c", "unfilled")
    [line] = lines
    assert line.startswith("items: destination: column c")
    assert "--full-refresh" in line
    assert replication.rows("items", "id, c IS NULL")[:2] == [(1, False), (2, True)]
    replication.catch_up(full_refresh=["items"])
    assert replication.rows("items") == replication.source.fetch("SELECT * FROM items ORDER BY 1")


@pytest.mark.parametrize("before", ["", pytest.param("VACUUM FULL items", marks=pytest.mark.full)])
def test_a_default_that_came_after_its_column_alarms_nobody(replicate: Replicate, before: str) -> None:
    replication = replicate("items")
    replication.source.execute(ITEMS)
    replication.source.execute(before)
    replication.catch_up()
    replication.source.execute("ALTER TABLE items ADD c uuid")
    replication.source.execute("ALTER TABLE items ALTER c SET DEFAULT gen_random_uuid()")
    replication.source.execute("INSERT INTO items VALUES (10, 'x')")
    assert changes_of(replication) == [("c", "added")]
    replication.assert_mirrors()


@pytest.mark.full
def test_a_table_that_is_empty_lacks_no_value(replicate: Replicate) -> None:
    replication = replicate("items")
    replication.source.execute("CREATE TABLE items (id int PRIMARY KEY)")
    replication.catch_up()
    replication.source.execute("ALTER TABLE items ADD c uuid DEFAULT gen_random_uuid(); INSERT INTO items VALUES (10)")
    assert changes_of(replication) == [("c", "added")]
    replication.assert_mirrors()


@pytest.mark.full
def test_a_column_that_the_pipeline_did_not_ask_for_before_is_warned_of(replicate: Replicate) -> None:
    """It may hold anything in rows that are there, whatever it was added with."""
    replication = replicate({"name": "items", "columns": ["id"]})
    replication.source.execute(
        "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1), (2);"
        "ALTER TABLE items ADD c int DEFAULT 5; UPDATE items SET c = 6 WHERE id = 2"
    )
    replication.catch_up()
    replication.streams = [{"name": "items", "columns": ["id", "c"]}]
    replication.source.execute("INSERT INTO items VALUES (3)")
    assert changes_of(replication) == [("c", "unfilled")]
    assert replication.rows("items", "id, c") == [(1, None), (2, None), (3, 5)]
