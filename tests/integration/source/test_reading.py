"""What a read takes in and leaves out: tables and other relations, columns, filters, batches, snapshots."""

from __future__ import annotations

import json
import threading
import time

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import ConfigError, Kind, RunCancelled, SourceError
from rapidbyte_dagster.runtime import LogLevel
from tests.integration.source.reading import (
    Collected,
    open_argument,
    open_source,
    read_stream,
    stream_argument,
)
from tests.postgres_server import Database, unique_name


@pytest.fixture
def users(source_db: Database) -> Database:
    source_db.execute(
        '''
        create table users (id int primary key, email text not null, "Full ""Name""" text, gone boolean default false);
        insert into users values (1, 'a@x', 'Ann', false), (2, 'b@x', null, true), (3, 'c@x', 'Cem', false);
        '''
    )
    return source_db


def test_a_table_arrives_whole_with_its_key_and_nullability(users: Database) -> None:
    got = read_stream(users.config, "users")
    assert got.schema.names == ["id", "email", 'Full "Name"', "gone"]
    assert [field.nullable for field in got.schema] == [False, False, True, True]
    assert json.loads(got.schema.metadata[b"rapidbyte:primary_key"]) == ["id"]
    assert got.table.to_pydict() == {
        "id": [1, 2, 3],
        "email": ["a@x", "b@x", "c@x"],
        'Full "Name"': ["Ann", None, "Cem"],
        "gone": [False, True, False],
    }
    assert got.received > 0


def test_columns_come_in_the_order_in_which_they_were_named(users: Database) -> None:
    got = read_stream(users.config, "users", columns=['Full "Name"', "id"])
    assert got.schema.names == ['Full "Name"', "id"]
    assert b"rapidbyte:primary_key" in got.schema.metadata
    got = read_stream(users.config, "users", columns=["email"])
    assert got.schema.metadata is None


def test_a_filter_selects_rows_even_with_a_comment_at_its_end(users: Database) -> None:
    assert read_stream(users.config, "users", filter="not gone -- the living)").column("id") == [1, 3]
    assert read_stream(users.config, "users", filter="email like '%a@%' or id = 2").column("id") == [1, 2]


def test_a_filter_cannot_end_the_statement_and_start_another(users: Database) -> None:
    for attack in (
        "true); drop table users; --",
        "true\n)\n) to stdout; drop table users; --",
        "true; drop table users",
    ):
        with pytest.raises(ConfigError) as caught:
            read_stream(users.config, "users", filter=attack)
        assert caught.value.kind is Kind.CONFIG
        assert caught.value.info.sqlstate == "42601"
    assert users.fetch_value("select count(*) from users") == 3


def test_a_broken_filter_is_reported_in_the_servers_words(users: Database) -> None:
    with pytest.raises(SourceError, match='column "nope" does not exist') as caught:
        read_stream(users.config, "users", filter="nope = 1")
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(ConfigError, match="syntax error"):
        read_stream(users.config, "users", filter="id = (1")


def test_a_filter_and_a_view_find_what_the_users_own_search_path_finds(users: Database) -> None:
    users.execute(
        """
        create schema rules;
        create function rules.is_old(n int) returns boolean language sql as 'select n > 2';
        create table limits (n int); insert into limits values (1);
        create function above(n int) returns boolean language sql as 'select n > (select max(limits.n) from limits)';
        create view above_limit as select id from users where above(id);
        """
    )
    assert read_stream(users.config, "users", filter="above(id)").column("id") == [2, 3]
    assert read_stream(users.config, "above_limit").column("id") == [2, 3]
    with pytest.raises(ConfigError, match="is_old"):
        read_stream(users.config, "users", filter="is_old(id)")
    users.execute(f"alter role etl in database {users.name} set search_path to rules, public", superuser=True)
    assert read_stream(users.config, "users", filter="is_old(id)").column("id") == [3]


def test_names_that_a_column_prints_come_with_their_schema(users: Database) -> None:
    users.execute("create table named as select 'users'::regclass as one, array['users'::regclass] as many")
    got = read_stream(users.config, "named", filter="one is not null")
    assert got.table.to_pylist() == [{"one": "public.users", "many": "{public.users}"}]


def test_a_statement_of_a_client_that_is_gone_is_stopped_by_the_server(users: Database) -> None:
    users.execute("create view slow as select id, pg_sleep(600)::text as slept from users")
    running = (
        "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'"
        " and pid <> pg_backend_pid() and query like 'COPY%'"
    )
    with open_source(Collected(), users.config) as instance:
        instance.call("rb_open", open_argument(users.config, "slow"))
        argument = {"stream": stream_argument("slow"), "cursor": None, "max_batch_bytes": 1 << 20}

        def stop_when_it_runs() -> None:
            wait_until(users, running, 1)
            instance.cancel()

        stopper = threading.Thread(target=stop_when_it_runs)
        stopper.start()
        with pytest.raises(RunCancelled):
            instance.call("rb_read", argument)
        stopper.join()
    wait_until(users, running, 0)


def wait_until(database: Database, sql: str, value: int) -> None:
    for _ in range(200):
        if database.fetch_value(sql) == value:
            return
        time.sleep(0.05)
    raise AssertionError(f"never {value}: {sql}")


def test_an_empty_table_has_a_schema_and_no_batch(source_db: Database) -> None:
    source_db.execute("create table nothing (id bigint primary key, at timestamptz)")
    got = read_stream(source_db.config, "nothing")
    assert got.rows == 0
    assert len(got.messages) == 1
    assert got.schema.names == ["id", "at"]


def test_a_table_without_columns_still_has_rows(source_db: Database) -> None:
    source_db.execute("create table bare (); insert into bare select from generate_series(1, 70000)")
    got = read_stream(source_db.config, "bare")
    assert (got.rows, got.schema.names) == (70000, [])


def test_dropped_columns_are_gone_and_generated_ones_are_there(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (a int, b text, c int generated always as (a * 2) stored);
        insert into t (a, b) values (21, 'x');
        alter table t drop column b;
        alter table t add column d text default 'later';
        """
    )
    assert read_stream(source_db.config, "t").table.to_pydict() == {"a": [21], "c": [42], "d": ["later"]}


def test_every_kind_of_relation_can_be_read(source_db: Database) -> None:
    source_db.execute(
        """
        create table parts (id int, at date, primary key (id, at)) partition by range (at);
        create table parts_1 partition of parts for values from ('2024-01-01') to ('2025-01-01');
        create table parts_2 partition of parts for values from ('2025-01-01') to ('2026-01-01');
        insert into parts select n, date '2024-12-30' + n from generate_series(1, 5) n;
        create view parts_view as select id from parts;
        create materialized view parts_kept as select id from parts;
        create table base (id int);
        create table derived (extra text) inherits (base);
        insert into base values (1);
        insert into derived values (2, 'x');
        """
    )
    assert sorted(read_stream(source_db.config, "parts").column("id")) == [1, 2, 3, 4, 5]
    assert sorted(read_stream(source_db.config, "parts_1").column("id")) == [1]
    assert sorted(read_stream(source_db.config, "parts_view").column("id")) == [1, 2, 3, 4, 5]
    assert sorted(read_stream(source_db.config, "parts_kept").column("id")) == [1, 2, 3, 4, 5]
    assert sorted(read_stream(source_db.config, "base").column("id")) == [1, 2]
    assert json.loads(read_stream(source_db.config, "parts").schema.metadata[b"rapidbyte:primary_key"]) == ["id", "at"]


def test_odd_names_are_quoted(source_db: Database) -> None:
    source_db.execute(
        """
        create schema "my ""schema""; drop";
        create table "my ""schema""; drop"."select * from" ("a""b" int, "Ü 'quoted'" text, "order" int);
        insert into "my ""schema""; drop"."select * from" values (1, 'x', 2);
        """
    )
    got = read_stream(source_db.config, "select * from", schema='my "schema"; drop')
    assert got.table.to_pydict() == {'a"b': [1], "Ü 'quoted'": ["x"], "order": [2]}


def test_batches_stay_within_the_limit_and_rows_stay_in_order(source_db: Database) -> None:
    source_db.execute(
        """
        create table t as select n, repeat('x', n % 3000) as filler,
                                 array_fill(null::numeric, array[n % 500 + 1])::numeric(10,2)[] as nulls
        from generate_series(1, 5000) n
        """
    )
    limit = 200_000
    got = read_stream(source_db.config, "t", max_batch_bytes=limit)
    assert len(got.messages) > 10
    assert max(map(len, got.messages)) <= limit
    assert got.column("n") == list(range(1, 5001))
    assert got.column("filler") == ["x" * (n % 3000) for n in range(1, 5001)]
    assert [len(nulls) for nulls in got.column("nulls")] == [n % 500 + 1 for n in range(1, 5001)]


def test_narrow_rows_come_in_batches_of_at_most_65536(source_db: Database) -> None:
    source_db.execute(
        "create table t as select n::int2 % 2 = 0 as even from generate_series(1, 30000) n, generate_series(1, 5)"
    )
    got = read_stream(source_db.config, "t")
    assert got.rows == 150_000
    assert max(len(chunk) for chunk in got.table.column("even").chunks) <= 65_536


def test_a_value_of_20_mb_crosses_between_small_ones(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (n int, v text, b bytea);
        insert into t values (1, 'small', '\\x00'), (2, repeat('Ü', 10 * 1024 * 1024), null), (3, null, '\\x01'),
                             (4, 'end', decode(repeat('ab', 20 * 1024 * 1024), 'hex'));
        """
    )
    got = read_stream(source_db.config, "t", max_batch_bytes=4 * 1024 * 1024)
    assert got.column("v") == ["small", "Ü" * (10 * 1024 * 1024), None, "end"]
    assert got.column("b") == [b"\x00", None, b"\x01", b"\xab" * (20 * 1024 * 1024)]


def test_a_row_too_large_for_the_sandbox_is_a_resource_error(source_db: Database) -> None:
    source_db.execute("create table t as select repeat('x', 250 * 1024 * 1024) as v")
    with pytest.raises(SourceError) as caught:
        read_stream(source_db.config, "t")
    assert caught.value.kind is Kind.RESOURCE


def test_a_table_of_1600_columns_can_be_read(source_db: Database) -> None:
    columns = ", ".join(f"c{n} int" for n in range(1600))
    source_db.execute(f"create table wide ({columns})")
    source_db.execute("insert into wide (c0, c1599) values (1, 2), (3, 4)")
    got = read_stream(source_db.config, "wide")
    assert got.table.num_columns == 1600
    assert got.column("c1599") == [2, 4]
    assert got.column("c7") == [None, None]


class PausedAtFirst(Collected):
    """Waits at the schema message, until somebody lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def emit(self, message: bytes | bytearray) -> None:
        super().emit(message)
        self.reached.set()
        assert self.go_on.wait(30)


def test_a_read_sees_the_table_as_it_was_when_it_began(users: Database) -> None:
    host = PausedAtFirst()
    results: list[pa.Table] = []
    reader = threading.Thread(target=lambda: results.append(read_stream(users.config, "users", host=host).table))
    reader.start()
    assert host.reached.wait(30)
    users.execute("delete from users where id = 1; insert into users values (4, 'late', null)")
    host.go_on.set()
    reader.join(30)
    assert results[0].column("id").to_pylist() == [1, 2, 3]


def test_rows_that_policies_hide_are_warned_of(users: Database) -> None:
    role = unique_name("limited")
    users.server.create_role(role, password="limited-secret")
    users.execute(
        f"alter table users enable row level security; grant select on users to {role};"
        f"create policy p on users to {role} using (id > 1)"
    )
    got = read_stream({**users.config, "user": role, "password": "limited-secret"}, "users")
    assert got.column("id") == [2, 3]
    assert [level for level, text in got.logs if "row security" in text] == [LogLevel.WARNING]
    assert not [text for _, text in read_stream(users.config, "users").logs if "row security" in text]
