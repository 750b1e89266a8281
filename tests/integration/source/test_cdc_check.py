"""`rb_check` of streams that capture changes: every finding says what to do, and nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.integration.source.reading import check
from tests.integration.source.slot_verbs import Slot, cdc_stream
from tests.postgres_server import Database, unique_name


@pytest.fixture
def users(source_db: Database) -> Database:
    source_db.execute("create table users (id int primary key, email text)")
    return source_db


def of_check(findings: list[dict[str, Any]], name: str, level: str | None = None) -> list[str]:
    return [each["message"] for each in findings if each["check"] == name and level in (None, each["level"])]


def levels(findings: list[dict[str, Any]]) -> set[str]:
    return {each["level"] for each in findings}


def objects(database: Database) -> list[Any]:
    return database.fetch("select slot_name from pg_replication_slots") + database.fetch(
        "select oid from pg_publication"
    )


def test_a_pipeline_that_can_begin_has_no_finding_but_good_ones_and_nothing_is_made(users: Database) -> None:
    before = objects(users)
    findings = check(users.config, cdc_stream("users"))
    assert levels(findings) == {"ok"}
    assert objects(users) == before
    assert of_check(findings, "slot") == ["replication slot rapidbyte_shop is made by the first run"]
    assert of_check(findings, "publication") == ["publication rapidbyte_shop is made by the first run"]
    assert "wal_level is logical" in of_check(findings, "replication")[0]
    assert of_check(findings, "table") == ["public.users can be read: 2 columns, 0 of them in text form"]


def test_streams_of_other_modes_ask_for_nothing_of_it(users: Database) -> None:
    assert not of_check(check(users.config, {"name": "users", "sync_mode": "full_refresh"}), "slot")


def test_names_come_from_the_stream_then_the_config_then_the_pipeline(users: Database) -> None:
    config = {**users.config, "replication_slot": "theirs", "publication": "also_theirs"}
    findings = check(config, cdc_stream("users"))
    assert "replication slot theirs" in of_check(findings, "slot")[0]
    assert "publication also_theirs" in of_check(findings, "publication")[0]
    own = check(users.config, cdc_stream("users", replication_slot="own"), cdc_stream("users"))
    assert [message.split()[2] for message in of_check(own, "slot")] == ["own", "rapidbyte_shop"]
    assert [message.split()[1] for message in of_check(own, "publication")] == ["own", "rapidbyte_shop"]


def test_what_is_there_already_is_told(users: Database) -> None:
    slot = Slot(users.config, unique_name("slot"))
    slot.set_up(cdc_stream("users"))
    named = cdc_stream("users", replication_slot=slot.name)
    findings = check(users.config, named)
    assert levels(findings) == {"ok"}
    assert "bytes of WAL behind" in of_check(findings, "slot")[0]
    assert "was made for this pipeline" in of_check(findings, "publication")[0]
    users.execute("create publication theirs for table users with (publish = 'insert')")
    findings = check({**users.config, "publication": "theirs"}, named)
    assert "is the user's own" in of_check(findings, "publication", "ok")[0]
    errors = [each for each in findings if each["level"] == "error"]
    assert [each["message"] for each in errors] == [
        "publication theirs does not tell of any update",
        "publication theirs does not tell of any delete",
    ]
    assert {each["hint"] for each in errors} == {
        "ALTER PUBLICATION \"theirs\" SET (publish = 'insert, update, delete, truncate')"
    }


def test_a_stream_that_cannot_be_captured_has_a_finding_with_its_fix(users: Database) -> None:
    users.execute("create table log (line text)")
    findings = check(users.config, cdc_stream("users"), cdc_stream("log"), cdc_stream("gone"))
    told = {each["stream"]: each for each in findings if each["level"] == "error"}
    assert set(told) == {"log", "gone"}
    assert told["log"]["check"] == "replica_identity"
    assert 'ALTER TABLE "public"."log" REPLICA IDENTITY FULL' in told["log"]["hint"]
    assert (told["gone"]["check"], told["gone"]["message"]) == ("table", "there is no table public.gone")


def test_a_user_who_may_not_replicate_or_create_is_told(users: Database) -> None:
    role = unique_name("reader")
    users.server.create_role(role, password="secret", auth="scram-sha-256")
    users.execute(f"grant select on users to {role}")
    findings = check({**users.config, "user": role, "password": "secret"}, cdc_stream("users"))
    errors: dict[str, Mapping[str, Any]] = {each["check"]: each for each in findings if each["level"] == "error"}
    assert f"user {role} may not use replication slots" == errors["replication"]["message"]
    assert f'ALTER ROLE "{role}" REPLICATION' in errors["replication"]["hint"]
    assert "rds_replication" in errors["replication"]["hint"]
    assert errors["publication"]["hint"]


@pytest.mark.full
def test_a_server_that_writes_no_logical_wal_or_has_no_slot_left_is_told() -> None:
    with EmbeddedPostgres(durable=False, settings={"wal_level": "replica", "max_replication_slots": "1"}) as server:
        server.create_database("shop")
        database = Database(server, "shop")
        database.execute("create table users (id int primary key)")
        database.fetch("select pg_create_physical_replication_slot('taken')")
        findings = {each["check"]: each for each in check(database.config, cdc_stream("users"))}
        with pytest.raises(RapidbyteError) as caught:
            Slot(database.config, "shop").set_up(cdc_stream("users"))
    assert findings["slots"]["message"] == "1 of the server's 1 replication slots are in use, and 2 more are needed"
    assert "max_replication_slots" in findings["slots"]["hint"]
    assert findings["wal_level"]["message"].startswith("the server's wal_level is replica")
    assert "replication" not in findings, "nothing of it is well"
    assert findings["wal_level"]["message"] == caught.value.info.message
    assert caught.value.info.kind is Kind.CONFIG
    assert "rds.logical_replication" in (caught.value.hint or "")


@pytest.mark.full
def test_a_slot_that_is_lost_is_told_with_the_way_out(own_postgres: EmbeddedPostgres) -> None:
    own_postgres.create_database("shop")
    database = Database(own_postgres, "shop")
    database.execute("create table users (id int primary key, v text)")
    slot = Slot(database.config, "shop")
    slot.set_up(cdc_stream("users"))
    database.execute("alter system set max_slot_wal_keep_size = '1MB'", superuser=True)
    database.execute("select pg_reload_conf()", superuser=True)
    for _ in range(3):
        database.execute("insert into users select n, 'x' from generate_series(1, 1000) n; delete from users")
        database.execute("select pg_switch_wal()", superuser=True)
    database.execute("checkpoint", superuser=True)
    assert slot.status()["slot"]["wal_status"] == "lost"
    with pytest.raises(RapidbyteError) as caught:
        slot.set_up(cdc_stream("users"))
    assert "replication slot shop is lost" in caught.value.info.message
    assert "--full-refresh" in (caught.value.hint or "")
    [finding] = [
        each
        for each in check(database.config, cdc_stream("users", replication_slot="shop"))
        if each["level"] == "error"
    ]
    assert (finding["check"], finding["message"]) == ("slot", caught.value.info.message)
    assert slot.tear_down() == {"dropped_slot": True, "dropped_publication": True}
    assert slot.set_up(cdc_stream("users"))["created_slot"]
