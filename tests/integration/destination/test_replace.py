"""Rows in a table's place, and what survives."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import DestinationError, Kind, SchemaError
from rapidbyte_dagster.runtime import End, Item
from tests.integration.destination.feed import Destination, Written, barrier, batch_item, column, schema_item
from tests.postgres_server import Database, unique_name

USERS = pa.schema(
    [
        column("id", pa.int64(), "bigint", nullable=False),
        column("email", pa.string(), "text", nullable=False),
        column("balance", pa.decimal128(12, 2), "numeric(12,2)"),
    ],
    metadata={"rapidbyte:primary_key": '["id"]'},
)

RICH_TABLE = """
    create table users (
        id bigint, email text collate "C" default 'none' not null, balance numeric(12,2) check (balance >= 0),
        size int generated always as (length(email)) stored,
        constraint "the key" primary key (id) include (email) deferrable initially deferred,
        constraint users_email_once unique (email)
    ) with (fillfactor = 80, autovacuum_enabled = false, toast.autovacuum_enabled = false);
    create index "by Lower" on users (lower(email) desc nulls last) where id > 0;
    create unique index by_size on users using btree (size, id) include (balance) with (fillfactor = 50);
    alter index "by Lower" alter column 1 set statistics 77;
    alter table users alter column email set statistics 55, alter column email set storage external,
        alter column balance set (n_distinct = -0.5);
    alter table users cluster on by_size;
    comment on table users is 'the ''users''';
    comment on column users.email is E'back\\\\slash';
    comment on index "by Lower" is 'an index';
    comment on constraint "the key" on users is 'a key';
    comment on constraint users_balance_check on users is 'a check';
    insert into users values (1, 'old', 1);
"""


def users(*ids: int) -> pa.Table:
    rows = {"id": list(ids), "email": [f"user{i}" for i in ids], "balance": [None for _ in ids]}
    return pa.table(rows, schema=USERS)


def ids(database: Database) -> list[int]:
    return [row[0] for row in database.fetch("select id from users order by id")]


def dumped(database: Database) -> list[str]:
    """The definition of `users`, line by line, as pg_dump sees it."""
    pg_dump = Path(database.server.installation.bin) / "pg_dump"
    done = subprocess.run(
        [pg_dump, "--schema-only", "--table=users", f"--dbname={database.superuser_dsn}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(line for line in done.stdout.splitlines() if line and not line.startswith(("--", "\\")))


def oid(database: Database) -> int:
    value = database.fetch_value("select 'users'::regclass::oid")
    assert isinstance(value, int)
    return value


def in_place(written: Written) -> bool:
    return written.feed.heard("replaced in place")


def test_replacing_what_is_not_there_creates_it(destination: Destination, destination_db: Database) -> None:
    written = destination.write(users(1, 2), "replace")
    assert written.result["created"] is True
    assert written.result["primary_key"] == ["id"]
    assert ids(destination_db) == [1, 2]


def test_only_the_new_rows_remain(destination: Destination, destination_db: Database) -> None:
    destination.write(users(1, 2, 3), "replace")
    second = destination.write(users(3, 4), "replace", sequence=2)
    assert second.result["created"] is False
    assert ids(destination_db) == [3, 4]


def test_an_empty_stream_leaves_an_empty_table(destination: Destination, destination_db: Database) -> None:
    destination.write(users(1, 2), "replace")
    destination.write(USERS.empty_table(), "replace", sequence=2)
    assert ids(destination_db) == []


def test_a_replacing_write_publishes_at_the_final_barrier_only(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(users(1), "replace")
    seen: list[list[int]] = []

    def items() -> Iterator[Item]:
        yield schema_item(USERS)
        yield batch_item(users(2).to_batches()[0])
        yield barrier(2, final=False)
        seen.append(ids(destination_db))
        yield batch_item(users(3).to_batches()[0])
        yield barrier(3)
        yield End()

    written = destination.write(items(), "replace")
    assert seen == [[1]]
    assert ids(destination_db) == [2, 3]
    assert written.feed.said[0][1]["rows"] == 2


def test_nothing_is_left_beside_the_table(destination: Destination, destination_db: Database) -> None:
    destination.write(users(1), "replace")
    destination.write(users(2), "replace", sequence=2)
    relations = destination_db.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'i') order by 1"
    )
    assert [name for (name,) in relations] == [
        "_rapidbyte_watermarks",
        "_rapidbyte_watermarks_pkey",
        "users",
        "users_pkey",
    ]


def test_a_swap_carries_over_everything_that_pg_dump_knows_of(
    destination: Destination, destination_db: Database
) -> None:
    reader, writer = unique_name("reader"), unique_name("Wri ter")
    destination_db.execute(f'create role {reader}; create role "{writer}"', superuser=True)
    try:
        destination_db.execute(RICH_TABLE)
        destination_db.execute(
            f"grant select on users to {reader} with grant option; grant insert on users to public;"
            f'grant update (balance) on users to "{writer}"; revoke delete on users from etl'
        )
        before, old = dumped(destination_db), oid(destination_db)
        written = destination.write(users(7, 8), "replace")
        assert not in_place(written)
        assert oid(destination_db) != old
        assert dumped(destination_db) == before
        assert destination_db.fetch("select id, size from users order by id") == [(7, 5), (8, 5)]
        assert destination_db.fetch("select bool_and(indisvalid) from pg_index where indrelid = 'users'::regclass") == [
            (True,)
        ]
    finally:
        destination_db.execute(f'drop owned by {reader}, "{writer}"; drop role {reader}, "{writer}"', superuser=True)


def test_a_superuser_leaves_the_table_to_its_owner(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(RICH_TABLE)
    before, old = dumped(destination_db), oid(destination_db)
    destination.with_config(user="postgres").write(users(7), "replace")
    assert oid(destination_db) != old
    assert dumped(destination_db) == before


def test_default_privileges_do_not_widen_who_may_read(destination: Destination, destination_db: Database) -> None:
    reader = unique_name("reader")
    destination_db.execute(f"create role {reader}", superuser=True)
    try:
        destination_db.execute("create table users (id bigint, email text, balance numeric(12,2))")
        destination_db.execute(f"alter default privileges grant select on tables to {reader}")
        written = destination.write(users(1), "replace")
        assert not in_place(written)
        assert destination_db.fetch_value(f"select has_table_privilege('{reader}', 'users', 'select')") is False
    finally:
        destination_db.execute(f"drop owned by {reader}; drop role {reader}", superuser=True)


@pytest.mark.parametrize(
    ("what", "sql"),
    [
        ("a view", "create view v as select id, email from users"),
        ("a materialized view", "create materialized view v as select count(*) from users"),
        ("a function's argument", "create function f(users) returns int language sql as 'select 1'"),
        ("a column of its type", "create table other (u users)"),
        ("a trigger", "create function f() returns trigger language plpgsql as 'begin return new; end';"
         "create trigger t before insert on users for each row execute function f()"),
        ("a publication", "create publication pub for table users with (publish = 'insert')"),
        ("extended statistics", "create statistics st on id, email from users"),
        ("a foreign key of its own", "create table other (id numeric(12,2) primary key); insert into other values (1);"
         "alter table users add foreign key (balance) references other"),
        ("a sequence", "alter table users add column n int generated by default as identity"),
        ("an exclusion constraint", "alter table users add exclude using btree (id with =)"),
        ("a replica identity", "alter table users replica identity full"),
        ("inheritance", "create table child () inherits (users)"),
        ("row-level security", "alter table users enable row level security"),
        ("being unlogged", "alter table users set unlogged"),
    ],
)  # fmt: skip
def test_what_a_swap_would_lose_keeps_the_table(
    destination: Destination, destination_db: Database, what: str, sql: str
) -> None:
    destination_db.execute(RICH_TABLE + sql)
    before, old = dumped(destination_db), oid(destination_db)
    written = destination.write(users(7, 8), "replace")
    assert in_place(written), what
    assert oid(destination_db) == old
    assert dumped(destination_db) == before
    assert ids(destination_db) == [7, 8]


def test_views_show_the_new_rows(destination: Destination, destination_db: Database) -> None:
    destination.write(users(1), "replace")
    destination_db.execute("create view v as select id from users")
    destination.write(users(2, 3), "replace", sequence=2)
    assert destination_db.fetch("select id from v order by id") == [(2,), (3,)]


@pytest.mark.parametrize("action", ["no action", "restrict", "cascade", "set null"])
def test_rows_that_stay_keep_the_rows_that_refer_to_them(
    destination: Destination, destination_db: Database, action: str
) -> None:
    destination.write(users(1, 2, 3), "replace")
    destination_db.execute(
        f"create table orders (id int, user_id bigint references users on delete {action});"
        "insert into orders values (10, 1), (11, 2)"
    )
    changed = pa.table({"id": [1, 2, 4], "email": ["changed", "user2", "new"], "balance": [None] * 3}, schema=USERS)
    written = destination.write(changed, "replace", sequence=2)
    assert in_place(written)
    assert destination_db.fetch("select id, user_id from orders order by id") == [(10, 1), (11, 2)]
    assert destination_db.fetch("select id, email from users order by id") == [(1, "changed"), (2, "user2"), (4, "new")]


def test_rows_that_go_follow_their_foreign_key_s_rule(destination: Destination, destination_db: Database) -> None:
    destination.write(users(1, 2), "replace")
    destination_db.execute(
        "create table orders (id int, user_id bigint references users on delete cascade);"
        "insert into orders values (10, 1), (11, 2)"
    )
    destination.write(users(2), "replace", sequence=2)
    assert destination_db.fetch("select id from orders") == [(11,)]


def test_a_row_that_others_refer_to_cannot_go(destination: Destination, destination_db: Database) -> None:
    destination.write(users(1, 2), "replace")
    destination_db.execute("create table orders (user_id bigint references users); insert into orders values (1)")
    with pytest.raises(DestinationError, match="foreign key") as raised:
        destination.write(users(2), "replace", sequence=2)
    assert raised.value.kind is Kind.DATA
    assert ids(destination_db) == [1, 2]


def test_a_table_that_refers_to_itself_is_replaced_as_a_whole(
    destination: Destination, destination_db: Database
) -> None:
    schema = pa.schema([column("id", pa.int32(), "integer", nullable=False), column("parent", pa.int32(), "integer")])
    destination_db.execute("create table tree (id int primary key, parent int references tree, label text default 'x')")
    for rows in ([(1, None), (2, 1), (3, 2)], [(3, None), (4, 3), (2, 4)], [(9, 9)]):
        data = pa.table({"id": [r[0] for r in rows], "parent": [r[1] for r in rows]}, schema=schema)
        destination.write(data, "replace", table="tree")
        assert sorted(destination_db.fetch("select id, parent from tree"), key=str) == sorted(rows, key=str)


def test_a_unique_value_may_move_from_a_row_that_goes_to_one_that_comes(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute(
        "create table users (id bigint primary key, email text unique, balance numeric(12,2));"
        "insert into users values (1, 'user7'), (2, 'b'); create table orders (user_id bigint references users);"
        "insert into orders values (2)"
    )
    destination.write(users(2, 7), "replace")
    assert destination_db.fetch("select id, email from users order by id") == [(2, "user2"), (7, "user7")]


def test_foreign_keys_to_a_column_that_the_stream_lacks_forbid_replacing(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute(
        "create table users (n int generated by default as identity unique,"
        " id bigint, email text, balance numeric(12,2));"
        "create table orders (n int references users (n))"
    )
    with pytest.raises(SchemaError, match="foreign keys point to its column n"):
        destination.write(users(2), "replace")


def test_another_owner_s_table_is_replaced_in_place(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(
        "create table users (id bigint primary key, email text, balance numeric(12,2)); insert into users values (1);"
        "grant insert, delete on users to etl",
        superuser=True,
    )
    written = destination.write(users(5), "replace")
    assert written.feed.heard("belongs to postgres")
    assert destination_db.fetch("select id from users", superuser=True) == [(5,)]


def test_a_policy_that_hides_rows_fails_instead_of_leaving_them(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute(
        "create table users (id bigint, email text, balance numeric(12,2)); insert into users values (1), (2);"
        "alter table users enable row level security; create policy p on users using (id > 1) with check (true);"
        "grant select, insert, delete on users to etl",
        superuser=True,
    )
    with pytest.raises(DestinationError) as raised:
        destination.write(users(5), "replace")
    assert raised.value.kind is Kind.PERMISSION
    assert destination_db.fetch("select id from users order by id", superuser=True) == [(1,), (2,)]


def test_another_set_of_columns_is_refused_and_the_table_stays(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(users(1), "replace")
    schema = pa.schema(
        [
            column("id", pa.int64(), "bigint"),
            column("email", pa.binary(), "bytea"),
            column("more", pa.int32(), "integer"),
        ]
    )
    with pytest.raises(SchemaError) as raised:
        destination.write(
            schema.empty_table(),
            "replace",
            sequence=2,
            schema_evolution={"new_column": "fail", "removed_column": "fail", "type_change": "fail"},
        )
    message = str(raised.value)
    assert "column email is text in the table and bytea in the stream (schema_evolution.type_change: fail)" in message
    assert "column more (integer) is new (schema_evolution.new_column: fail)" in message
    assert "column balance (numeric(12,2)) is not in the stream (schema_evolution.removed_column: fail)" in message
    assert ids(destination_db) == [1]


def test_a_text_form_column_is_replaced_in_place(destination: Destination, destination_db: Database) -> None:
    schema = pa.schema([column("id", pa.int32(), "integer"), column("address", pa.string(), "inet")])
    for addresses in (["10.0.0.1", None], ["::1/128"]):
        data = pa.table({"id": list(range(len(addresses))), "address": addresses}, schema=schema)
        destination.write(data, "replace", table="hosts")
    assert destination_db.fetch("select id, address::text from hosts") == [(0, "::1/128")]
