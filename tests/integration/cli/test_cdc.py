"""`rapidbyte cdc`: slots and publications of a real source, made, looked at and dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.integration.cli.command import in_process as rapidbyte
from tests.pipelines import write_pipeline
from tests.postgres_server import Database, unique_name

USERS = {"name": "users", "sync_mode": "cdc"}
ORDERS = {"name": "orders", "sync_mode": "cdc"}


@pytest.fixture
def shop_db(source_db: Database) -> Database:
    source_db.execute(
        "create table users (id int primary key, email text); create table orders (id int primary key);"
        "create table log (line text); insert into users values (1, 'a'); insert into orders values (1)"
    )
    return source_db


@pytest.fixture
def slot() -> str:
    return unique_name("slot")


def write(folder: Path, source: Database, destination: Database, slot: str, *streams: Mapping[str, Any]) -> Path:
    config = {**source.config, "replication_slot": slot, "publication": slot}
    target = {**destination.config, "schema": "raw"}
    return write_pipeline(folder, config, target, streams, write_mode="upsert", resources={"max_retries": 0})


def told(code: int, *arguments: object) -> dict[str, Any]:
    done = rapidbyte("cdc", *arguments, "--json")
    assert done.returncode == code, done.stderr
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


def the_slot(code: int, *arguments: object) -> dict[str, Any]:
    [only] = told(code, *arguments)["slots"]
    assert isinstance(only, dict)
    return only


def test_a_slot_is_made_followed_and_dropped(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS, ORDERS)
    before = rapidbyte("cdc", "status", path)
    assert before.returncode == 0
    assert f"slot         {slot}: there is none; `rapidbyte cdc setup` or the first run makes it" in before.stdout
    made = rapidbyte("cdc", "setup", path)
    assert made.returncode == 0
    assert made.stdout.startswith(f"cdc: slot {slot} made, at ")
    assert f"cdc: publication {slot} made with public.users, public.orders" in made.stdout
    again = rapidbyte("cdc", "setup", path).stdout
    assert f"cdc: slot {slot} is there, at " in again
    assert f"cdc: publication {slot} is there" in again
    ran = rapidbyte("run", path)
    assert ran.returncode == 0
    assert "cdc: 0 transactions were read, up to " in ran.stdout
    shop_db.execute("insert into users values (2, 'b'); delete from orders")
    [read] = json.loads(rapidbyte("run", path, "--json").stdout)["slots"]
    assert (read["group"], read["slot"], read["transactions"]) == ("cdc", slot, 1)
    after = the_slot(0, "status", path)
    assert set(after["positions"].values()) == {read["position"]}
    assert after["exists"]
    assert after["fault"] is None
    assert set(after["positions"]) == {"users", "orders"}
    assert None not in after["positions"].values()
    shown = rapidbyte("cdc", "status", path).stdout
    assert f"slot         {slot}: " in shown
    assert f"users: lsn = {after['positions']['users']}, checkpoint " in shown
    gone = rapidbyte("cdc", "teardown", path, "--yes")
    assert gone.stdout == f"cdc: slot {slot} dropped\ncdc: publication {slot} dropped\n"
    assert shop_db.fetch("select from pg_replication_slots where slot_name = %s", [slot]) == []
    assert shop_db.fetch("select from pg_publication") == []
    assert destination_db.fetch("select count(*) from raw.users") == [(2,)]
    nothing = rapidbyte("cdc", "teardown", path, "--yes")
    assert nothing.stdout == f"cdc: slot {slot} was not there\ncdc: publication {slot} was not there\n"
    # What was not read is lost, and said to be.
    lost = rapidbyte("cdc", "status", path)
    assert lost.returncode == 4
    assert f"slot         {slot}: there is none\n" in lost.stdout
    assert f"replication slot {slot} is gone, and with it what users, orders had still to read" in lost.stderr
    assert f"`rapidbyte run {path.name} --stream users --stream orders --full-refresh`" in lost.stderr
    found = rapidbyte("check", path)
    assert found.returncode == 4
    assert f"  error  source       replication slot {slot} is gone" in found.stdout
    assert f"replication slot {slot} is made" not in found.stdout
    stopped = rapidbyte("run", path)
    assert stopped.returncode == 4
    for stream in ("users", "orders"):
        assert stopped.stderr.count(f"so that changes of {stream} since ") == 1
    not_made = rapidbyte("cdc", "setup", path)
    assert (not_made.returncode, not_made.stdout) == (4, "")
    assert f"replication slot {slot} is gone, and with it what users, orders had still to read" in not_made.stderr
    assert rapidbyte("run", path, "--full-refresh", "--json").returncode == 0
    assert the_slot(0, "status", path)["fault"] is None
    rapidbyte("cdc", "teardown", path, "--yes")


def test_a_slot_that_somebody_else_has_read_or_made_anew_is_told(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS)
    assert rapidbyte("run", path, "--json").returncode == 0
    shop_db.execute("insert into users values (2, 'b')")
    shop_db.execute("checkpoint", superuser=True)
    shop_db.fetch("select pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", [slot])
    found = rapidbyte("cdc", "status", path)
    assert found.returncode == 4
    assert f"replication slot {slot} is another one, or was read by somebody else" in found.stderr
    assert rapidbyte("run", path, "--json").returncode == 4
    assert rapidbyte("run", path, "--full-refresh", "--json").returncode == 0
    assert destination_db.fetch("select id from raw.users order by id") == [(1,), (2,)]
    assert rapidbyte("cdc", "status", path).returncode == 0


def test_a_table_that_left_the_publication_is_told_with_the_stream_that_has_lost_changes(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS, ORDERS)
    assert rapidbyte("run", path, "--json").returncode == 0
    shop_db.execute(f"alter publication {slot} drop table users")
    for command in (("cdc", "status"), ("check",)):
        found = rapidbyte(*command, path)
        assert found.returncode == 4
        said = found.stdout + found.stderr
        assert f"publication {slot} does not tell of users any more: what it missed is lost" in said
        assert f"`rapidbyte run {path.name} --stream users --full-refresh`" in said
    told_once = rapidbyte("run", path)
    assert told_once.returncode == 4
    assert told_once.stderr.count(f"publication {slot} does not tell of users any more") == 1
    shop_db.execute("drop table users")
    absent = rapidbyte("check", path).stdout
    assert "there is no table public.users" in absent
    assert "does not tell of users" not in absent, "loading it anew would not help"
    rapidbyte("cdc", "teardown", path, "--yes")


def test_one_stream_that_cannot_be_captured_is_told_and_the_others_are_set_up(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS, {"name": "log", "sync_mode": "cdc"})
    found = told(3, "setup", path)
    [only] = found["slots"]
    assert not found["ok"]
    assert (only["created_slot"], only["added_tables"]) == (True, ["public.users"])
    assert "public.log has no primary key" in only["refused"]["log"]
    findings = rapidbyte("check", path)
    assert "log: public.log has no primary key" in findings.stdout
    assert f"replication slot {slot} is " in findings.stdout


def test_what_the_user_made_stays(tmp_path: Path, shop_db: Database, destination_db: Database, slot: str) -> None:
    shop_db.execute(f"create publication {slot} for table users")
    shop_db.fetch("select pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    path = write(tmp_path, shop_db, destination_db, slot, USERS)
    assert rapidbyte("run", path, "--json").returncode == 0
    gone = rapidbyte("cdc", "teardown", path, "--yes")
    assert gone.returncode == 0
    assert f"cdc: slot {slot} stays: this pipeline has not made it" in gone.stdout
    assert f"cdc: publication {slot} stays" in gone.stdout
    assert shop_db.fetch("select slot_name from pg_replication_slots where slot_name = %s", [slot]) == [(slot,)]
    assert shop_db.fetch("select pubname from pg_publication") == [(slot,)]


@pytest.mark.parametrize("has_run", [False, True])
def test_a_slot_that_the_user_has_made_in_the_place_of_the_pipelines_stays(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str, has_run: bool
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS)
    assert rapidbyte("run", path, "--json").returncode == 0
    shop_db.fetch("select pg_drop_replication_slot(%s)", [slot])
    shop_db.fetch("select pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    if has_run:
        for _ in range(2):
            assert rapidbyte("run", path, "--full-refresh", "--json").returncode == 0
    gone = the_slot(0, "teardown", path, "--yes")
    assert (gone["dropped_slot"], gone["kept_slot"]) == (False, True)
    assert shop_db.fetch("select from pg_replication_slots where slot_name = %s", [slot]) != []
    shop_db.fetch("select pg_drop_replication_slot(%s)", [slot])


def test_a_slot_of_the_same_name_at_another_server_stays(
    tmp_path: Path,
    shop_db: Database,
    destination_db: Database,
    own_postgres: EmbeddedPostgres,
    slot: str,
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS)
    assert rapidbyte("run", path, "--json").returncode == 0
    own_postgres.create_database("elsewhere")
    elsewhere = Database(own_postgres, "elsewhere")
    elsewhere.fetch("select pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    moved = write(tmp_path, elsewhere, destination_db, slot, USERS)
    assert the_slot(0, "teardown", moved, "--yes")["kept_slot"]
    assert the_slot(0, "teardown", write(tmp_path, shop_db, destination_db, slot, USERS), "--yes")["dropped_slot"]


def test_the_pipelines_slot_is_dropped_whatever_became_of_its_streams(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS)
    for number in range(3):
        shop_db.execute(f"insert into users values ({10 + number}, 'b')")
        assert rapidbyte("run", path, "--json").returncode == 0
    assert rapidbyte("state", "reset", path, "--stream", "users", "--yes").returncode == 0
    assert rapidbyte("cdc", "setup", path).returncode == 0
    assert the_slot(0, "teardown", path, "--yes")["dropped_slot"]


def test_slots_that_share_a_publication_lose_it_with_the_last_of_them(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    own = unique_name("own")
    path = write(tmp_path, shop_db, destination_db, slot, USERS, {**ORDERS, "replication_slot": own})
    assert [each["group"] for each in told(0, "setup", path)["slots"]] == ["cdc", own]
    assert shop_db.fetch("select tablename from pg_publication_tables order by 1") == [("orders",), ("users",)]
    first = the_slot(0, "teardown", path, "--slot", own, "--yes")
    assert (first["slot"], first["dropped_slot"], first["dropped_publication"]) == (own, True, False)
    second = the_slot(0, "teardown", path, "--slot", "cdc", "--yes")
    assert (second["slot"], second["dropped_slot"], second["dropped_publication"]) == (slot, True, True)


def test_what_cannot_be_asked_for_is_a_usage_error(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS)
    unknown = rapidbyte("cdc", "status", path, "--slot", "other")
    assert (unknown.returncode, "has no slot 'other'" in unknown.stderr, "it has: cdc" in unknown.stderr) == (
        64,
        True,
        True,
    )
    unsure = rapidbyte("cdc", "teardown", path)
    assert (unsure.returncode, "give --yes if you are sure" in unsure.stderr) == (64, True)
    batch = write_pipeline(tmp_path, shop_db, destination_db, ["users"], name="batch")
    nothing = rapidbyte("cdc", "setup", batch)
    assert (nothing.returncode, "captures no changes" in nothing.stderr) == (64, True)


def test_what_stops_all_streams_of_a_slot_is_told_once(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS, ORDERS)
    path.write_text(path.read_text().replace(str(shop_db.config["password"]), "wrong", 1))
    found = rapidbyte("run", path)
    assert found.returncode == 4
    assert found.stderr.count("password authentication failed") == 1


def test_a_source_that_is_down_is_told_without_its_password(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS)
    path.write_text(path.read_text().replace(f"port: {shop_db.server.port}", "port: 1", 1))
    down = rapidbyte("cdc", "status", path)
    assert down.returncode == 4
    assert shop_db.server.password not in down.stderr


def test_a_stream_that_is_reset_is_loaded_anew_as_state_says(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS, {**ORDERS, "write_mode": "append"})
    assert rapidbyte("run", path, "--json").returncode == 0
    reset = rapidbyte("state", "reset", path, "--all", "--yes")
    assert "loads the whole table and puts it in the place of what is there" in reset.stdout
    assert "loads the whole table and adds its rows to the history" in reset.stdout
    shop_db.execute("delete from users; insert into users values (2, 'b')")
    assert rapidbyte("run", path, "--json").returncode == 0
    assert destination_db.fetch("select id from raw.users") == [(2,)]
    assert destination_db.fetch("select _rb_op, id from raw.orders") == [("insert", 1), ("insert", 1)]


def test_after_a_run_check_finds_what_it_has_made_and_nothing_that_differs(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    shop_db.execute(
        "create table events (id int primary key, v text not null, w numeric(8, 2)[],"
        " twice int generated always as (id * 2) stored); insert into events values (1, 'a', '{1.5}')"
    )
    history = {"name": "events", "sync_mode": "cdc", "write_mode": "append"}
    path = write(tmp_path, shop_db, destination_db, slot, USERS, {**ORDERS, "deletes": "soft"}, history)
    for change in ("", "delete from events; delete from orders; update users set email = 'z'"):
        shop_db.execute(change)
        assert rapidbyte("run", path, "--json").returncode == 0
        found = rapidbyte("check", path)
        assert found.returncode == 0
        assert found.stdout.count("the stream's columns and those of the table agree") == 3
        assert "warning" not in found.stdout
        assert "events: public.events can be read: 4 columns" in found.stdout
        assert f"publication {slot} was made for this pipeline" in found.stdout


def test_tables_are_compared_at_one_position_while_the_source_goes_on(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    soft = {**ORDERS, "deletes": "soft"}
    history = {"name": "events", "sync_mode": "cdc", "write_mode": "append"}
    shop_db.execute("create table events (id int primary key); insert into orders values (2)")
    path = write(tmp_path, shop_db, destination_db, slot, USERS, soft, history)
    early = rapidbyte("cdc", "verify", path)
    assert (early.returncode, "nothing of it is at the destination yet" in early.stderr) == (64, True)
    assert rapidbyte("run", path, "--json").returncode == 0
    shop_db.execute(
        "insert into users select n, 'x' || n from generate_series(2, 1000) n; delete from orders where id = 1"
    )
    done = Event()

    def write_on() -> None:
        number = 1000
        while not done.is_set():
            number += 1
            shop_db.execute(
                f"insert into users values ({number}, null); update users set email = 'y' where id = {number}"
            )

    with ThreadPoolExecutor(1) as writers:
        writer = writers.submit(write_on)
        try:
            found = told(0, "verify", path)
        finally:
            done.set()
        writer.result()
    assert [(each["stream"], each["matches"]) for each in found["streams"]] == [("users", True), ("orders", True)]
    users, orders = found["streams"]
    assert users["source_rows"] >= 1000
    assert (orders["source_rows"], orders["columns"]) == (1, ["id"])
    assert users["position"] == orders["position"]
    # Somebody else's hand in the table.
    destination_db.execute("update raw.users set email = 'z' where id = 5; insert into raw.orders values (77)")
    differ = rapidbyte("cdc", "verify", path, "--stream", "users", "--stream", "orders")
    assert differ.returncode == 5
    assert "rows on both sides, and not the same" in differ.stderr
    assert "orders differs at" in differ.stderr
    assert "1 rows at the source, 2 at the destination" in differ.stderr
    of_history = rapidbyte("cdc", "verify", path, "--stream", "events")
    assert (of_history.returncode, "a history has a row for each change" in of_history.stderr) == (64, True)


def test_columns_that_one_side_alone_has_are_left_out_of_the_comparison(
    tmp_path: Path, shop_db: Database, destination_db: Database, slot: str
) -> None:
    path = write(tmp_path, shop_db, destination_db, slot, USERS)
    assert rapidbyte("run", path, "--json").returncode == 0
    destination_db.execute("alter table raw.users add column note text default 'mine'")
    found = rapidbyte("cdc", "verify", path)
    assert found.returncode == 0
    assert "users: 1 rows are the same at " in found.stdout
    assert found.stdout.endswith(", without note\n")
