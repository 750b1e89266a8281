"""`rb_check` and `rb_discover`: what is known before anything is read."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.source.reading import check, discover, stream_argument
from tests.postgres_server import Database, unique_name


@pytest.fixture
def shop(source_db: Database) -> Database:
    source_db.execute(
        """
        create schema crm;
        create type crm.mood as enum ('ok');
        create table crm.users (tenant int, id bigint, email text not null, price numeric(12,4), mood crm.mood,
                                tags text[], doc jsonb, ip inet, primary key (id, tenant));
        insert into crm.users values (1, 1, 'a@x');
        create table orders (id int primary key, at date) partition by range (id);
        create table orders_1 partition of orders for values from (0) to (1000);
        insert into orders select n, '2024-01-01' from generate_series(1, 500) n;
        create view recent as select id from orders;
        create materialized view kept as select id from orders;
        analyze;
        """
    )
    return source_db


def named(tables: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [table] = [table for table in tables if table["name"] == name]
    return table


def test_discover_lists_tables_with_columns_types_keys_and_estimates(shop: Database) -> None:
    tables = discover(shop.config, None)
    assert [(table["schema"], table["name"], table["kind"]) for table in tables] == [
        ("crm", "users", "table"),
        ("public", "kept", "materialized_view"),
        ("public", "orders", "partitioned_table"),
        ("public", "recent", "view"),
    ]
    users = named(tables, "users")
    assert users["primary_key"] == ["id", "tenant"]
    assert users["rows_estimate"] == 1
    assert users["bytes"] > 0
    assert users["columns"] == [
        {"name": "tenant", "type": "integer", "arrow_type": "int32", "nullable": False},
        {"name": "id", "type": "bigint", "arrow_type": "int64", "nullable": False},
        {"name": "email", "type": "text", "arrow_type": "string", "nullable": False},
        {"name": "price", "type": "numeric(12,4)", "arrow_type": "decimal128(12, 4)", "nullable": True},
        {"name": "mood", "type": "crm.mood", "arrow_type": "string", "nullable": True},
        {"name": "tags", "type": "text[]", "arrow_type": "list<item: string>", "nullable": True},
        {"name": "doc", "type": "jsonb", "arrow_type": "string", "nullable": True},
        {"name": "ip", "type": "inet", "arrow_type": "string", "nullable": True},
    ]
    assert named(tables, "orders")["rows_estimate"] == 500
    assert named(tables, "orders")["bytes"] > 0
    assert named(tables, "recent")["rows_estimate"] is None
    assert named(tables, "recent")["bytes"] is None
    assert named(tables, "kept")["rows_estimate"] == 500


def test_discover_of_one_schema_lists_only_its_tables(shop: Database) -> None:
    assert [table["name"] for table in discover(shop.config, "crm")] == ["users"]
    assert discover(shop.config, "no_such_schema") == []


def test_a_table_that_was_never_analysed_has_no_estimate(source_db: Database) -> None:
    source_db.execute("create table fresh (a int)")
    assert discover(source_db.config, "public")[0]["rows_estimate"] is None


def test_discover_shows_what_the_user_may_read(shop: Database) -> None:
    role = unique_name("visitor")
    shop.server.create_role(role, password="visitor-secret")
    shop.execute(f"grant select on orders to {role}")
    tables = discover({**shop.config, "user": role, "password": "visitor-secret"}, None)
    assert [table["name"] for table in tables] == ["orders"]


def test_check_finds_nothing_wrong_with_what_can_be_read(shop: Database) -> None:
    findings = check(shop.config, stream_argument("users", schema="crm", filter="price > 1"), stream_argument("recent"))
    assert [(finding["level"], finding["check"], finding["stream"]) for finding in findings] == [
        ("ok", "connection", None),
        ("ok", "table", "users"),
        ("ok", "table", "recent"),
    ]
    assert findings[0]["message"].startswith("connected to PostgreSQL")


def test_check_reports_every_stream_that_would_fail_and_changes_nothing(shop: Database) -> None:
    shop.execute(
        "create table locked (a int); revoke all on locked from public; alter table locked owner to postgres",
        superuser=True,
    )
    findings = check(
        shop.config,
        stream_argument("missing"),
        stream_argument("orders", columns=["id", "nope"]),
        stream_argument("orders", filter="at = 5"),
        stream_argument("orders", filter="at >"),
        stream_argument("locked"),
        stream_argument("orders", sync_mode="snapshot"),
        stream_argument("orders"),
    )
    assert [(finding["level"], finding["check"]) for finding in findings[1:]] == [
        ("error", "table"),
        ("error", "columns"),
        ("error", "filter"),
        ("error", "filter"),
        ("error", "privilege"),
        ("error", "sync_mode"),
        ("ok", "table"),
    ]
    assert all(finding["message"] and finding["hint"] for finding in findings[1:5])


@pytest.mark.full
def test_a_check_does_not_wait_for_a_table_that_another_session_alters(shop: Database) -> None:
    with shop.connect() as other:
        other.execute("begin")
        other.execute("lock table public.orders in access exclusive mode")
        started = time.monotonic()
        findings = check(shop.config, stream_argument("orders"), stream_argument("users", schema="crm"))
        other.execute("rollback")
    assert time.monotonic() - started < 15
    assert [(each["level"], each["stream"]) for each in findings] == [
        ("ok", None),
        ("error", "orders"),
        ("ok", "users"),
    ]
    assert "lock" in findings[1]["hint"]
