"""`rb_slot`: what is made for change capture, what is only looked at, and what stays as its owner left it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.integration.source.slot_verbs import Slot, cdc_stream
from tests.postgres_server import Database, MakeDatabase, unique_name


@pytest.fixture
def slot(source_db: Database) -> Slot:
    source_db.execute("create table users (id int primary key, email text); create table orders (id int primary key)")
    return Slot(source_db.config, unique_name("slot"))


def published(database: Database, publication: str) -> list[str]:
    told = database.fetch(
        "select schemaname || '.' || tablename from pg_publication_tables where pubname = %s order by 1", [publication]
    )
    return [name for (name,) in told]


def origin_of(database: Database, publication: str, table: str) -> str:
    """What the table is, and its place in the publication."""
    oids = "select prrelid, prpubid, r.oid from pg_publication_rel r join pg_publication p on p.oid = prpubid"
    [found] = database.fetch(f"{oids} where pubname = %s and prrelid = %s::regclass", [publication, table])
    return ".".join(map(str, found))


def the_error(slot: Slot, *streams: dict[str, Any]) -> RapidbyteError:
    with pytest.raises(RapidbyteError) as caught:
        slot.set_up(*streams)
    return caught.value


def test_set_up_makes_a_publication_of_the_streams_tables_and_a_slot_and_finds_them_again(
    source_db: Database, slot: Slot
) -> None:
    first = slot.set_up(cdc_stream("users"))
    assert first == {
        "created_slot": True,
        "created_publication": True,
        "added_tables": ["public.users"],
        "position": source_db.fetch_value(
            "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s", [slot.name]
        ),
        "wal_position": first["wal_position"],
        "origins": {"users": origin_of(source_db, slot.name, "users")},
        "unpublished": [],
        "warnings": [],
        "refused": {},
    }
    assert published(source_db, slot.name) == ["public.users"]
    again = slot.set_up(cdc_stream("users"))
    made = {"created_slot": False, "created_publication": False, "added_tables": []}
    assert again == {**first, **made, "wal_position": again["wal_position"]}


def test_a_table_of_a_later_stream_is_added_to_the_publication_that_was_made(source_db: Database, slot: Slot) -> None:
    slot.set_up(cdc_stream("users"))
    later = slot.set_up(cdc_stream("users"), cdc_stream("orders"))
    assert (later["created_publication"], later["added_tables"]) == (False, ["public.orders"])
    assert published(source_db, slot.name) == ["public.orders", "public.users"]


def test_a_publication_of_the_users_own_is_used_and_never_altered(source_db: Database, slot: Slot) -> None:
    source_db.execute(f"create publication {slot.name} for table users with (publish = 'insert, update, delete')")
    before = source_db.fetch("select * from pg_publication where pubname = %s", [slot.name])
    done = slot.set_up(cdc_stream("users"))
    assert (done["created_publication"], done["added_tables"]) == (False, [])
    assert "does not tell of TRUNCATE" in done["warnings"][0]
    error = the_error(slot, cdc_stream("orders"))
    assert "was not made by this pipeline, and does not hold public.orders" in error.info.message
    assert published(source_db, slot.name) == ["public.users"]
    # What it says to do is what mends it.
    assert error.hint
    source_db.execute(error.hint)
    assert slot.set_up(cdc_stream("orders"))["refused"] == {}
    assert source_db.fetch("select * from pg_publication where pubname = %s", [slot.name]) == before


def some(cases: Iterable[str], *quick: str) -> list[Any]:
    """All of `cases`; without `--full` only the `quick` ones."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.full) for case in cases]


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a view": ("create view t as select 1 a", {}, "only tables have changes"),
    "an unlogged table": ("create unlogged table t (id int primary key)", {}, "unlogged"),
    "a table that others inherit from": (
        "create table t (id int primary key); create table heir () inherits (t)",
        {},
        "other tables inherit",
    ),
    "a table without a key that is mirrored": ("create table t (id int)", {}, "no primary key"),
    "replica identity nothing": (
        "create table t (id int primary key); alter table t replica identity nothing",
        {},
        "replica identity NOTHING",
    ),
    "a key that old rows do not tell": (
        "create table t (id int primary key, code text unique not null)",
        {"primary_key": ["code"]},
        "is not what the server tells of old rows",
    ),
    "a primary key that is deferrable": (
        "create table t (id int primary key deferrable)",
        {},
        "a deferrable primary key, which is no replica identity",
    ),
    "rows that policies hide": (
        "create table t (id int primary key); alter table t enable row level security;"
        "alter table t force row level security",
        {},
        "policies hide rows of public.t from this user",
    ),
    "an identity that is not read": (
        "create table t (id int primary key, v text)",
        {"columns": ["v"]},
        "tells the rows of public.t apart",
    ),
    "a name that is taken": ("create table t (id int primary key, _rb_op text)", {}, "column _rb_op is taken"),
    "a partition of another identity": (
        "create table t (id int primary key) partition by range (id);"
        "create table part partition of t for values from (0) to (10); alter table part replica identity full",
        {},
        "partition public.part has replica identity FULL, its table public.t DEFAULT",
    ),
    "no table at all": ("select 1", {}, "there is no table public.t"),
}


@pytest.mark.parametrize("case", some(REFUSED, "a view", "a table without a key that is mirrored"))
def test_what_cannot_be_captured_is_refused_and_holds_back_no_other_stream(
    source_db: Database, slot: Slot, case: str
) -> None:
    ddl, options, said = REFUSED[case]
    source_db.execute(ddl)
    done = slot.set_up(cdc_stream("users"), cdc_stream("t", **options))
    assert list(done["refused"]) == ["t"]
    assert said in done["refused"]["t"]["message"]
    assert done["refused"]["t"]["hint"]
    assert done["added_tables"] == ["public.users"]
    assert said in the_error(slot, cdc_stream("t", **options)).info.message


CAPTURED: dict[str, tuple[str, dict[str, Any]]] = {
    "replica identity full without a key": ("create table t (id int); alter table t replica identity full", {}),
    "a unique index as identity": (
        "create table t (id int primary key, code text not null unique);"
        "alter table t replica identity using index t_code_key",
        {"primary_key": ["code"]},
    ),
    "a key of the users own where old rows are told whole": (
        "create table t (id int primary key, code text not null); alter table t replica identity full",
        {"primary_key": ["code"]},
    ),
    "a history of a table without a key": ("create table t (id int)", {"write_mode": "append", "deletes": None}),
}


@pytest.mark.parametrize("case", some(CAPTURED, "a unique index as identity"))
def test_every_replica_identity_that_tells_rows_apart_is_captured(source_db: Database, slot: Slot, case: str) -> None:
    ddl, options = CAPTURED[case]
    source_db.execute(ddl)
    assert slot.set_up(cdc_stream("t", **options))["added_tables"] == ["public.t"]


def test_publishing_a_table_whose_updates_the_server_will_refuse_is_told(source_db: Database, slot: Slot) -> None:
    source_db.execute("create table log (line text); insert into log values ('a')")
    [warning] = slot.set_up(cdc_stream("log", write_mode="append", deletes=None))["warnings"]
    assert "the server refuses every UPDATE and DELETE" in warning
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        source_db.execute("update log set line = 'b'")


def test_a_partitioned_table_is_published_under_its_own_name(source_db: Database, slot: Slot) -> None:
    source_db.execute(
        "create table t (id int primary key) partition by range (id);"
        "create table part partition of t for values from (0) to (10)"
    )
    slot.set_up(cdc_stream("t"))
    assert published(source_db, slot.name) == ["public.t"]


def test_a_publication_that_tells_partitions_by_their_own_names_is_warned_of(source_db: Database, slot: Slot) -> None:
    source_db.execute(
        "create table t (id int primary key) partition by range (id);"
        "create table part partition of t for values from (0) to (10);"
        f"create publication {slot.name} for table t"
    )
    [warning] = slot.set_up(cdc_stream("t"))["warnings"]
    assert "under the names of its partitions" in warning
    assert slot.status(cdc_stream("t"), cdc_stream("part"))["publication"]["missing"] == []
    assert slot.set_up(cdc_stream("part"))["warnings"] == []
    source_db.execute(f"alter publication {slot.name} set (publish_via_partition_root = true)")
    assert slot.set_up(cdc_stream("t"))["warnings"] == []
    assert "as those of public.t" in the_error(slot, cdc_stream("part")).info.message


def test_a_table_that_was_taken_out_of_the_publication_is_not_put_back_behind_its_streams_back(
    source_db: Database, slot: Slot
) -> None:
    slot.set_up(cdc_stream("users"), cdc_stream("orders"))
    source_db.execute(f"alter publication {slot.name} drop table users")
    done = slot.set_up(cdc_stream("users"), cdc_stream("orders"), began=["users", "orders"])
    assert (done["unpublished"], done["refused"]) == (["users"], {})
    assert published(source_db, slot.name) == ["public.orders"]
    assert done["origins"]["orders"] == origin_of(source_db, slot.name, "orders")
    assert done["origins"]["users"].endswith(".0")
    source_db.execute(f"comment on publication {slot.name} is 'mine now'")
    assert slot.set_up(cdc_stream("users"), began=["users"])["unpublished"] == ["users"]
    source_db.execute(f"comment on publication {slot.name} is 'rapidbyte: made for pipeline shop'")
    assert slot.set_up(cdc_stream("users"), cdc_stream("orders"), began=["orders"])["added_tables"] == ["public.users"]


def test_slots_that_are_set_up_at_once_share_the_publication_that_one_of_them_makes(
    source_db: Database, slot: Slot
) -> None:
    slots = [Slot(slot.config, unique_name("slot"), slot.name) for _ in range(4)]
    with ThreadPoolExecutor(len(slots)) as pool:
        done = list(pool.map(lambda each: each.set_up(cdc_stream("users"), cdc_stream("orders")), slots))
    assert [each["created_slot"] for each in done] == [True] * 4
    assert sorted(each["created_publication"] for each in done) == [False, False, False, True]
    assert published(source_db, slot.name) == ["public.orders", "public.users"]


def test_a_slot_that_is_gone_is_not_made_again_for_streams_that_need_the_old_one(
    source_db: Database, slot: Slot
) -> None:
    slot.set_up(cdc_stream("users"), cdc_stream("orders"))
    slot.tear_down(publication=False)
    done = slot.set_up(cdc_stream("users"), cdc_stream("orders"), began=["users", "orders"])
    assert (done["created_slot"], done["position"]) == (False, None)
    done = slot.set_up(cdc_stream("users"), cdc_stream("orders"), began=["users"])
    assert done["created_slot"]
    assert done["position"]


def test_a_slot_that_is_something_else_is_refused(source_db: Database, slot: Slot, make_database: MakeDatabase) -> None:
    create = "select pg_create_logical_replication_slot(%s, 'pgoutput')"
    make_database("other").fetch(create, [slot.name])
    assert "is of another database" in the_error(slot, cdc_stream("users")).info.message
    assert "is of another database" in error_of_teardown(slot).info.message
    early = Slot(slot.config, unique_name("early"))
    source_db.fetch("select pg_create_logical_replication_slot(%s, 'pgoutput', twophase => true)", [early.name])
    assert (
        "tells of prepared transactions before they are committed" in the_error(early, cdc_stream("users")).info.message
    )
    source_db.fetch("select pg_drop_replication_slot(%s)", [early.name])
    physical = Slot(slot.config, unique_name("physical"))
    source_db.fetch("select pg_create_physical_replication_slot(%s)", [physical.name])
    try:
        assert "is a physical one" in the_error(physical, cdc_stream("users")).info.message
    finally:
        source_db.fetch("select pg_drop_replication_slot(%s)", [physical.name])


def error_of_teardown(slot: Slot) -> RapidbyteError:
    with pytest.raises(RapidbyteError) as caught:
        slot.tear_down(publication=False)
    return caught.value


def test_a_name_that_no_slot_can_have_is_refused(source_db: Database) -> None:
    error = the_error(Slot(source_db.config, "Shop-1"), cdc_stream("users"))
    assert error.info.kind is Kind.CONFIG
    assert '"Shop-1" cannot be the name of a replication slot' in error.info.message


def test_who_may_not_replicate_or_publish_is_told_what_to_have_run(source_db: Database, slot: Slot) -> None:
    role = unique_name("reader")
    source_db.server.create_role(role, password="secret", auth="scram-sha-256")
    source_db.execute(f"grant select on users to {role}")
    config = {**source_db.config, "user": role, "password": "secret"}
    error = the_error(Slot(config, slot.name), cdc_stream("users"))
    assert error.info.kind is Kind.PERMISSION
    assert f'ALTER ROLE "{role}" REPLICATION' in (error.hint or "")
    source_db.execute(f"alter role {role} replication", superuser=True)
    error = the_error(Slot(config, slot.name), cdc_stream("users"))
    assert "only its owner may do (etl)" in error.info.message
    assert f'CREATE PUBLICATION "{slot.name}" FOR TABLE ONLY "public"."users"' in (error.hint or "")
    assert error.hint
    source_db.execute(error.hint.partition("tables: ")[2])
    assert Slot(config, slot.name).set_up(cdc_stream("users"))["created_slot"]


def test_an_owner_who_may_make_no_publication_is_told_what_to_have_run(source_db: Database) -> None:
    role, schema, name = unique_name("owner"), unique_name("owned"), unique_name("slot")
    source_db.server.create_role(role, password="secret", auth="scram-sha-256", options="replication")
    source_db.execute(f"create schema {schema} authorization {role}", superuser=True)
    source_db.execute(f"set role {role}; create table {schema}.t (id int primary key)", superuser=True)
    error = the_error(
        Slot({**source_db.config, "user": role, "password": "secret"}, name), cdc_stream("t", schema=schema)
    )
    assert error.info.kind is Kind.PERMISSION
    assert "permission denied for database" in error.info.message
    assert f'CREATE PUBLICATION "{name}" FOR TABLE ONLY "{schema}"."t"' in (error.hint or "")
    assert source_db.fetch("select from pg_replication_slots where slot_name = %s", [name]) == []


def test_teardown_drops_what_was_made_and_leaves_what_is_the_users(source_db: Database, slot: Slot) -> None:
    slot.set_up(cdc_stream("users"))
    assert slot.tear_down(slot=False, publication=False) == {"dropped_slot": False, "dropped_publication": False}
    assert slot.tear_down() == {"dropped_slot": True, "dropped_publication": True}
    assert slot.tear_down() == {"dropped_slot": False, "dropped_publication": False}
    source_db.execute(f"create publication {slot.name} for table users")
    slot.set_up(cdc_stream("users"))
    assert slot.tear_down() == {"dropped_slot": True, "dropped_publication": False}
    assert published(source_db, slot.name) == ["public.users"]


@contextmanager
def read_by_somebody(database: Database, slot: str) -> Iterator[None]:
    connection = psycopg.connect(database.dsn, autocommit=True, replication="database", application_name="somebody")
    with closing(connection):
        start = f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{slot}')"
        connection.pgconn.send_query(start.encode())
        deadline = time.monotonic() + 10
        while not database.fetch_value("select active from pg_replication_slots where slot_name = %s", [slot]):
            assert time.monotonic() < deadline
        yield


def test_a_slot_that_somebody_reads_is_told_and_not_dropped(source_db: Database, slot: Slot) -> None:
    slot.set_up(cdc_stream("users"))
    with read_by_somebody(source_db, slot.name):
        told = slot.status()["slot"]
        assert told["active"]
        assert told["active_application"] == "somebody"
        error = error_of_teardown(slot)
        assert f"process {told['active_pid']} of the server (somebody)" in error.info.message


def test_status_tells_how_far_the_slot_is_behind_and_which_tables_are_not_published(
    source_db: Database, slot: Slot
) -> None:
    nothing = slot.status(cdc_stream("users"))
    assert (nothing["slot"]["exists"], nothing["publication"]["exists"]) == (False, False)
    assert (nothing["lag_bytes"], nothing["publication"]["missing"]) == (None, ["public.users"])
    slot.set_up(cdc_stream("users"))
    source_db.execute("insert into users select n, repeat('x', 1000) from generate_series(1, 1000) n")
    source_db.execute("checkpoint", superuser=True)
    told = slot.status(cdc_stream("users"), cdc_stream("orders"))
    assert told["lag_bytes"] > 1_000_000
    assert told["retained_bytes"] >= told["lag_bytes"]
    assert told["slot"]["wal_status"] == "reserved"
    assert told["publication"] == {
        "name": slot.name,
        "exists": True,
        "ours": True,
        "tables": ["public.users"],
        "missing": ["public.orders"],
    }


def counted(database: Database, sql: str) -> None:
    """Runs `sql` in a session that tells at once what it counted."""
    with database.connect() as connection:
        connection.execute(sql.encode())
        connection.execute("select pg_stat_force_next_flush()")


CHANGES = [
    "insert into t values (5, 'a')",
    "update t set v = 'b' where id = 1",
    "delete from t where id = 1",
    "truncate t",
    "alter table t add column w int",
    "alter table t alter column v set not null",
    "create table other partition of t for values from (10) to (20)",
]


@pytest.mark.parametrize("change", some(CHANGES, "insert into t values (5, 'a')", "truncate t"))
def test_the_change_counter_moves_with_rows_files_and_columns_and_with_no_other_table(
    source_db: Database, slot: Slot, change: str
) -> None:
    source_db.execute(
        "create table t (id int primary key, v text) partition by range (id);"
        "create table part partition of t for values from (0) to (10)"
    )
    counted(source_db, "insert into t values (1, 'a')")
    before = slot.status(cdc_stream("t"))["change_counter"]
    counted(source_db, "insert into users values (1, 'a')")
    assert slot.status(cdc_stream("t"))["change_counter"] == before
    counted(source_db, change)
    assert slot.status(cdc_stream("t"))["change_counter"] != before
