"""Inserts, updates, deletes and changes of keys: what the table holds after them is what the source holds."""

from __future__ import annotations

from tests.cdc.conftest import Follow, Replicate

ITEMS = """
    CREATE TABLE items (id int PRIMARY KEY, name text, n int);
    INSERT INTO items SELECT i, 'item ' || i, i FROM generate_series(1, 20) i;
"""


def test_inserts_updates_and_deletes_arrive(follow: Follow) -> None:
    follow(
        ITEMS,
        "INSERT INTO items SELECT i, NULL, -i FROM generate_series(21, 40) i",
        "UPDATE items SET name = name || ', changed' WHERE id % 3 = 0",
        "UPDATE items SET name = NULL, n = NULL WHERE id % 7 = 0",
        "DELETE FROM items WHERE id % 5 = 0",
    ).assert_mirrors()


def test_a_run_counts_what_it_did_and_the_next_one_has_nothing_to_do(follow: Follow) -> None:
    replication = follow(ITEMS)
    replication.source.execute(
        "INSERT INTO items VALUES (21), (22); UPDATE items SET n = 0 WHERE id IN (1, 2, 3); "
        "DELETE FROM items WHERE id = 4"
    )
    result = replication.catch_up()["items"]
    assert result.changes is not None
    assert {name: count for name, count in result.changes.items() if count} == {
        "inserted": 2,
        "updated": 3,
        "deleted": 1,
    }
    again = replication.run()
    assert again.transactions == 0
    [idle] = again.streams.values()
    assert getattr(idle, "rows", None) == 0
    replication.assert_mirrors()


def test_several_changes_of_one_row_in_one_transaction_leave_its_last_state(follow: Follow) -> None:
    follow(
        ITEMS,
        """
        UPDATE items SET n = n + 1 WHERE id = 1; UPDATE items SET name = 'twice' WHERE id = 1;
        INSERT INTO items VALUES (30, 'new', 0); UPDATE items SET n = 1 WHERE id = 30;
        UPDATE items SET n = 5 WHERE id = 2; DELETE FROM items WHERE id = 2;
        """,
        "UPDATE items SET n = n * 2 WHERE id = 30; UPDATE items SET n = n + 7 WHERE id = 30",
    ).assert_mirrors()


def test_a_row_that_comes_and_goes_in_one_run_is_not_there(follow: Follow) -> None:
    follow(
        ITEMS,
        "INSERT INTO items VALUES (30, 'new', 0); DELETE FROM items WHERE id = 30",
        "INSERT INTO items VALUES (31, 'new', 0)",
        "DELETE FROM items WHERE id = 31",
    ).assert_mirrors()


def test_a_row_that_is_deleted_and_inserted_again_has_its_new_values(follow: Follow) -> None:
    follow(
        ITEMS,
        "DELETE FROM items WHERE id = 1; INSERT INTO items (id, n) VALUES (1, 100)",
        "DELETE FROM items WHERE id = 2",
        "INSERT INTO items (id, name) VALUES (2, 'again')",
        "DELETE FROM items WHERE id = 2; INSERT INTO items (id, name) VALUES (2, 'and again')",
    ).assert_mirrors()


def test_a_key_that_changes_moves_its_row(follow: Follow) -> None:
    follow(
        ITEMS,
        "UPDATE items SET id = 101 WHERE id = 1",
        "UPDATE items SET id = 102, name = 'moved', n = NULL WHERE id = 2",
        "UPDATE items SET id = 103 WHERE id = 3; UPDATE items SET id = 203 WHERE id = 103; "
        "DELETE FROM items WHERE id = 203",
        "UPDATE items SET id = 104 WHERE id = 4; INSERT INTO items VALUES (4, 'another', 4)",
    ).assert_mirrors()


def test_a_key_that_moves_away_and_back_is_the_row_that_it_was(follow: Follow) -> None:
    follow(
        ITEMS,
        "UPDATE items SET id = -1 WHERE id = 1; UPDATE items SET id = 1, n = 7 WHERE id = -1",
        "UPDATE items SET id = -2 WHERE id = 2",
        "UPDATE items SET id = 2 WHERE id = -2",
    ).assert_mirrors()


def test_keys_that_two_rows_exchange_arrive(follow: Follow) -> None:
    follow(
        ITEMS,
        "UPDATE items SET id = 0 WHERE id = 1; UPDATE items SET id = 1 WHERE id = 2; "
        "UPDATE items SET id = 2 WHERE id = 0",
    ).assert_mirrors()


def test_keys_that_all_move_up_by_one_arrive(follow: Follow) -> None:
    """Each row takes the key of the one before it."""
    follow(
        """
        CREATE TABLE items (id int, name text, PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED);
        ALTER TABLE items REPLICA IDENTITY FULL;
        INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 300) i;
        """,
        "UPDATE items SET id = id + 1",
        "UPDATE items SET id = id - 2",
        streams=[{"name": "items", "primary_key": ["id"]}],
    ).assert_mirrors(keyed=True)


def test_a_key_that_takes_a_deleted_rows_place_is_one_row(follow: Follow) -> None:
    follow(
        ITEMS,
        "DELETE FROM items WHERE id = 1; UPDATE items SET id = 1 WHERE id = 2",
        "DELETE FROM items WHERE id = 3",
        "UPDATE items SET id = 3 WHERE id = 4",
        "UPDATE items SET id = 4 WHERE id = 5",
    ).assert_mirrors()


def test_a_key_of_several_columns_with_odd_names_arrives(follow: Follow) -> None:
    follow(
        """
        CREATE TABLE items ("Region 'x'" text, n numeric, name text, at timestamptz, PRIMARY KEY (at, "Region 'x'"));
        INSERT INTO items SELECT 'r' || i % 3, i, 'it''s ' || i, '2024-01-01Z'::timestamptz + i * interval '1.000001 s'
            FROM generate_series(1, 50) i;
        """,
        "UPDATE items SET n = n / 3",
        """UPDATE items SET "Region 'x'" = '' WHERE n < 3""",
        "UPDATE items SET at = at + interval '1 year' WHERE n > 10",
        """DELETE FROM items WHERE "Region 'x'" = 'r1' """,
    ).assert_mirrors()


def test_a_transaction_that_is_rolled_back_never_arrives(follow: Follow) -> None:
    replication = follow(ITEMS)
    with replication.source.connect() as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO items VALUES (100)")
        session.execute("SAVEPOINT a")
        session.execute("UPDATE items SET n = -1")
        session.execute("ROLLBACK TO a")
        session.execute("INSERT INTO items VALUES (101)")
        session.execute("COMMIT")
        session.execute("BEGIN")
        session.execute("DELETE FROM items")
        session.execute("ROLLBACK")
    result = replication.catch_up()["items"]
    assert result.rows == 2
    replication.assert_mirrors()


def test_messages_and_origins_beside_the_changes_change_nothing(follow: Follow) -> None:
    """Also in transactions that the server sends before they are committed."""
    replication = follow(ITEMS)
    name = f"origin_of_{replication.source.name}"
    small = f"ALTER DATABASE {replication.source.name} SET logical_decoding_work_mem"
    replication.source.execute(f"{small} = '64kB'", superuser=True)
    message = "SELECT pg_logical_emit_message({}, 'prefix', 'content');"
    replication.source.execute(
        f"""
        SELECT pg_replication_origin_create('{name}');
        SELECT pg_replication_origin_session_setup('{name}'); BEGIN;
        SELECT pg_replication_origin_xact_setup('0/1000', now());
        {message.format("true")} INSERT INTO items VALUES (21, 'of an origin'); {message.format("false")}
        COMMIT; BEGIN; SELECT pg_replication_origin_xact_setup('0/2000', now());
        INSERT INTO items SELECT i, repeat('large', 20) FROM generate_series(22, 5000) i; {message.format("true")}
        UPDATE items SET n = 0 WHERE id > 3000; COMMIT;
        SELECT pg_replication_origin_session_reset(); SELECT pg_replication_origin_drop('{name}');
        """,
        superuser=True,
    )
    replication.source.execute(message.format("true") + message.format("false"))
    replication.catch_up()
    replication.assert_mirrors()


def test_columns_that_are_not_chosen_stay_away_and_their_changes_change_nothing(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "UPDATE items SET name = 'secret'",
        "UPDATE items SET n = 0 WHERE id < 3",
        "INSERT INTO items VALUES (30, 'secret', 30)",
        "UPDATE items SET id = 40 WHERE id = 4",
        "DELETE FROM items WHERE id = 5",
        streams=[{"name": "items", "columns": ["n", "id"]}],
    )
    replication.assert_mirrors(columns=["n", "id"])


def test_tables_of_other_schemas_and_names_arrive_where_they_are_told_to(replicate: Replicate) -> None:
    replication = replicate({"name": "Odd items", "schema": "Sales 2024", "table": "odd"}, "items")
    replication.source.execute(
        'CREATE SCHEMA "Sales 2024"; CREATE TABLE "Sales 2024"."Odd items" ("Id" int PRIMARY KEY, "select" text);'
        " CREATE TABLE items (id int PRIMARY KEY)"
    )
    replication.catch_up()
    replication.source.execute(
        """INSERT INTO "Sales 2024"."Odd items" VALUES (1, 'a'), (2, 'b'); INSERT INTO items VALUES (9)"""
    )
    replication.source.execute("""UPDATE "Sales 2024"."Odd items" SET "Id" = 3 WHERE "Id" = 2""")
    replication.catch_up()
    assert replication.rows("odd") == [(1, "a"), (3, "b")]
    assert replication.rows("items", order="1") == [(9,)]


def test_tables_that_are_no_stream_are_not_captured(replicate: Replicate) -> None:
    replication = replicate("items")
    replication.source.execute(ITEMS + "CREATE TABLE other (id int PRIMARY KEY)")
    replication.catch_up()
    replication.source.execute(
        "INSERT INTO other SELECT generate_series(1, 1000); INSERT INTO items VALUES (50, 'x', 50)"
    )
    assert replication.catch_up()["items"].rows == 1
    tables = replication.destination.fetch("SELECT tablename::text FROM pg_tables WHERE schemaname = 'raw'")
    assert ("other",) not in tables
    assert ("items",) in tables


def test_soft_deletes_keep_the_row_and_tell_when_it_went(follow: Follow) -> None:
    replication = follow(
        ITEMS,
        "DELETE FROM items WHERE id IN (1, 2, 3)",
        "INSERT INTO items VALUES (2, 'back', 0)",
        "UPDATE items SET id = 100 WHERE id = 4",
        "INSERT INTO items VALUES (50); DELETE FROM items WHERE id = 50",
        streams=[{"name": "items", "deletes": "soft"}],
    )
    alive = replication.rows("items", "id, name, n, _rb_deleted_at IS NULL", "id")
    there = {row[0]: row[1:3] for row in alive if row[3]}
    assert there == {i: (name, n) for i, name, n in replication.source.fetch("SELECT id, name, n FROM items")}
    gone = {row[0]: row[1:3] for row in alive if not row[3]}
    assert {1: ("item 1", 1), 3: ("item 3", 3)}.items() <= gone.items()
    # A key that changed is one that is gone.
    assert set(gone) - {50} == {1, 3, 4}
    recent = "min(_rb_deleted_at) > now() - interval '5 min' AND max(_rb_deleted_at) <= now()"
    told = replication.rows("items", recent, "1")
    assert told == [(True,)]
