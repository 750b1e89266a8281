"""`rb_describe`: the schema message that a read begins with, without a read."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import ConfigError, Kind, RapidbyteError
from tests.integration.source.reading import (
    Collected,
    describe,
    open_argument,
    open_source,
    read_stream,
    stream_argument,
)
from tests.postgres_server import Database


@pytest.fixture
def shop(source_db: Database) -> Database:
    source_db.execute(
        """
        create schema crm;
        create type crm.mood as enum ('ok');
        create table crm.users (tenant int, id bigint, email varchar(40) not null, price numeric(12,4), free numeric,
                                mood crm.mood, tags text[], doc jsonb, ip inet, at timestamptz not null,
                                primary key (id, tenant));
        insert into crm.users values (1, 1, 'a@x', 1, 2, 'ok', '{a}', '{}', '10.0.0.1', '2024-01-01');
        create view recent as select id, email from crm.users;
        create table pairs (key int[] primary key, id int, at timestamptz);
        insert into pairs values ('{1,2}', 1, '2024-01-01');
        """
    )
    return source_db


def schema_of(message: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(message))


def first_message(config: dict[str, Any], name: str, **stream: Any) -> bytes:
    """What `rb_read` emits first."""
    host = Collected()
    with open_source(host, config) as instance:
        instance.call("rb_open", open_argument(config, name))
        argument = {"stream": stream_argument(name, **stream), "cursor": None, "max_batch_bytes": 1 << 20}
        instance.call("rb_read", argument)
    return host.messages[0]


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("users", {"schema": "crm"}),
        ("users", {"schema": "crm", "columns": ["email", "id", "tenant"], "filter": "price > 1 -- dear ones"}),
        ("users", {"schema": "crm", "columns": ["email"]}),
        ("users", {"schema": "crm", "write_mode": "upsert"}),
        ("users", {"schema": "crm", "sync_mode": "incremental", "cursor_field": "at"}),
        (
            "users",
            {
                "schema": "crm",
                "sync_mode": "incremental",
                "cursor_field": "at",
                "write_mode": "upsert",
                "cursor_lag": 60,
            },
        ),
        ("recent", {}),
        ("pairs", {}),
        ("pairs", {"sync_mode": "incremental", "cursor_field": "at"}),
    ],
)
def test_it_is_the_message_that_a_read_begins_with(shop: Database, name: str, stream: dict[str, Any]) -> None:
    assert describe(shop.config, name, **stream) == first_message(shop.config, name, **stream)


def test_columns_come_with_their_types_their_nullability_and_the_key(shop: Database) -> None:
    schema = schema_of(describe(shop.config, "users", schema="crm", columns=["id", "tenant", "price"]))
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        ("id", "int64", False),
        ("tenant", "int32", False),
        ("price", "decimal128(12, 4)", True),
    ]
    assert (schema.field("price").metadata or {})[b"rapidbyte:pg_type"] == b"numeric(12,4)"
    assert schema.metadata == {b"rapidbyte:primary_key": b'["id","tenant"]'}


def test_no_row_is_looked_at(shop: Database) -> None:
    fails_at_a_row = "1 / (id - id) > 0"
    with pytest.raises(RapidbyteError, match="division by zero"):
        read_stream(shop.config, "users", schema="crm", filter=fails_at_a_row)
    describe(shop.config, "users", schema="crm", filter=fails_at_a_row)
    describe(shop.config, "users", schema="crm", filter=fails_at_a_row, sync_mode="incremental", cursor_field="at")


def test_an_array_is_a_list_whatever_its_rows_hold(shop: Database) -> None:
    shop.execute("insert into crm.users (tenant, id, email, tags, at) values (1, 2, 'b@x', '{{a},{b}}', '2024-01-02')")
    described = schema_of(describe(shop.config, "users", schema="crm")).field("tags")
    read = schema_of(first_message(shop.config, "users", schema="crm")).field("tags")
    assert (str(described.type), str(read.type)) == ("list<item: string>", "string")
    assert described.metadata == read.metadata


def test_the_connection_can_be_asked_again_after_an_answer_and_after_an_error(shop: Database) -> None:
    host = Collected()
    with open_source(host, shop.config) as instance:
        instance.call("rb_open", open_argument(shop.config))
        instance.call("rb_describe", {"stream": stream_argument("recent")})
        with pytest.raises(RapidbyteError, match="missing"):
            instance.call("rb_describe", {"stream": stream_argument("missing")})
        instance.call("rb_describe", {"stream": stream_argument("recent")})
        shop.execute("alter table crm.users alter column ip set not null")
        instance.call("rb_describe", {"stream": stream_argument("users", schema="crm")})
    assert len(host.messages) == 3
    assert host.messages[0] == host.messages[1]
    assert not schema_of(host.messages[2]).field("ip").nullable


def test_errors_are_those_of_a_read(shop: Database) -> None:
    with pytest.raises(RapidbyteError, match=r"there is no table public\.USERS") as missing:
        describe(shop.config, "USERS")
    assert missing.value.kind is Kind.NOT_FOUND
    assert missing.value.hint == "did you mean crm.users?"
    with pytest.raises(RapidbyteError, match=r"no such column: nope") as column:
        describe(shop.config, "recent", columns=["id", "nope"])
    assert column.value.hint == "its columns are: id, email"
    with pytest.raises(RapidbyteError, match="nope"):
        describe(shop.config, "recent", filter="nope = 1")
    with pytest.raises(ConfigError, match="cursor_field"):
        describe(shop.config, "recent", sync_mode="incremental")
    with pytest.raises(ConfigError, match="only tables have changes to capture"):
        describe(shop.config, "recent", sync_mode="cdc")


@pytest.mark.full
def test_it_does_not_wait_for_a_table_that_another_session_alters(shop: Database) -> None:
    with shop.connect() as other:
        other.execute("begin")
        other.execute("lock table crm.users in access exclusive mode")
        started = time.monotonic()
        with pytest.raises(RapidbyteError, match="lock"):
            describe(shop.config, "users", schema="crm")
        other.execute("rollback")
    assert time.monotonic() - started < 15
