"""rb_check: what would stop a run, found before it, with nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.integration.destination.feed import Destination
from tests.postgres_server import Database, unique_name


def stream(mode: str = "append", **more: Any) -> dict[str, Any]:
    return {"name": "users", "schema": None, "table": "users", "write_mode": mode, "primary_key": None, **more}


def problems(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["message"] for finding in findings if finding["level"] == "error"]


def told(findings: list[dict[str, Any]], text: str) -> bool:
    return any(text in finding["message"] for finding in findings)


@pytest.fixture
def guest(destination: Destination, destination_db: Database, postgres: EmbeddedPostgres) -> Iterator[Destination]:
    """As a role that has no privileges."""
    user = unique_name("guest")
    postgres.create_role(user, password="guest")
    yield destination.with_config(user=user, password="guest")
    destination_db.execute(f"drop owned by {user}; drop role {user}", superuser=True)


def test_a_fresh_database_is_fine_and_stays_fresh(destination: Destination, destination_db: Database) -> None:
    findings = destination.with_config(schema="raw").check(stream())
    assert problems(findings) == []
    assert told(findings, "schema raw will be created")
    assert told(findings, "table raw.users will be created")
    assert destination_db.fetch_value("select count(*) from pg_namespace where nspname = 'raw'") == 0
    assert destination_db.fetch_value("select count(*) from pg_class where relnamespace = 'public'::regnamespace") == 0


@pytest.mark.parametrize(
    ("sql", "mode", "text"),
    [
        ("create table users (id int)", "append", "rows will be added to public.users"),
        ("create table users (id int)", "replace", "public.users will be replaced by a new table"),
        (
            "create table users (id int); create view v as select * from users",
            "replace",
            "in place: rule _RETURN on view",
        ),
    ],
)
def test_it_says_what_will_happen_to_an_existing_table(
    destination: Destination, destination_db: Database, sql: str, mode: str, text: str
) -> None:
    destination_db.execute(sql)
    findings = destination.check(stream(mode))
    assert problems(findings) == []
    assert told(findings, text)


def test_missing_privileges_are_errors(guest: Destination, destination_db: Database) -> None:
    destination_db.execute("create table users (id int)")
    assert problems(guest.check(stream())) == [
        "no tables may be created in schema public",
        "no INSERT on public.users",
    ]
    assert problems(guest.check(stream("replace")))[1:] == ["no INSERT on public.users", "no DELETE on public.users"]
    assert problems(guest.with_config(schema="raw").check()) == [
        "schema raw does not exist, and the user may not create it"
    ]


def test_an_impossible_target_is_an_error(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create view users as select 1 as id; create table real (id int)")
    assert problems(destination.check(stream())) == ["public.users is a view: only tables can be written"]
    assert problems(destination.check(stream(table="real", primary_key=["nope"]))) == ["public.real has no column nope"]
    assert problems(destination.check(stream(table="x" * 64)))[0].endswith("it is not of 1 to 63 bytes")
    assert "write mode merge is not supported" in problems(destination.check(stream("merge")))[0]


@pytest.mark.parametrize(
    ("table", "level", "text"),
    [
        (
            "id int primary key",
            "ok",
            "rows will be added to public.users, or take the place of those with the same key",
        ),
        ("id int", "warning", "public.users has no unique index on (id): the first run will create one"),
        ("id int unique deferrable", "warning", "public.users has no unique index on (id)"),
        ("n int", "error", "public.users has no column id"),
        (
            "id int, day date) partition by range (day",
            "error",
            "public.users has no unique index on (id), and none can be created: it is partitioned by RANGE (day)",
        ),
        (
            "id int) partition by range ((id + 1)",
            "error",
            "none can be created: it is partitioned by RANGE (((id + 1)))",
        ),
    ],
)
def test_it_says_whether_the_table_can_be_upserted_into(
    destination: Destination, destination_db: Database, table: str, level: str, text: str
) -> None:
    destination_db.execute(f"create table users ({table})")
    findings = destination.check(stream("upsert", primary_key=["id"]))
    assert [f["level"] for f in findings if text in f["message"]] == [level]
    assert destination_db.fetch_value("select count(*) from pg_index where indrelid = 'users'::regclass") == (
        "primary" in table or "unique" in table
    )


def test_privileges_of_an_upsert_that_are_missing_are_errors(guest: Destination, destination_db: Database) -> None:
    destination_db.execute("create table users (id int)")
    destination_db.execute(f'revoke temporary on database "{destination_db.name}" from public', superuser=True)
    assert problems(guest.check(stream("upsert", primary_key=["id"])))[1:] == [
        "the user may not create temporary tables, which an upsert needs",
        "no SELECT on public.users",
        "no INSERT on public.users",
        "no UPDATE on public.users",
        "public.users has no unique index on (id), and none can be created: it belongs to etl",
    ]


def test_findings_name_their_stream(destination: Destination) -> None:
    findings = destination.check(stream(), {**stream(), "name": "orders", "table": "orders"})
    assert {finding["stream"] for finding in findings} == {None, "users", "orders"}
