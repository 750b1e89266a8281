"""`rapidbyte check`: how streams and their tables differ, told before a run, with nothing changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.engine import Finding, check_pipeline
from rapidbyte_dagster.errors import Stage
from tests.integration.cli.command import in_process
from tests.pipelines import write_pipeline
from tests.postgres_server import Database, MakeDatabase

AGREE = "the stream's columns and those of the table agree"

COLUMNS = """
    SELECT table_name, column_name, data_type, character_maximum_length, is_nullable
    FROM information_schema.columns WHERE table_schema = 'raw' ORDER BY table_name, ordinal_position
"""


class Shop:
    """A pipeline of streams that have run, and what `check` says of it."""

    def __init__(self, folder: Path, source: Database, destination: Database) -> None:
        self.folder = folder
        self.source = source
        self.destination = destination

    def write(self, *streams: Any, policy: dict[str, str] | None = None, **options: Any) -> Path:
        section = {"schema_evolution": policy} if policy is not None else {}
        return write_pipeline(
            self.folder, self.source, self.destination, streams, destination_section=section, **options
        )

    def run(self, *streams: Any, **options: Any) -> None:
        done = in_process("run", self.write(*streams, **options))
        assert done.returncode == 0, done.stderr

    def check(self, *streams: Any, **options: Any) -> list[Finding]:
        return check_pipeline(load_pipeline(self.write(*streams, **options)), {})

    def compared(self, *streams: Any, **options: Any) -> list[tuple[str, str | None, str]]:
        """Level, stream and message of what is told of columns."""
        return [
            (finding.level, finding.stream, finding.message)
            for finding in self.check(*streams, **options)
            if finding.check == "schema" and "will be created" not in finding.message
        ]


@pytest.fixture
def shop(tmp_path: Path, source_db: Database, destination_db: Database) -> Shop:
    source_db.execute(
        """
        CREATE TABLE users (id int PRIMARY KEY, email varchar(10) NOT NULL, city text, price int);
        INSERT INTO users VALUES (1, 'a@x', 'Bern', 5);
        CREATE TABLE orders (id int);
        """
    )
    return Shop(tmp_path, source_db, destination_db)


def change_users(shop: Shop) -> None:
    shop.source.execute(
        "ALTER TABLE users ADD phone text, DROP city, ALTER email DROP NOT NULL, ALTER price TYPE bigint"
    )


def test_a_stream_that_never_ran_is_said_to_get_its_table_and_nothing_more(shop: Shop) -> None:
    findings = shop.check("users")
    assert [f.message for f in findings if f.stage is Stage.DESTINATION and f.stream and f.check == "table"] == [
        "table raw.users will be created"
    ]
    assert shop.compared("users") == []
    assert list(shop.folder.iterdir()) == [shop.folder / "shop.yaml"], "no state store is made"


def test_streams_whose_columns_agree_with_their_tables_are_said_to(shop: Shop) -> None:
    shop.run("users", "orders")
    assert shop.compared("users", "orders") == [("ok", "users", AGREE), ("ok", "orders", AGREE)]


def test_every_difference_is_told_with_what_the_policy_does_and_nothing_is_done(shop: Shop) -> None:
    shop.run("users", "orders")
    before = shop.destination.fetch(COLUMNS)
    change_users(shop)
    done = in_process("check", shop.write("users", "orders", policy={"type_change": "coerce"}))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    table = [tuple(filter(None, map(str.strip, line))) for line in lines]
    start = table.index(("destination", "users: its columns and those of the table differ"))
    assert table[start + 1 :] == [
        ("column", "in the stream", "in the table", "policy", "what a run does"),
        (
            *("ok", "email", "nullable", "not null", "nullability_change: allow"),
            "column email is NOT NULL in the table and may be NULL in the stream: it loses its NOT NULL",
        ),
        (
            *("ok", "price", "bigint", "integer", "type_change: coerce"),
            "column price is integer in the table and bigint in the stream: it becomes bigint",
        ),
        ("ok", "phone", "text", "-", "new_column: add", "column phone (text) is new: it is added"),
        (
            *("warning", "city", "-", "text", "removed_column: ignore"),
            "column city (text) is not in the stream (if it was renamed to phone, which is new: a rename is a removed"
            " and a new column): it stays, and NULL is written",
        ),
        ("ok", "destination", f"orders: {AGREE}"),
    ]
    assert shop.destination.fetch(COLUMNS) == before


def test_what_a_policy_refuses_is_an_error_of_the_schema(shop: Shop) -> None:
    shop.run("users")
    change_users(shop)
    path = shop.write("users", policy={"new_column": "fail", "nullability_change": "fail"})
    done = in_process("check", path)
    assert done.returncode == 3
    assert done.stdout.count("  error  ") == 3
    assert "stops: column price is integer in the table and bigint in the stream" in done.stdout
    for hint in ("new_column` to add or ignore", "type_change` to coerce or 'null'", "nullability_change` to allow"):
        assert done.stdout.count(f"or set `schema_evolution.{hint}") == 1
    run = in_process("run", path)
    assert run.returncode == 3, "as a run does"
    refused = [finding for finding in shop.check("users", policy={"new_column": "fail"}) if finding.level == "error"]
    assert [(finding.exit_code, finding.message) for finding in refused] == [
        (
            3,
            "column price is integer in the table and bigint in the stream (schema_evolution.type_change: fail)",
        ),
        (3, "column phone (text) is new (schema_evolution.new_column: fail)"),
    ]


@pytest.mark.parametrize("write_mode", ["replace", "upsert"])
def test_drift_is_told_in_the_other_write_modes_too(shop: Shop, write_mode: str) -> None:
    shop.run("users", write_mode=write_mode)
    shop.source.execute("ALTER TABLE users ADD phone text")
    assert shop.compared("users", write_mode=write_mode) == [
        ("ok", "users", "column phone (text) is new: it is added (schema_evolution.new_column: add)")
    ]


def test_drift_of_an_incremental_stream_is_told_too(shop: Shop) -> None:
    stream = {"name": "users", "sync_mode": "incremental", "cursor_field": "id"}
    shop.run(stream)
    shop.source.execute("ALTER TABLE users ADD phone text")
    assert [level for level, _, message in shop.compared(stream) if "phone" in message] == ["ok"]


def test_what_the_stream_once_brought_is_known_from_the_state_store(shop: Shop) -> None:
    shop.run("users")
    shop.source.execute("ALTER TABLE users ALTER city SET NOT NULL")
    [(level, _, message)] = shop.compared("users")
    assert (level, "it gets NOT NULL" in message) == ("ok", True)
    (shop.folder / ".rapidbyte").rename(shop.folder / "elsewhere")
    assert shop.compared("users") == [("ok", "users", AGREE)], "a table that was made otherwise stays as it is"
    assert not (shop.folder / ".rapidbyte").exists()


def test_a_state_store_that_cannot_be_opened_is_told_and_hides_nothing(shop: Shop) -> None:
    shop.run("users")
    shop.source.execute("ALTER TABLE users ADD phone text")
    (shop.folder / ".rapidbyte" / "state.db").write_text("this is no database, and long enough to be taken for one" * 9)
    path = shop.write("users")
    done = in_process("check", path)
    assert done.returncode == 6
    assert "column phone (text) is new: it is added" in done.stdout
    [at] = [n for n, line in enumerate(done.stdout.splitlines()) if line.startswith("  error  state        ")]
    assert "cannot be used" in done.stdout.splitlines()[at]
    assert "hint: the file is damaged" in done.stdout.splitlines()[at + 1]


def test_a_state_store_in_postgresql_is_looked_at_and_not_made(shop: Shop, make_database: MakeDatabase) -> None:
    database = make_database("state")
    store = {"state": {"backend": "postgres", "connection": database.dsn}}
    assert shop.compared("users", **store) == []
    assert database.fetch("SELECT relname FROM pg_class WHERE relname LIKE '%rapidbyte%'") == []
    shop.run("users", **store)
    shop.source.execute("ALTER TABLE users ALTER city SET NOT NULL")
    [(_, _, message)] = shop.compared("users", **store)
    assert "it gets NOT NULL" in message


def test_a_state_server_that_refuses_is_told_without_its_password(shop: Shop) -> None:
    dsn = shop.source.dsn.replace(shop.source.server.password, "s3cr3t-and-wrong")
    assert "s3cr3t-and-wrong" in dsn
    done = in_process("check", shop.write("users", state={"backend": "postgres", "connection": dsn}))
    assert done.returncode == 6
    assert "  error  state        the PostgreSQL state store cannot be reached" in done.stdout
    assert "s3cr3t" not in done.stdout + done.stderr


def test_what_no_policy_can_mend_is_told_of_its_stream_and_hides_no_other(shop: Shop) -> None:
    shop.source.execute("CREATE TYPE pair AS (a int, b int); CREATE TABLE pairs (id int, both_of pair)")
    shop.run("users")
    change_users(shop)
    findings = shop.check("pairs", "users")
    [failure] = [finding for finding in findings if finding.stream == "pairs" and finding.level == "error"]
    assert (failure.check, failure.stage, failure.exit_code) == ("schema", Stage.DESTINATION, 3)
    assert "there is no type public.pair" in failure.message
    assert "create the type" in str(failure.hint)
    assert any(finding.stream == "users" and finding.change for finding in findings)


def test_an_error_is_told_once(shop: Shop) -> None:
    shop.destination.execute("CREATE SCHEMA raw; CREATE VIEW raw.orders AS SELECT 1 AS id")
    errors = [
        (finding.stream, finding.stage) for finding in shop.check("missing", "orders") if finding.level == "error"
    ]
    assert errors == [("missing", Stage.SOURCE), ("orders", Stage.DESTINATION)]


def test_differences_are_told_of_a_table_that_cannot_be_written_too(shop: Shop) -> None:
    shop.run("users")
    shop.source.execute("ALTER TABLE users ADD phone text")
    shop.destination.execute("REVOKE INSERT ON raw.users FROM etl")
    about_users = [f for f in shop.check("users") if f.stream == "users" and f.stage is Stage.DESTINATION]
    assert [(finding.level, finding.check) for finding in about_users] == [("error", "privilege"), ("ok", "schema")]


def test_a_table_that_is_being_altered_is_not_waited_for(shop: Shop) -> None:
    shop.run("users", "orders")
    change_users(shop)
    with shop.destination.connect() as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE raw.users IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        compared = shop.compared("users", "orders", policy={"type_change": "coerce"})
        other.execute("ROLLBACK")
    assert time.monotonic() - started < 20
    assert ("ok", "orders", AGREE) in compared
