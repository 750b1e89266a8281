"""Rows in the place of those with the same key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError
from rapidbyte_dagster.runtime import End, Item
from tests.integration.destination.feed import Destination, barrier, batch_item, column, committed, schema_item
from tests.postgres_server import Database

USERS = pa.schema(
    [column("id", pa.int64(), "bigint", nullable=False), column("email", pa.string(), "text")],
    metadata={"rapidbyte:primary_key": '["id"]'},
)
Row = tuple[Any, ...]


def rows(schema: pa.Schema, *values: Row) -> pa.Table:
    columns = zip(*values, strict=True) if values else [[] for _ in schema]
    arrays = [pa.array(list(v), f.type) for v, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def users(*values: Row) -> pa.Table:
    return rows(USERS, *values)


def content(database: Database, table: str = "users") -> list[Row]:
    return database.fetch(f"select id, email from {table} order by id")


def versions(database: Database, table: str = "users") -> dict[Any, str]:
    """Which transaction wrote each row: `xmin` by `id`."""
    return dict(database.fetch(f"select id, xmin::text from {table}"))


def indexes(database: Database, table: str = "users") -> list[str]:
    """Of unique ones, their columns."""
    return [
        name
        for (name,) in database.fetch(
            "select (select string_agg(attname, ',' order by attnum) from pg_attribute where attrelid = indexrelid)"
            f" from pg_index where indrelid = '{table}'::regclass and indisunique order by 1"
        )
    ]


def test_a_missing_table_is_created_with_the_key_as_its_primary_key(
    destination: Destination, destination_db: Database
) -> None:
    written = destination.write(users((1, "a"), (2, "b")), "upsert", schema="raw", table="app_users")
    assert written.result["created"] is True
    assert written.result["rows"] == 2
    assert written.result["primary_key"] == ["id"]
    assert written.result["columns"] == [
        {"name": "id", "type": "bigint", "nullable": False},
        {"name": "email", "type": "text", "nullable": True},
    ]
    assert content(destination_db, "raw.app_users") == [(1, "a"), (2, "b")]


def test_rows_with_a_known_key_are_updated_and_the_others_added(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(users((1, "a"), (2, "b")), "upsert")
    second = destination.write(users((2, "changed"), (3, None)), "upsert", sequence=2)
    assert second.result["created"] is False
    assert second.result["rows"] == 2
    assert second.result["primary_key"] == ["id"]
    assert content(destination_db) == [(1, "a"), (2, "changed"), (3, None)]


def test_rows_that_did_not_change_are_not_written_again(destination: Destination, destination_db: Database) -> None:
    destination.write(users((1, "a"), (2, None), (3, "c")), "upsert")
    before = versions(destination_db)
    destination.write(users((1, "a"), (2, None), (3, None), (4, "d")), "upsert", sequence=2)
    after = versions(destination_db)
    assert (after[1], after[2]) == (before[1], before[2])
    assert after[3] != before[3]
    assert content(destination_db) == [(1, "a"), (2, None), (3, None), (4, "d")]


def test_the_last_of_several_rows_with_one_key_wins_within_a_batch_and_across_batches_and_commits(
    destination: Destination, destination_db: Database
) -> None:
    def items() -> Iterator[Item]:
        yield schema_item(USERS)
        yield batch_item(users((1, "first"), (2, "only"), (1, "second"), (3, "x")).to_batches()[0])
        yield batch_item(users((1, "third"), (3, "y")).to_batches()[0])
        yield barrier(1, final=False)
        yield batch_item(users((3, "z"), (1, "fourth"), (1, "fifth")).to_batches()[0])
        yield barrier(2, final=False)
        yield barrier(3, final=False)
        yield batch_item(users((1, "last")).to_batches()[0])
        yield barrier(4)
        yield End()

    seen: list[list[Row]] = []
    written = destination.write(items(), "upsert", on_committed=lambda _: seen.append(content(destination_db)))
    assert seen == [
        [(1, "third"), (2, "only"), (3, "y")],
        [(1, "fifth"), (2, "only"), (3, "z")],
        [(1, "fifth"), (2, "only"), (3, "z")],
        [(1, "last"), (2, "only"), (3, "z")],
    ]
    assert [said["rows"] for name, said in written.feed.said if name == "prepare"] == [6, 3, 0, 1]
    assert written.result["rows"] == 10


def test_a_row_that_changes_and_changes_back_within_a_commit_is_not_written_again(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(users((1, "a")), "upsert")
    before = versions(destination_db)
    destination.write(users((1, "b"), (1, "a")), "upsert", sequence=2)
    assert content(destination_db) == [(1, "a")]
    assert versions(destination_db) == before


def test_the_order_of_arrival_decides_and_not_where_the_server_puts_the_rows(
    destination: Destination, destination_db: Database
) -> None:
    # Rows of many sizes: COPY goes back to pages that have room for a small one.
    count = 5_000
    values = [(i % 97, f"{i:05}" + "x" * (i * 7919 % 3_000)) for i in range(count)]
    destination.write(users(*values), "upsert")
    expected = dict(values)
    assert content(destination_db) == sorted(expected.items())


def test_an_empty_stream_makes_an_empty_table_and_later_changes_nothing(
    destination: Destination, destination_db: Database
) -> None:
    first = destination.write(USERS.empty_table(), "upsert")
    assert first.result["created"] is True
    assert first.result["primary_key"] == ["id"]
    destination.write(users((1, "a")), "upsert", sequence=2)
    destination.write(USERS.empty_table(), "upsert", sequence=3, cursor={"id": 7})
    assert content(destination_db) == [(1, "a")]
    assert destination.watermark("users") == committed(3, {"id": 7})


def test_many_rows_that_are_half_known_and_half_new(destination: Destination, destination_db: Database) -> None:
    destination.write(users(*((i, "old") for i in range(20_000))), "upsert")
    changed = [(i, "new") for i in range(0, 40_000, 2)]
    destination.write(users(*changed), "upsert", sequence=2)
    expected = dict.fromkeys(range(20000), "old") | dict(changed)
    assert content(destination_db) == sorted(expected.items())


def test_a_composite_key_in_another_order_than_the_index(destination: Destination, destination_db: Database) -> None:
    schema = pa.schema(
        [column("a", pa.int32(), "integer"), column("b", pa.string(), "text"), column("v", pa.int32(), "integer")]
    )
    destination_db.execute(
        "create table pairs (v int, a int, b text, unique (b, a)); insert into pairs values (1, 1, 'x')"
    )
    data = rows(schema, (1, "x", 10), (1, "y", 11), (2, "x", 12), (1, "x", 13))
    destination.write(data, "upsert", table="pairs", primary_key=["a", "b"])
    assert destination_db.fetch("select a, b, v from pairs order by a, b") == [(1, "x", 13), (1, "y", 11), (2, "x", 12)]
    assert len(indexes(destination_db, "pairs")) == 1


def test_a_stream_of_nothing_but_keys_adds_those_that_are_missing(
    destination: Destination, destination_db: Database
) -> None:
    schema = pa.schema([column("a", pa.int32(), "integer"), column("b", pa.string(), "text")])
    for sequence, values in enumerate([[(1, "x"), (1, "x")], [(1, "x"), (2, "y")]], start=1):
        destination.write(rows(schema, *values), "upsert", table="pairs", primary_key=["a", "b"], sequence=sequence)
        if sequence == 1:
            before = destination_db.fetch_value("select xmin::text from pairs")
    assert destination_db.fetch("select a, b from pairs order by a") == [(1, "x"), (2, "y")]
    assert destination_db.fetch_value("select xmin::text from pairs where a = 1") == before


@pytest.mark.parametrize(
    ("count", "kind", "pg_type"),
    [(400, pa.bool_(), "boolean"), (1599, pa.bool_(), "boolean"), (1599, pa.float32(), "real")],
)
def test_a_wide_table(
    destination: Destination, destination_db: Database, count: int, kind: pa.DataType, pg_type: str
) -> None:
    on, off = (True, False) if pg_type == "boolean" else (1.0, 0.0)
    names = [f"c{i}" for i in range(count - 1)]
    schema = pa.schema(
        [column("id", pa.int16(), "smallint", nullable=False), *(column(n, kind, pg_type) for n in names)]
    )
    first = rows(schema, (1, *[on] * len(names)), (2, *[None] * len(names)))
    destination.write(first, "upsert", table="wide", primary_key=["id"])
    second = rows(schema, (2, *[None] * (len(names) - 1), off), (3, *[off] * len(names)))
    destination.write(second, "upsert", table="wide", primary_key=["id"], sequence=2)
    found = destination_db.fetch(f"select id, {names[0]}, {names[-1]} from wide order by id")
    assert found == [(1, on, on), (2, None, off), (3, off, off)]


def test_as_many_columns_as_a_table_can_have_are_one_too_many(destination: Destination) -> None:
    schema = pa.schema([column(f"c{i}", pa.bool_(), "boolean") for i in range(1600)])
    with pytest.raises(RapidbyteError, match="one column more than the stream's 1600") as raised:
        destination.write(schema.empty_table(), "upsert", table="wide", primary_key=["c0"])
    assert raised.value.kind is Kind.UNSUPPORTED


def test_a_column_that_is_called_like_the_staging_table_s_own(
    destination: Destination, destination_db: Database
) -> None:
    schema = pa.schema(
        [column("_rapidbyte_ordinal", pa.int64(), "bigint"), column("__rapidbyte_ordinal", pa.string(), "text")]
    )
    for sequence, value in enumerate("ab", start=1):
        data = rows(schema, (1, "x"), (1, value))
        destination.write(data, "upsert", table="t", primary_key=["_rapidbyte_ordinal"], sequence=sequence)
    assert destination_db.fetch("select * from t") == [(1, "b")]


def test_odd_names_are_names_like_any_other(destination: Destination, destination_db: Database) -> None:
    schema = pa.schema([column('na"me; drop table', pa.string(), "text"), column("select", pa.int32(), "integer"),
                        column("ü 'x' \\", pa.float64(), "double precision")])  # fmt: skip
    key = schema.names[:2]
    for sequence, value in enumerate((1.0, 2.0), start=1):
        data = rows(schema, ("v", 1, value), ("v", 1, value + 1))
        destination.write(
            data, "upsert", schema='sch"ema Ü', table='ta\'ble \\ "x"', primary_key=key, sequence=sequence
        )
    assert destination_db.fetch('select * from "sch""ema Ü"."ta\'ble \\ ""x"""') == [("v", 1, 3.0)]


def test_the_named_key_goes_before_the_source_s_own(destination: Destination, destination_db: Database) -> None:
    destination.write(users((1, "a"), (2, "a")), "upsert", primary_key=["email"])
    assert content(destination_db) == [(2, "a")]


# -- the unique index --------------------------------------------------------------------------------------------------


def test_a_missing_unique_index_is_created(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(
        "create table users (id bigint, email text); insert into users values (1, 'a'), (null, 'n'), (null, 'n')"
    )
    written = destination.write(users((1, "b"), (2, "c")), "upsert")
    assert written.feed.heard("created a unique index on (id) of public.users")
    assert indexes(destination_db) == ["id"]
    again = destination.write(users((2, "d")), "upsert", sequence=2)
    assert not again.feed.heard("created a unique index")
    assert content(destination_db) == [(1, "b"), (2, "d"), (None, "n"), (None, "n")]


def test_a_missing_unique_index_is_there_before_the_first_row_and_holds_nobody_up(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint, email text)")

    def items() -> Iterator[Item]:
        yield schema_item(USERS)
        yield batch_item(users((1, "a")).to_batches()[0])
        assert indexes(destination_db) == ["id"]
        destination_db.execute("set lock_timeout = '1s'; insert into users values (5, 'other')")
        yield barrier(1)
        yield End()

    destination.write(items(), "upsert")
    assert content(destination_db) == [(1, "a"), (5, "other")]


@pytest.mark.parametrize(
    ("what", "unusable"),
    [
        ("partial", "create unique index on users (id) where id > 0"),
        ("deferrable", "alter table users add unique (id) deferrable"),
        ("primary but deferrable", "alter table users add primary key (id) deferrable initially deferred"),
        ("on an expression", "create unique index on users ((id + 0))"),
        ("on more columns", "create unique index on users (id, email)"),
        ("not unique", "create index on users (id)"),
    ],
)
def test_an_index_that_cannot_tell_conflicts_does_not_count(
    destination: Destination, destination_db: Database, what: str, unusable: str
) -> None:
    destination_db.execute(f"create table users (id bigint, email text); insert into users values (1, 'a'); {unusable}")
    written = destination.write(users((1, "b"), (2, "c")), "upsert")
    assert written.feed.heard("created a unique index"), what
    destination.write(users((2, "d"), (3, "e")), "upsert", sequence=2)
    assert content(destination_db) == [(1, "b"), (2, "d"), (3, "e")]


def test_an_invalid_index_does_not_count(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table users (id bigint, email text); insert into users values (1, 'a'), (1, 'b')")
    with pytest.raises(Exception, match="could not create unique index"):
        destination_db.execute("create unique index concurrently broken on users (id)")
    destination_db.execute("delete from users where email = 'b'")
    assert destination.write(users((1, "c")), "upsert").feed.heard("created a unique index")
    assert content(destination_db) == [(1, "c")]


@pytest.mark.parametrize(
    "usable",
    [
        "create unique index on users (id) include (email)",
        "alter table users add unique nulls not distinct (id)",
        "create unique index on users (id desc nulls first) with (fillfactor = 50)",
        "alter table users add primary key (id)",
        "alter table users add unique (id) deferrable; alter table users add unique (id)",
    ],
)
def test_an_index_that_can_tell_conflicts_is_used(
    destination: Destination, destination_db: Database, usable: str
) -> None:
    destination_db.execute(f"create table users (id bigint, email text); insert into users values (1, 'a'); {usable}")
    written = destination.write(users((1, "b"), (2, "c")), "upsert")
    assert not written.feed.heard("created a unique index")
    assert content(destination_db) == [(1, "b"), (2, "c")]


def refused(destination: Destination, data: pa.Table, **options: Any) -> RapidbyteError:
    """The error of an upsert that takes no row."""

    def items() -> Iterator[Item]:
        yield schema_item(data.schema)
        raise AssertionError("rows were asked for")

    with pytest.raises(RapidbyteError) as raised:
        destination.write(items(), "upsert", **options)
    return raised.value


def test_repetitions_in_the_table_forbid_the_index_and_are_counted(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute(
        "create table users (id bigint, email text);"
        "insert into users values (1, 'a'), (1, 'b'), (1, 'c'), (2, 'a'), (2, 'b'), (3, 'a'), (null, 'x'), (null, 'x')"
    )
    error = refused(destination, users())
    assert "public.users needs a unique index on (id), and none can be created: 2 values of the key" in str(error)
    assert error.kind is Kind.DATA
    assert indexes(destination_db) == []


def test_a_partitioned_table_whose_partition_key_is_not_in_the_key_is_refused(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint, email text) partition by list (email)")
    error = refused(destination, users())
    assert error.kind is Kind.SCHEMA
    assert "it is partitioned by LIST (email), all of which a unique index has to hold" in str(error)


def test_the_index_of_another_owner_s_table_is_the_owner_s_to_create(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint, email text); grant all on users to etl", superuser=True)
    error = refused(destination, users())
    assert error.kind is Kind.PERMISSION
    assert "it belongs to postgres" in str(error)
    destination_db.execute("create unique index on users (id)", superuser=True)
    destination.write(users((1, "a"), (1, "b")), "upsert")
    assert content(destination_db) == [(1, "b")]


@pytest.mark.parametrize("existing", [False, True], ids=["new table", "existing table"])
def test_a_key_of_a_type_without_an_order_is_refused(
    destination: Destination, destination_db: Database, existing: bool
) -> None:
    schema = pa.schema([column("id", pa.string(), "json"), column("v", pa.int32(), "integer")])
    if existing:
        destination_db.execute("create table t (id json, v int)")
    error = refused(destination, schema.empty_table(), table="t", primary_key=["id"])
    assert error.kind is Kind.SCHEMA
    assert "json" in str(error)


def test_a_view_is_refused(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table t (id bigint primary key, email text); create view users as select * from t")
    error = refused(destination, users())
    assert error.kind is Kind.SCHEMA
    assert "public.users is a view: only tables can be written" in str(error)


def test_text_that_the_table_cuts_to_the_same_key_is_one_key(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table t (k varchar(3) primary key, v text); insert into t values ('abc', 'old')")
    schema = pa.schema([column("k", pa.string()), column("v", pa.string())])
    data = rows(schema, ("abc", "new"), ("abc ", "old"))
    destination.write(data, "upsert", table="t", primary_key=["k"])
    assert destination_db.fetch("select * from t") == [("abc", "old")]


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_an_upsert_without_a_key_is_refused(destination: Destination, destination_db: Database) -> None:
    error = refused(destination, pa.schema(list(USERS)).empty_table())
    assert error.kind is Kind.CONFIG
    assert "without a key" in str(error)
    assert destination_db.fetch_value("select to_regclass('users') is null") is True


@pytest.mark.parametrize("named", [["nope"], None])
def test_a_key_that_is_not_in_the_stream_is_refused_with_what_is(
    destination: Destination, destination_db: Database, named: list[str] | None
) -> None:
    schema = pa.schema(list(USERS), metadata={"rapidbyte:primary_key": '["id", "nope"]'})
    error = refused(destination, schema.empty_table(), primary_key=named)
    assert "column nope is not in the stream, whose columns are id, email" in str(error)
    assert error.kind is Kind.SCHEMA


@pytest.mark.parametrize("text_form", [False, True])
def test_null_in_a_key_is_told_with_column_and_row_and_nothing_is_written(
    destination: Destination, destination_db: Database, text_form: bool
) -> None:
    kind = column("part", pa.string(), "inet") if text_form else column("part", pa.string(), "text")
    schema = pa.schema([column("id", pa.int64(), "bigint"), kind])
    destination_db.execute(f"create table t (id bigint, part {'inet' if text_form else 'text'}, unique (id, part))")

    def items() -> Iterator[Item]:
        yield schema_item(schema)
        yield batch_item(rows(schema, (1, "10.0.0.1"), (2, "10.0.0.2")).to_batches()[0])
        yield batch_item(rows(schema, (3, "10.0.0.3"), (4, None)).to_batches()[0])
        raise AssertionError("more was asked for")

    with pytest.raises(DestinationError, match="column part of row 4 is NULL, and it is part of the key") as raised:
        destination.write(items(), "upsert", table="t", primary_key=["id", "part"])
    assert raised.value.kind is Kind.DATA
    assert destination_db.fetch_value("select count(*) from t") == 0


@pytest.mark.parametrize(
    ("constraint", "value", "named"),
    [
        ("add constraint told check (email is not null)", None, "told"),
        ("add constraint short check (length(email) < 5)", "longer", "short"),
        ("add constraint known foreign key (email) references emails", "c", "known"),
        ("add constraint once unique (email)", "a", "once"),
    ],
)
def test_a_row_that_breaks_a_constraint_is_a_data_error_that_names_it(
    destination: Destination, destination_db: Database, constraint: str, value: str | None, named: str
) -> None:
    destination_db.execute("create table emails (email text primary key); insert into emails values ('a'), ('b')")
    destination.write(users((1, "a"), (2, "b")), "upsert")
    destination_db.execute(f"alter table users {constraint}")
    for key in (2, 3):
        with pytest.raises(DestinationError) as raised:
            destination.write(users((key, value)), "upsert", sequence=2)
        assert raised.value.kind is Kind.DATA
        assert named in str(raised.value)
    assert content(destination_db) == [(1, "a"), (2, "b")]
    assert destination.watermark("users") == committed(1)


def test_a_stream_that_ends_without_rows_or_barrier_leaves_the_rows(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(users((1, "a")), "upsert")
    items: list[Item] = [schema_item(USERS), batch_item(users((1, "b")).to_batches()[0]), End()]
    with pytest.raises(DestinationError, match="ended without a barrier"):
        destination.write(items, "upsert", sequence=2)
    assert content(destination_db) == [(1, "a")]
