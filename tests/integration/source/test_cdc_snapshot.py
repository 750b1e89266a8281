"""`rb_snapshot`, and what is read in it: every row that was committed before its position, and none other."""

from __future__ import annotations

import datetime
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.installation import Installation
from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.runtime import LogLevel
from tests.integration.source.reading import Collected, describe, plain
from tests.integration.source.slot_verbs import Slot, cdc_stream, opened, read_snapshot, snapshot
from tests.postgres_server import Database, unique_name

MARKS = ["_rb_op", "_rb_lsn", "_rb_seq", "_rb_commit_ts", "_rb_unchanged"]


@pytest.fixture
def slot(source_db: Database) -> Slot:
    return Slot(source_db.config, unique_name("slot"))


def lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def inserted(database: Database, slot: Slot) -> list[tuple[int, int]]:
    """What the slot tells: where each transaction's commit record begins, and the first column of each row in it."""
    # Commits that the server has not written to its disk are not told.
    database.execute("checkpoint", superuser=True)
    told = database.fetch(
        "select data from pg_logical_slot_peek_binary_changes(%s, null, null, 'proto_version', '1',"
        " 'publication_names', %s)",
        [slot.name, slot.name],
    )
    rows, commit = [], 0
    for (message,) in told:
        if message[:1] == b"B":
            commit = int.from_bytes(message[1:9], "big")
        elif message[:1] == b"I":
            length = int.from_bytes(message[9:13], "big")
            rows.append((commit, int(message[13 : 13 + length])))
    return rows


def test_what_is_in_the_snapshot_and_what_commits_from_its_position_on_is_everything_once(
    source_db: Database, slot: Slot
) -> None:
    source_db.execute("create table t (id int primary key)")
    slot.set_up(cdc_stream("t"))
    done = threading.Event()

    def write(writer: int) -> int:
        """Transactions of a few rows, some of them rolled back."""
        number = 0
        with source_db.connect() as connection:
            while not done.is_set():
                with connection.transaction() as transaction:
                    for _ in range(number % 5 + 1):
                        number += 1
                        connection.execute("insert into t values (%s)", [number * 4 + writer])
                    if number % 11 == 0:
                        raise psycopg.Rollback(transaction)
        return number

    with ThreadPoolExecutor(3) as writers:
        running = [writers.submit(write, writer) for writer in range(3)]
        try:
            with snapshot(source_db.config) as taken:
                table, barriers = read_snapshot(source_db.config, cdc_stream("t"), taken)
        finally:
            done.set()
        assert min(each.result() for each in running) > 10
    assert barriers == [{"cursor": {"lsn": taken["lsn"]}, "final": True}]
    before = plain(table.column("id").combine_chunks())
    position = lsn(taken["lsn"])
    after = [row for commit, row in inserted(source_db, slot) if commit >= position]
    assert before
    assert sorted(before + after) == [row for (row,) in source_db.fetch("select id from t order by id")]


def test_a_transaction_that_is_open_while_the_snapshot_is_taken_is_waited_for(source_db: Database, slot: Slot) -> None:
    source_db.execute("create table t (id int primary key)")
    slot.set_up(cdc_stream("t"))
    host = Collected()
    with source_db.connect() as writer, ThreadPoolExecutor(1) as pool:
        with writer.transaction():
            writer.execute("insert into t values (1)")

            def take() -> list[int]:
                with opened(source_db.config, host) as instance:
                    taken = instance.call("rb_snapshot", {})
                    return plain(
                        read_snapshot(source_db.config, cdc_stream("t"), taken)[0].column("id").combine_chunks()
                    )

            reading = pool.submit(take)
            waiting = (
                "select count(*) from pg_stat_activity where backend_type = 'walsender' and wait_event_type = 'Lock'"
            )
            while source_db.fetch_value(waiting) == 0:
                assert not reading.done()
        assert reading.result(timeout=60) == [1]
    assert (LogLevel.INFO, "taking a snapshot: the server waits for every transaction that is going on") in host.logs


def test_the_snapshot_needs_no_slot_once_it_is_taken(source_db: Database) -> None:
    slots = "select count(*) from pg_replication_slots where database = current_database()"
    with snapshot(source_db.config):
        assert source_db.fetch_value(slots) == 0
        held = "select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'walsender'"
        assert source_db.fetch_value(held) == 1
    assert source_db.fetch_value(held) == 0


def test_shards_of_several_streams_are_read_in_one_snapshot(source_db: Database, slot: Slot) -> None:
    source_db.execute(
        "create table a (id int primary key, v text);"
        "insert into a select n, repeat('x', 100) from generate_series(1, 5000) n;"
        "create table b (id int primary key); insert into b values (1)"
    )
    slot.set_up(cdc_stream("a"), cdc_stream("b"))
    with snapshot(source_db.config) as taken:
        source_db.execute("insert into a values (0, 'late'); delete from a where id < 100; truncate b")
        stream = {**cdc_stream("a", shards=3), "snapshot": taken}
        with opened(source_db.config, Collected()) as instance:
            shards = instance.call("rb_split", {"stream": stream, "max_shards": 3})["shards"]
            tables = [read_snapshot(source_db.config, stream, taken, shard)[0] for shard in shards]
        # The server shows an empty table: TRUNCATE is not MVCC-safe.
        with pytest.raises(RapidbyteError, match="b was truncated or rewritten") as caught:
            read_snapshot(source_db.config, cdc_stream("b"), taken)
    assert caught.value.info.kind is Kind.TRANSIENT_DB
    assert len(shards) == 3
    ids = [row for table in tables for row in plain(table.column("id").combine_chunks())]
    assert sorted(ids) == list(range(1, 5001))


def test_a_load_that_another_version_began_is_not_gone_on_with(source_db: Database, slot: Slot) -> None:
    source_db.execute(
        "create table a (id int primary key, v text);"
        "insert into a select n, repeat('x', 100) from generate_series(1, 5000) n"
    )
    slot.set_up(cdc_stream("a"))
    argument = {"max_shards": 1, "piece_bytes": 65536}
    with snapshot(source_db.config) as taken:
        stream = {**cdc_stream("a"), "snapshot": taken}
        with opened(source_db.config, Collected()) as instance:
            first = instance.call("rb_split", {"stream": stream, **argument})
        left = {"loaded": [0], "rows": 1, "note": first["note"]}
        for note, resumes in ((first["note"], True), ({**first["note"], "xmin": "many"}, False), ({"of": 2}, False)):
            with opened(source_db.config, Collected()) as instance:
                again = instance.call("rb_split", {"stream": stream, **argument, "resumes": {**left, "note": note}})
            assert again["resumes"] is resumes
            assert again["shards"] == first["shards"]
    assert len(first["shards"]) > 5


def test_rows_of_a_history_and_of_soft_deletions_begin_like_changes(source_db: Database, slot: Slot) -> None:
    source_db.execute("create table t (id int primary key, v text not null); insert into t values (1, 'a')")
    slot.set_up(cdc_stream("t"))
    history = cdc_stream("t", write_mode="append", deletes=None)
    with snapshot(source_db.config) as taken:
        kept, _ = read_snapshot(source_db.config, history, taken)
        soft, _ = read_snapshot(source_db.config, cdc_stream("t", deletes="soft"), taken)
    assert kept.schema.names == [*MARKS, "id", "v"]
    [row] = kept.to_pylist()
    assert (row["_rb_op"], row["_rb_lsn"], row["_rb_seq"], row["_rb_unchanged"]) == ("insert", taken["lsn"], 0, None)
    assert row["_rb_commit_ts"] == datetime.datetime.fromisoformat(taken["taken_at"])
    # Of a deleted row only its identity will be told.
    assert [field.nullable for field in kept.schema] == [False, False, False, False, True, True, True]
    types = [(field.metadata or {})[b"rapidbyte:pg_type"].decode() for field in kept.schema]
    assert types == ["text", "pg_lsn", "bigint", "timestamp with time zone", "text[]", "integer", "text"]
    assert soft.schema.names == ["id", "v", "_rb_deleted_at"]
    assert soft.to_pylist() == [{"id": 1, "v": "a", "_rb_deleted_at": None}]
    assert [field.nullable for field in soft.schema] == [False, False, True]


@pytest.mark.parametrize("options", [{"deletes": "soft"}, {"write_mode": "append", "deletes": None}])
def test_a_stream_is_described_as_its_snapshot_is_read(
    source_db: Database, slot: Slot, options: dict[str, Any]
) -> None:
    source_db.execute("create table t (id int primary key, v numeric(8, 2)[])")
    before = describe(source_db.config, **{**cdc_stream("t", **options), "filter": None})
    slot.set_up(cdc_stream("t"))
    with snapshot(source_db.config) as taken:
        table, _ = read_snapshot(source_db.config, cdc_stream("t", **options), taken)
    assert pa.ipc.read_schema(pa.py_buffer(before)).equals(table.schema, check_metadata=True)


def test_what_the_publication_does_not_tell_is_not_in_the_snapshot(source_db: Database, slot: Slot) -> None:
    source_db.execute(
        "create table t (id int primary key, region text not null, secret text,"
        " stored int generated always as (id * 2) stored, virtual int generated always as (id * 3) virtual);"
        "insert into t (id, region, secret) values (1, 'eu', 'x'), (2, 'us', 'y');"
        f"create publication {slot.name} for table t (id, region) where (region = 'eu' and id < 10)"
    )
    mirrored = cdc_stream("t", publication=slot.name)
    with snapshot(source_db.config) as taken:
        table, _ = read_snapshot(source_db.config, mirrored, taken)
        with pytest.raises(RapidbyteError) as caught:
            read_snapshot(source_db.config, {**mirrored, "columns": ["id", "secret"]}, taken)
    assert table.to_pylist() == [{"id": 1, "region": "eu"}]
    assert "column secret of public.t is not told by publication" in caught.value.info.message
    own = Slot(source_db.config, unique_name("slot"))
    [warning] = own.set_up(cdc_stream("t"))["warnings"]
    assert "column virtual of public.t is generated, and not told" in warning
    with snapshot(source_db.config) as taken:
        table, _ = read_snapshot(source_db.config, cdc_stream("t", publication=own.name), taken)
    assert table.schema.names == ["id", "region", "secret", "stored"]


def test_rows_are_read_from_a_snapshot_or_not_at_all(source_db: Database, slot: Slot) -> None:
    source_db.execute("create table t (id int primary key)")
    slot.set_up(cdc_stream("t"))
    with opened(source_db.config, Collected()) as instance, pytest.raises(RapidbyteError) as caught:
        instance.call("rb_read", {"stream": cdc_stream("t"), "cursor": None, "max_batch_bytes": 1 << 20})
    assert caught.value.info.kind is Kind.PROTOCOL
    with snapshot(source_db.config) as taken:
        pass
    with pytest.raises(RapidbyteError) as caught:
        read_snapshot(source_db.config, cdc_stream("t"), taken)
    assert caught.value.info.kind is Kind.TRANSIENT_DB
    assert "the session that holds the snapshot" in caught.value.info.message


# rb_digest.


def digest(database: Database, stream: dict[str, Any], **others: Any) -> dict[str, Any]:
    with opened(database.config) as instance:
        answer: dict[str, Any] = instance.call(
            "rb_digest", {"stream": stream, "columns": None, "snapshot": None, **others}
        )
        return answer


def test_tables_of_equal_rows_have_one_digest_whatever_the_order_of_rows_and_columns(source_db: Database) -> None:
    source_db.execute(
        "create table a (id int primary key, v text, w numeric); insert into a values (1, 'x', 1.0), (2, null, 2.50);"
        "create table b (w numeric, id int primary key, v text); insert into b values (2.50, 2, null), (1.0, 1, 'x')"
    )
    first, second = digest(source_db, cdc_stream("a")), digest(source_db, cdc_stream("b"))
    assert first == second
    assert (first["rows"], first["columns"], len(first["hash"])) == (2, ["id", "v", "w"], 32)
    assert digest(source_db, cdc_stream("a", deletes="soft")) == first
    assert digest(source_db, cdc_stream("a", write_mode="append", deletes=None)) == first


@pytest.mark.parametrize(
    "change",
    [
        "update t set v = 'N' where v is null",
        "update t set v = '' where v is null",
        "update t set v = v || ' ' where id = 1",
        "update t set v = w, w = v where id = 3",
        "update t set id = 30 where id = 3",
        "delete from t where id = 1",
        "insert into t values (4, null, null)",
    ],
)
def test_any_change_of_a_value_is_another_digest(source_db: Database, change: str) -> None:
    source_db.execute(
        "create table t (id int primary key, v text, w text);"
        "insert into t values (1, 'x', 'y'), (2, null, 'a,b'), (3, 'a'',''b', 'c')"
    )
    before = digest(source_db, cdc_stream("t"))
    source_db.execute(change)
    assert digest(source_db, cdc_stream("t"))["hash"] != before["hash"]


def test_a_digest_is_of_the_snapshot_and_the_columns_that_are_asked_for(source_db: Database, slot: Slot) -> None:
    source_db.execute("create table t (id int primary key, v text); insert into t values (1, 'x')")
    of_one = digest(source_db, cdc_stream("t"))
    of_ids = digest(source_db, cdc_stream("t"), columns=["id"])
    with snapshot(source_db.config) as taken:
        source_db.execute("update t set v = 'y'")
        assert digest(source_db, cdc_stream("t"), snapshot=taken) == of_one
    assert digest(source_db, cdc_stream("t"))["hash"] != of_one["hash"]
    assert digest(source_db, cdc_stream("t"), columns=["id"]) == of_ids
    source_db.execute("truncate t")
    assert digest(source_db, cdc_stream("t")) == {"rows": 0, "hash": "0" * 32, "columns": ["id", "v"]}
    with pytest.raises(RapidbyteError, match="has no such column: w"):
        digest(source_db, cdc_stream("t"), columns=["w"])


def test_columns_of_several_collations_have_a_digest(source_db: Database) -> None:
    source_db.execute(
        'create table t (id int primary key, v text collate "C", w text collate "POSIX");'
        "insert into t values (1, 'a', 'b')"
    )
    before = digest(source_db, cdc_stream("t"))
    source_db.execute("alter table t alter v type text")
    assert digest(source_db, cdc_stream("t")) == before


@pytest.mark.full
def test_an_older_server_leaves_generated_columns_out_and_says_since_when_it_could() -> None:
    programs = Path(sys.prefix) / "postgresql-16" / "pgserver" / "pginstall" / "bin"
    if not (programs / "postgres").exists():
        pytest.skip("PostgreSQL 16 is not installed: make test-full")
    with EmbeddedPostgres(durable=False, installation=Installation(programs)) as server:
        server.create_database("shop")
        database = Database(server, "shop")
        database.execute(
            "create table t (id int primary key, twice int generated always as (id * 2) stored);"
            "insert into t values (1)"
        )
        [warning] = Slot(database.config, "shop").set_up(cdc_stream("t"))["warnings"]
        assert "column twice of public.t is generated, and not told" in warning
        with snapshot(database.config) as taken:
            table, _ = read_snapshot(database.config, cdc_stream("t", publication="shop"), taken)
        assert table.to_pylist() == [{"id": 1}]
        with pytest.raises(RapidbyteError, match="column twice of public") as caught:
            Slot(database.config, "shop").set_up(cdc_stream("t", columns=["id", "twice"]))
        assert "from PostgreSQL 18 on" in (caught.value.hint or "")
