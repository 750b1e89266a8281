"""Rows added to a table."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from rapidbyte_dagster.runtime import End, Item
from tests.integration.destination.feed import Destination, barrier, batch_item, column, committed, schema_item
from tests.postgres_server import Database

USERS = pa.schema(
    [column("id", pa.int64(), "bigint", nullable=False), column("email", pa.string(), "character varying(40)")],
    metadata={"rapidbyte:primary_key": '["id"]'},
)


def users(*rows: tuple[int, str | None]) -> pa.Table:
    return pa.table({"id": [row[0] for row in rows], "email": [row[1] for row in rows]}, schema=USERS)


def test_a_missing_table_is_created_with_types_and_not_null(destination: Destination, destination_db: Database) -> None:
    written = destination.write(users((1, "a@x"), (2, None)), schema="raw", table="app_users")

    assert written.result["rows"] == 2
    assert written.result["bytes"] > 0
    assert written.result["created"] is True
    assert written.result["schema"] == "raw"
    assert written.result["table"] == "app_users"
    assert written.result["primary_key"] == []
    assert written.result["columns"] == [
        {"name": "id", "type": "bigint", "nullable": False},
        {"name": "email", "type": "character varying(40)", "nullable": True},
    ]
    assert destination_db.fetch("select * from raw.app_users order by id") == [(1, "a@x"), (2, None)]


def test_the_source_table_s_key_does_not_keep_a_row_from_being_added_again(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(users((1, "a")))
    destination.write(users((1, "changed"), (1, "a")), sequence=2)
    assert destination_db.fetch("select email from users order by 1") == [("a",), ("a",), ("changed",)]


def test_a_named_primary_key_is_made(destination: Destination, destination_db: Database) -> None:
    table = users((1, "a"), (1, "b"))
    written = destination.write(table, primary_key=["id", "email"], table="app_users", schema="raw")
    assert written.result["primary_key"] == ["id", "email"]
    keys = destination_db.fetch(
        "select conname from pg_constraint where conrelid = 'raw.app_users'::regclass and contype = 'p'"
    )
    assert keys == [("app_users_pkey",)]


def test_appending_twice_keeps_both(destination: Destination, destination_db: Database) -> None:
    destination.write(users((1, "a")))
    second = destination.write(users((2, "b")), sequence=2)
    assert second.result["created"] is False
    assert second.opened["watermark"] == committed(1)
    assert destination_db.fetch("select id from users order by id") == [(1,), (2,)]


def test_an_empty_stream_makes_an_empty_table_and_a_watermark(
    destination: Destination, destination_db: Database
) -> None:
    written = destination.write(USERS.empty_table(), sequence=4, cursor={"id": 7})
    assert written.result["rows"] == 0
    assert destination_db.fetch_value("select count(*) from users") == 0
    assert destination.watermark("users") == committed(4, {"id": 7})


def test_each_barrier_commits_what_came_before_it(destination: Destination, destination_db: Database) -> None:
    seen: list[tuple[int, int]] = []

    def look(payload: dict[str, int]) -> None:
        seen.append((payload["sequence"], destination_db.fetch_value("select count(*) from users")))

    def items() -> Iterator[Item]:
        yield schema_item(USERS)
        yield batch_item(users((1, "a"), (2, "b")).to_batches()[0])
        yield barrier(1, cursor=2, final=False)
        yield barrier(2, cursor=2, final=False)
        yield batch_item(users((3, "c")).to_batches()[0])
        yield batch_item(users((4, "d")).to_batches()[0])
        yield barrier(3, cursor=4)
        yield End()

    written = destination.write(items(), on_committed=look)
    assert seen == [(1, 2), (2, 2), (3, 4)]
    prepared = [said for name, said in written.feed.said if name == "prepare"]
    assert [said["rows"] for said in prepared] == [2, 0, 2]
    assert sum(said["bytes"] for said in prepared) == written.result["bytes"]
    assert destination.watermark("users") == committed(3, 4)


def test_columns_that_the_stream_lacks_get_their_default(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(
        "create table users (id bigint primary key, note text, email varchar(40), loaded int default 7, "
        "twice bigint generated always as (id * 2) stored, n bigint generated always as identity)"
    )
    destination.write(users((5, "e")))
    assert destination_db.fetch("select id, email, note, loaded, twice, n from users") == [(5, "e", None, 7, 10, 1)]


def test_a_partitioned_table_routes_the_rows(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(
        "create table users (id bigint not null, email varchar(40)) partition by range (id);"
        "create table users_low partition of users for values from (0) to (10);"
        "create table users_high partition of users for values from (10) to (20)"
    )
    destination.write(users((1, "a"), (11, "b")))
    assert destination_db.fetch("select id from users_low") == [(1,)]
    assert destination_db.fetch("select id from users_high") == [(11,)]


def test_triggers_of_the_target_find_their_tables_by_the_user_s_own_search_path(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute(
        "create table users (id bigint, email varchar(40)); create table seen (id bigint);"
        "create function note_user() returns trigger language plpgsql as "
        "'begin insert into seen values (new.id); return new; end';"
        "create trigger t after insert on users for each row execute function note_user()"
    )
    destination.write(users((1, "a"), (2, "b")))
    assert destination_db.fetch("select id from seen order by id") == [(1,), (2,)]


def test_odd_names_are_names_like_any_other(destination: Destination, destination_db: Database) -> None:
    schema = pa.schema(
        [
            column('na"me; drop table', pa.string(), "text"),
            column("select", pa.int32(), "integer"),
            column("ü 'x' \\", pa.int32(), "integer"),
        ]
    )
    table = pa.table({name: [value] for name, value in zip(schema.names, ["v", 1, 2], strict=True)}, schema=schema)
    for mode in ("append", "replace", "replace"):
        destination.write(table, mode, schema='sch"ema Ü', table='ta\'ble \\ "x"')
    rows = destination_db.fetch('select * from "sch""ema Ü"."ta\'ble \\ ""x"""')
    assert rows == [("v", 1, 2)]


def test_a_name_of_63_bytes_fits(destination: Destination, destination_db: Database) -> None:
    name = "n" * 63
    schema = pa.schema([column(name, pa.int32(), "integer")])
    table = pa.table({name: [1]}, schema=schema)
    for mode in ("append", "replace"):
        destination.write(table, mode, table=name)
    assert destination_db.fetch_value(f"select count(*) from {name}") == 1
