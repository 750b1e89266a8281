"""A stream in shards: rows staged by several sessions, and published by one transaction or not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, SchemaError
from rapidbyte_dagster.runtime import End, Item, StreamAborted
from tests.integration.destination.feed import (
    Destination,
    Feed,
    Staging,
    barrier,
    batch_item,
    column,
    committed,
    schema_item,
)
from tests.postgres_server import Database, unique_name
from tests.quick import few

NOTES = pa.schema([column("id", pa.int64(), "bigint", nullable=False), column("body", pa.string(), "text")])
TEXT_FORMS = pa.schema([*NOTES, column("ip", pa.string(), "inet"), column("kind", pa.string(), "regtype")])

SHARDS = 3


def notes(ids: range, *, text_forms: bool = False) -> pa.Table:
    columns = {"id": list(ids), "body": [f"note {i}" for i in ids]}
    if text_forms:
        columns |= {"ip": [f"10.0.0.{i % 256}" for i in ids], "kind": ["integer"] * len(ids)}
    return pa.table(columns, schema=TEXT_FORMS if text_forms else NOTES)


def parts(start: int, stop: int, *, text_forms: bool = False) -> list[pa.Table]:
    """Rows start to stop, dealt out to the shards."""
    return [notes(range(start + k, stop, SHARDS), text_forms=text_forms) for k in range(SHARDS)]


def ids(database: Database) -> list[int]:
    return [row[0] for row in database.fetch("select id from notes order by id")]


def relations(database: Database) -> set[str]:
    """All tables, indexes and views, but those of the watermarks."""
    rows = database.fetch(
        "select relname from pg_class "
        "where relnamespace = 'public'::regnamespace and relname !~ '_rapidbyte_watermarks'"
    )
    return {row[0] for row in rows}


def leftovers(database: Database) -> int:
    count = database.fetch_value(
        "select count(*) from pg_class where relname ~ '^_rapidbyte_(staged|shards)' and relkind = 'r'"
    )
    assert isinstance(count, int)
    return count


HANGERS = {
    "nothing": ("select 1", "notes"),
    "an index": ("create index by_body on notes (body)", "by_body"),
    "a key and a check": (
        "alter table notes add primary key (id), add constraint known check (length(body) > 3)",
        "notes_pkey",
    ),
    "a view": ("create view shown as select * from notes", "shown"),
    "a foreign key": (
        "alter table notes add primary key (id); create table refers (id bigint references notes)",
        "refers",
    ),
}


@pytest.mark.parametrize("text_forms", few([False, True]), ids=["values", "text forms"])
@pytest.mark.parametrize("hanger", [None, *HANGERS])
@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_the_rows_of_all_shards_are_published_at_once(
    destination: Destination, destination_db: Database, mode: str, hanger: str | None, text_forms: bool
) -> None:
    if hanger is not None:
        sql, named = HANGERS[hanger]
        destination.write(notes(range(5), text_forms=text_forms), "replace", table="notes")
        destination_db.execute(sql)
        before = relations(destination_db)
        assert named in before
    key = ["id"] if mode == "upsert" else None
    looks: list[tuple[int, Any]] = []

    def look(_: dict[str, Any]) -> None:
        rows = destination_db.fetch_value("select count(*) from notes") if hanger is not None else 0
        looks.append((rows, destination_db.fetch_value("select max(sequence) from _rapidbyte_watermarks")))

    schema = TEXT_FORMS if text_forms else NOTES
    published: list[Item] = [schema_item(schema), barrier(2, cursor=None), End()]
    with destination.staging(
        schema, mode, table="notes", primary_key=key, published=published, on_prepare=look
    ) as staging:
        written = staging.shards(*parts(5, 1005, text_forms=text_forms))
        assert [part.opened["watermark"] for part in written] == [None] * SHARDS
        assert sum(part.result["rows"] for part in written) == 1000
        assert [part.feed.said for part in written] == [
            [
                ("prepare", {"sequence": 1, "rows": part.result["rows"], "bytes": part.result["bytes"], "rejected": 0}),
                ("committed", {"sequence": 1}),
            ]
            for part in written
        ]
        assert relations(destination_db) - (before if hanger is not None else set())
        result = staging.publish()
    assert looks == [(0, None) if hanger is None else (5, 1)]
    size = sum(part.result["bytes"] for part in written)
    assert result.feed.said == [
        ("prepare", {"sequence": 2, "rows": 1000, "bytes": size, "rejected": 0}),
        ("committed", {"sequence": 2}),
    ]
    assert result.result["created"] is (hanger is None)
    assert result.result["rows"] == 1000
    first = 0 if mode != "replace" and hanger is not None else 5
    assert ids(destination_db) == list(range(first, 1005))
    assert destination.watermark("notes") == committed(2)
    after = relations(destination_db)
    if hanger is None:
        assert after == ({"notes", "notes_pkey"} if mode == "upsert" else {"notes"})
    else:
        made = {"notes_id_idx"} if mode == "upsert" and "notes_pkey" not in before else set()
        assert after == before | made
    if text_forms:
        told = destination_db.fetch("select host(ip), kind::text from notes where id = 7")
        assert told == [("10.0.0.7", "integer")]
    in_place = mode == "replace" and hanger in ("a view", "a foreign key")
    assert result.feed.heard("replaced in place") == in_place


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_new_table_is_like_one_that_was_written_as_a_whole(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    described = (
        "select c.relkind, c.relpersistence, c.reloptions, "
        "(select array_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull) order by attnum)"
        " from pg_attribute where attrelid = c.oid and attnum > 0), "
        "(select array_agg(replace(conname, c.relname, '') || pg_get_constraintdef(oid) order by conname)"
        " from pg_constraint where conrelid = c.oid), "
        "(select array_agg(replace(indexrelid::regclass::text, c.relname, '')) from pg_index where indrelid = c.oid) "
        "from pg_class c where c.oid = %s::regclass"
    )
    destination.write(notes(range(10)), mode, table="whole", primary_key=["id"])
    with destination.staging(NOTES, mode, table="notes", primary_key=["id"]) as staging:
        staging.shards(*parts(0, 10))
        result = staging.publish()
    assert result.result["primary_key"] == ["id"]
    assert destination_db.fetch(described, ["notes"]) == destination_db.fetch(described, ["whole"])


def test_a_swapped_table_keeps_what_the_old_one_had(destination: Destination, destination_db: Database) -> None:
    destination.write(notes(range(3)), table="notes", primary_key=["id"])
    destination_db.execute("alter table notes set (fillfactor = 90, autovacuum_enabled = true)")
    destination_db.execute("comment on table notes is 'kept'; grant select on notes to public")
    with destination.staging(NOTES, "replace", table="notes") as staging:
        staging.shards(*parts(5, 10))
        staging.publish()
    found = destination_db.fetch(
        "select reloptions, obj_description(oid), relacl::text ~ '=r/' from pg_class where relname = 'notes'"
    )
    assert found == [(["fillfactor=90", "autovacuum_enabled=true"], "kept", True)]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_shard_that_is_aborted_leaves_the_target_as_it_was(
    destination: Destination, destination_db: Database, mode: str, existing: bool
) -> None:
    if existing:
        destination.write(notes(range(3)), table="notes", primary_key=["id"])
    before = relations(destination_db)

    def broken() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield batch_item(notes(range(10)).to_batches()[0])
        raise StreamAborted

    with destination.staging(NOTES, mode, table="notes", primary_key=["id"]) as staging:
        staging.shard(0, notes(range(10, 20)))
        with pytest.raises(StreamAborted):
            staging.shard(1, broken())
    assert relations(destination_db) == before
    assert leftovers(destination_db) == 0
    assert destination.watermark("notes") == (committed(1) if existing else None)


@pytest.mark.parametrize("way", ["staged", "whole", "rewound"])
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_what_a_killed_run_left_behind_is_never_seen_and_goes_with_the_next(
    destination: Destination, destination_db: Database, mode: str, way: str
) -> None:
    destination.write(notes(range(3)), table="notes")
    with destination.staging(NOTES, mode, table="notes") as staging:
        staging.shards(*parts(100, 200))
        destination_db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rapidbyte/shop/notes'"
        )
        with pytest.raises(DestinationError):
            staging.publish()
    assert leftovers(destination_db) == 2
    assert ids(destination_db) == [0, 1, 2]
    assert destination.watermark("notes") == committed(1)
    if way == "staged":
        with destination.staging(NOTES, "replace", table="notes") as staging:
            assert staging.feed.heard("dropped the staged rows of a run that did not come to its end")
            staging.shards(*parts(5, 10))
            staging.publish()
        assert ids(destination_db) == [5, 6, 7, 8, 9]
    elif way == "whole":
        written = destination.write(notes(range(5, 6)), "append", table="notes", sequence=2)
        assert written.feed.heard("dropped the staged rows")
        assert ids(destination_db) == [0, 1, 2, 5]
    else:
        with destination.instance(Feed([])) as instance:
            instance.call("rb_open", destination.open_argument("notes"))
            instance.call("rb_rewind", {"watermark": {"sequence": 2, "cursor": None}})
    assert leftovers(destination_db) == 0


def test_what_another_role_left_behind_stands_in_nobodys_way(
    destination: Destination, destination_db: Database
) -> None:
    """A pipeline of the same name, which writes elsewhere in the same database."""
    with destination.staging(NOTES, table="notes"):
        [[name]] = destination_db.fetch("select relname from pg_class where relname ~ '^_rapidbyte_staged'")
    hidden, shown = unique_name("hidden"), unique_name("shown")
    destination_db.execute(
        f"create schema {hidden}; create table {hidden}.{name} (id int);"
        f"create schema {shown}; grant usage on schema {shown} to public; create table {shown}.{name} (id int)",
        superuser=True,
    )
    destination.write(notes(range(3)), table="notes")
    with destination.staging(NOTES, "replace", table="notes") as staging:
        staging.shards(*parts(5, 10))
        staging.publish()
    assert ids(destination_db) == [5, 6, 7, 8, 9]
    assert leftovers(destination_db) == 2


def test_a_shard_of_a_run_that_is_over_does_not_write_into_the_next_one(
    destination: Destination, destination_db: Database
) -> None:
    with destination.staging(NOTES, table="notes") as first:
        first.shard(0, notes(range(3)))
    with destination.staging(NOTES, table="notes") as second:
        late = Staging(
            first.destination,
            first.coordinator,
            first.feed,
            first.pipeline,
            first.described,
            first.opened,
            first.staged,
        )
        with pytest.raises(DestinationError, match=r"the staged rows of public\.notes are gone: their run is over"):
            late.shard(1, notes(range(3, 6)))
        second.shards(*parts(10, 20))
        second.publish()
    assert ids(destination_db) == list(range(10, 20))


def test_a_shard_is_not_written_twice(destination: Destination, destination_db: Database) -> None:
    with destination.staging(NOTES, table="notes") as staging:
        staging.shard(0, notes(range(3)))
        with pytest.raises(DestinationError, match="duplicate key") as raised:
            staging.shard(0, notes(range(3)))
        assert not raised.value.kind.retryable
        staging.publish()
    assert ids(destination_db) == [0, 1, 2]


WAYS = {
    "created": None,
    "swapped": "select 1",
    "in place": "create view v as select * from notes",
    "in place by key": "alter table notes add primary key (id); create table refers (id bigint references notes)",
    "appended": "select 1",
    "upserted": "alter table notes add primary key (id)",
}


@pytest.mark.parametrize("way", WAYS)
def test_readers_find_all_of_the_rows_or_none_at_any_moment(
    destination: Destination, destination_db: Database, way: str
) -> None:
    mode = {"appended": "append", "upserted": "upsert"}.get(way, "replace")
    if (sql := WAYS[way]) is not None:
        destination.write(notes(range(1000)), "replace", table="notes")
        destination_db.execute(sql)
    stop = threading.Event()
    seen: set[tuple[int, int, int] | None] = set()
    failures: list[BaseException] = []

    def look(isolation: psycopg.IsolationLevel) -> None:
        try:
            with psycopg.connect(destination_db.dsn) as connection:
                connection.isolation_level = isolation
                while not stop.is_set():
                    with connection.transaction():
                        found = connection.execute("select to_regclass('notes') is not null").fetchall()
                        if found == [(True,)]:
                            seen.update(connection.execute("select count(*), min(id), max(id) from notes").fetchall())
                        else:
                            seen.add(None)
        except BaseException as failure:  # noqa: BLE001  a thread's edge: told below
            failures.append(failure)

    levels = [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ]
    threads = [threading.Thread(target=look, args=(level,)) for level in levels]
    for thread in threads:
        thread.start()
    try:
        with destination.staging(NOTES, mode, table="notes", primary_key=["id"]) as staging:
            staging.shards(*parts(1000, 31000))
            staging.publish()
        time.sleep(0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    old = {None} if WAYS[way] is None else {(1000, 0, 999)}
    new = {(31000, 0, 30999)} if mode != "replace" else {(30000, 1000, 30999)}
    assert seen == old | new


KEYED = pa.schema([column("id", pa.int64(), "bigint"), column("body", pa.string(), "text")])


def keyed(*rows: tuple[int | None, str]) -> pa.Table:
    return pa.table({"id": [row[0] for row in rows], "body": [row[1] for row in rows]}, schema=KEYED)


def test_an_upsert_in_shards_writes_what_changed_and_nothing_else(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(keyed((1, "one"), (2, "two"), (3, "three")), "upsert", table="notes", primary_key=["id"])
    versions = "select id, xmin::text from notes where id in (1, 2)"
    before = destination_db.fetch(versions)
    with destination.staging(KEYED, "upsert", table="notes", primary_key=["id"]) as staging:
        staging.shards(keyed((1, "one"), (3, "new")), keyed((4, "four"), (2, "two")))
        result = staging.publish()
    assert destination_db.fetch("select id, body from notes order by id") == [
        (1, "one"),
        (2, "two"),
        (3, "new"),
        (4, "four"),
    ]
    assert destination_db.fetch(versions) == before
    assert (result.feed.said[0][0], result.feed.said[0][1]["rows"]) == ("prepare", 4)


@pytest.mark.parametrize("existing", [False, True], ids=["new table", "existing table"])
def test_of_rows_with_one_key_in_several_shards_one_wins(
    destination: Destination, destination_db: Database, existing: bool
) -> None:
    if existing:
        destination.write(keyed((1, "old"), (7, "old")), "upsert", table="notes", primary_key=["id"])
    with destination.staging(KEYED, "upsert", table="notes", primary_key=["id"]) as staging:
        staging.shards(keyed((1, "a"), (2, "a"), (1, "b")), keyed((1, "c"), (3, "c"), (2, "d")))
        result = staging.publish()
    assert result.feed.heard("later rows with the same key supersede others: DELETE 3")
    found = dict(destination_db.fetch("select id, body from notes"))
    assert set(found) == {1, 2, 3} | ({7} if existing else set())
    assert found[1] in {"a", "b", "c"}
    assert found[2] in {"a", "d"}
    assert result.result["rows"] == 6
    assert result.result["primary_key"] == ["id"]


def test_a_null_in_a_shard_s_key_is_a_data_error_that_names_column_and_row(destination: Destination) -> None:
    with destination.staging(KEYED, "upsert", table="notes", primary_key=["id"]) as staging:
        with pytest.raises(DestinationError, match="column id of row 2 is NULL") as raised:
            staging.shard(0, keyed((1, "one"), (None, "none")))
        assert raised.value.kind is Kind.DATA


def test_what_is_wrong_with_a_key_is_told_when_the_stream_is_staged(
    destination: Destination, destination_db: Database
) -> None:
    with (
        pytest.raises(RapidbyteError, match=r"an upsert into public\.notes without a key"),
        destination.staging(KEYED, "upsert", table="notes"),
    ):
        pass
    with (
        pytest.raises(SchemaError, match="the key's column nope is not in the stream"),
        destination.staging(KEYED, "upsert", table="notes", primary_key=["nope"]),
    ):
        pass
    unordered = pa.schema([column("id", pa.string(), "point")])
    with (
        pytest.raises(SchemaError, match="point"),
        destination.staging(unordered, "upsert", table="notes", primary_key=["id"]),
    ):
        pass
    assert relations(destination_db) == set()
    destination.write(keyed((1, "one"), (1, "two")), table="notes")
    with (
        pytest.raises(DestinationError, match="1 values of the key are there more than once"),
        destination.staging(KEYED, "upsert", table="notes", primary_key=["id"]),
    ):
        pass
    assert leftovers(destination_db) == 0


@pytest.mark.parametrize("existing", [False, True], ids=["new table", "existing table"])
def test_a_snapshot_from_between_the_shards_finds_no_part_of_the_rows(
    destination: Destination, destination_db: Database, existing: bool
) -> None:
    if existing:
        destination.write(notes(range(7)), "replace", table="notes")
    with psycopg.connect(destination_db.dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with destination.staging(NOTES, "replace", table="notes", primary_key=["id"]) as staging:
            staging.shard(0, notes(range(10, 20)))
            reader.execute("select 1")
            staging.shard(1, notes(range(20, 30)))
            result = staging.publish()
        assert result.feed.heard("waiting for snapshots older than the new rows")
        assert reader.execute("select count(*) from notes").fetchall() == [(7 if existing else 0,)]
    assert ids(destination_db) == list(range(10, 30))
    assert leftovers(destination_db) == 0
    assert result.result["primary_key"] == ([] if existing else ["id"])


def test_snapshots_that_end_in_time_and_other_streams_do_not_keep_a_swap_from_happening(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(notes(range(7)), "replace", table="notes")
    go_on = threading.Event()

    def slowly() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield batch_item(notes(range(20_000)).to_batches()[0])
        go_on.wait(20)
        yield barrier()
        yield End()

    other = threading.Thread(target=destination.write, args=(slowly(), "append"), kwargs={"table": "other"})
    with psycopg.connect(destination_db.dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select 1")
        try:
            with destination.staging(NOTES, "replace", table="notes") as staging:
                staging.shards(*parts(10, 20))
                other.start()
                time.sleep(0.5)
                threading.Timer(0.7, reader.commit).start()
                result = staging.publish()
        finally:
            go_on.set()
            other.join()
    assert result.feed.heard("waiting for snapshots older than the new rows")
    assert result.feed.heard("public.notes is replaced by a new table")


def test_pipelines_and_streams_of_the_same_names_do_not_meet(
    destination: Destination, destination_db: Database
) -> None:
    with (
        destination.staging(NOTES, "append", table="notes") as a,
        destination.staging(NOTES, "append", table="notes", pipeline="other") as b,
        destination.staging(NOTES, "replace", table="letters") as c,
        destination.staging(NOTES, "replace", table="notes", in_schema="elsewhere", pipeline="third") as d,
    ):
        tables = {(s.staged["into"]["schema"], s.staged["into"]["table"]) for s in (a, b, c, d)}
        assert len({table for _, table in tables}) == 4
        assert all(len(table) <= 63 for _, table in tables)
        for number, staging in enumerate((a, c, d)):
            staging.shards(*parts(number * 100, number * 100 + 10))
            staging.publish()
        b.shards(*parts(300, 310))
        with pytest.raises(SchemaError, match=r"public\.notes was created by somebody else while its rows were loaded"):
            b.publish()
    with destination.staging(NOTES, "append", table="notes", pipeline="other") as b:
        b.shards(*parts(300, 310))
        b.publish()
    assert ids(destination_db) == [*range(10), *range(300, 310)]
    assert destination_db.fetch_value("select count(*) from letters") == 10
    assert destination_db.fetch_value("select count(*) from elsewhere.notes") == 10
    assert leftovers(destination_db) == 0


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("alter table notes add column more int default 7", "it was altered while it was loaded"),
        ("alter table notes add constraint short check (length(body) < 100)", "it was altered while it was loaded"),
        ("alter table notes alter column body set default 'x'", "it was altered while it was loaded"),
        ("create view v as select * from notes", "depends on it"),
        ("create index by_body on notes (body)", None),
        ("grant select on notes to public", None),
    ],
)
def test_what_happened_to_the_table_during_the_load_is_not_lost(
    destination: Destination, destination_db: Database, sql: str, told: str | None
) -> None:
    destination.write(notes(range(3)), "replace", table="notes", primary_key=["id"])
    defined = (
        "select array_agg(concat_ws(' ', attname, atttypid, attnotnull, pg_get_expr(adbin, adrelid))"
        " order by attname), "
        "(select array_agg(c order by c) from"
        " (select pg_get_constraintdef(oid) c from pg_constraint where conrelid = 'notes'::regclass) c), "
        "(select count(*) from pg_index where indrelid = 'notes'::regclass), "
        "(select relacl::text from pg_class where oid = 'notes'::regclass), to_regclass('v') "
        "from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum "
        "where attrelid = 'notes'::regclass and attnum > 0"
    )
    with destination.staging(NOTES, "replace", table="notes") as staging:
        staging.shards(*parts(10, 20))
        destination_db.execute(sql)
        before = destination_db.fetch(defined)
        result = staging.publish()
    assert destination_db.fetch(defined) == before
    assert ids(destination_db) == list(range(10, 20))
    assert result.feed.heard(told or "is replaced by a new table")


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_table_that_was_dropped_during_the_load_is_told(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    destination.write(notes(range(3)), "replace", table="notes")
    with destination.staging(NOTES, mode, table="notes") as staging:
        staging.shards(*parts(10, 20))
        destination_db.execute("drop table notes")
        with pytest.raises(SchemaError, match=r"public\.notes was dropped by somebody else"):
            staging.publish()
    assert relations(destination_db) == set()


OTHER = pa.schema([*NOTES, column("more", pa.int32(), "integer")])


def test_a_shard_of_another_shape_is_refused(destination: Destination) -> None:
    rows = pa.table({"id": [1], "body": ["x"], "more": [1]}, schema=OTHER)
    with destination.staging(NOTES, table="notes") as staging:
        with pytest.raises(SchemaError, match=r"columns changed while public\.notes was written"):
            staging.shard(0, rows)
        nullable = pa.schema([column("id", pa.int64(), "bigint"), NOTES.field("body")])
        with pytest.raises(SchemaError, match="columns changed"):
            staging.shard(0, pa.table({"id": [1], "body": ["x"]}, schema=nullable))


def test_a_publication_of_another_shape_is_refused(destination: Destination, destination_db: Database) -> None:
    published: list[Item] = [schema_item(OTHER), barrier(), End()]
    with destination.staging(NOTES, table="notes", published=published) as staging:
        staging.shards(*parts(0, 10))
        with pytest.raises(SchemaError, match="columns changed"):
            staging.publish()
    assert relations(destination_db) == set()


def test_shards_go_on_writing_after_their_publication_was_announced(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(notes(range(3)), table="notes")
    announced, loaded = threading.Event(), threading.Event()

    def published() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield schema_item(NOTES)
        announced.set()
        loaded.wait(20)
        yield barrier(1, final=False)
        yield barrier(2)
        yield End()

    with destination.staging(NOTES, "replace", table="notes", published=published()) as staging:
        results: list[Any] = []
        publishing = threading.Thread(target=lambda: results.append(staging.publish()))
        publishing.start()
        announced.wait(20)
        staging.shards(*parts(10, 20))
        loaded.set()
        publishing.join()
    assert results[0].result["rows"] == 10
    assert ids(destination_db) == list(range(10, 20))


def test_staged_rows_that_are_not_published_are_no_success(destination: Destination, destination_db: Database) -> None:
    with destination.staging(NOTES, table="notes", published=[schema_item(NOTES), End()]) as staging:
        staging.shards(*parts(10, 20))
        with pytest.raises(DestinationError, match="ended without a barrier"):
            staging.publish()
    assert relations(destination_db) == set()


def test_a_publication_takes_no_rows_of_its_own(destination: Destination, destination_db: Database) -> None:
    published: list[Item] = [schema_item(NOTES), batch_item(notes(range(3)).to_batches()[0]), barrier(), End()]
    with (
        destination.staging(NOTES, table="notes", published=published) as staging,
        pytest.raises(DestinationError, match="rows came where they are published"),
    ):
        staging.publish()
    assert relations(destination_db) == set()


def test_a_key_that_repeats_across_shards_is_a_data_error(destination: Destination, destination_db: Database) -> None:
    with destination.staging(NOTES, table="notes", primary_key=["id"]) as staging:
        staging.shard(0, notes(range(3)))
        staging.shard(1, notes(range(2, 5)))
        with pytest.raises(DestinationError, match="duplicate") as raised:
            staging.publish()
        assert raised.value.kind is Kind.DATA
    assert relations(destination_db) == set()


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_shards_without_rows_publish_nothing_or_an_empty_table(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    with destination.staging(NOTES, mode, table="notes") as staging:
        staging.shards(*parts(0, 0))
        assert staging.publish().feed.said[0] == ("prepare", {"sequence": 1, "rows": 0, "bytes": 0, "rejected": 0})
    assert ids(destination_db) == []


def test_what_the_host_expects_of_the_target_is_told_when_it_is_staged(
    destination: Destination, destination_db: Database
) -> None:
    with (
        pytest.raises(SchemaError, match=r"public\.notes is gone"),
        destination.staging(NOTES, table="notes", target="must_exist"),
    ):
        pass
    destination.write(notes(range(3)), table="notes")
    with (
        pytest.raises(SchemaError, match=r"public\.notes is there, but its watermark is gone"),
        destination.staging(NOTES, table="notes", target="must_not_exist"),
    ):
        pass
    assert leftovers(destination_db) == 0


def test_a_shard_writes_into_staged_tables_only_and_stages_nothing(destination: Destination) -> None:
    with destination.instance(Feed([])) as shard:
        shard.call("rb_open", destination.open_argument("notes", shard=0))
        stream = {"name": "notes", "table": "notes", "write_mode": "append"}
        with pytest.raises(DestinationError, match="a shard is written into staged tables"):
            shard.call("rb_write", {"stream": stream})
        with pytest.raises(DestinationError, match="a shard cannot stage"):
            shard.call("rb_stage", {"stream": stream})


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_who_may_create_no_table_beside_the_target_has_the_rows_staged_beside_the_watermarks(
    destination: Destination, destination_db: Database, postgres: EmbeddedPostgres, mode: str
) -> None:
    user = unique_name("guest")
    postgres.create_role(user, password="guest")
    raw = destination.with_config(schema="raw", user=user, password="guest")
    try:
        destination_db.execute(
            f"create schema raw; grant usage, create on schema raw to {user}; "
            "create table notes (id bigint primary key, body text); "
            f"grant select, insert, update, delete on notes to {user}"
        )
        with raw.staging(NOTES, mode, table="notes", in_schema="public", primary_key=["id"]) as staging:
            assert staging.staged["into"]["schema"] == "raw"
            staging.shards(*parts(0, 10))
            staging.publish()
        assert ids(destination_db) == list(range(10))
        assert leftovers(destination_db) == 0
        raw.write(notes(range(10, 11)), table="notes", schema="public", sequence=2)
        destination_db.execute(f"revoke create on schema raw from {user}")
        with (
            pytest.raises(DestinationError, match=r"public\.notes cannot be written in shards") as raised,
            raw.staging(NOTES, mode, table="notes", in_schema="public", primary_key=["id"]),
        ):
            pass
        assert raised.value.kind is Kind.PERMISSION
    finally:
        destination_db.execute(f"drop owned by {user}; drop role {user}", superuser=True)


def test_a_shard_of_an_attempt_that_was_given_up_cannot_commit_into_its_successors(destination: Destination) -> None:
    """Its process may live on, cut off from the session that held the stream's lock."""
    with destination.staging(NOTES, "replace", table="notes", note={"of": 1}) as given_up:
        given_up.shard(0, notes(range(5)))
    with destination.staging(NOTES, "replace", table="notes", note={"of": 2}, resumes=True) as successor:
        assert successor.opened["staged"] == {"note": {"of": 1}, "loaded": [0], "rows": 5}
        assert (successor.staged["loaded"], successor.staged["rows"]) == ([0], 5)
        with pytest.raises(RapidbyteError, match="their run is over"):
            given_up.shard(1, notes(range(5, 10)))
        successor.shard(1, notes(range(5, 12)))
        successor.publish()
    assert ids(destination.database) == list(range(12))
    assert leftovers(destination.database) == 0


def test_a_shard_that_is_still_at_work_keeps_the_next_attempt_from_going_on(destination: Destination) -> None:
    """Nobody knows yet whether it will be there."""
    with destination.staging(NOTES, "replace", table="notes", note={"of": 1}) as given_up:
        given_up.shard(0, notes(range(5)))
    at_work, go_on = threading.Event(), threading.Event()

    def items() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield batch_item(notes(range(5, 10)).to_batches()[0])
        at_work.set()
        go_on.wait(30)
        yield barrier()
        yield End()

    late = threading.Thread(target=lambda: given_up.shard(1, items()))
    late.start()
    assert at_work.wait(30)
    threading.Timer(1.5, go_on.set).start()
    with destination.staging(NOTES, "replace", table="notes", note={"of": 1}, resumes=True) as successor:
        assert go_on.is_set()
        assert (successor.staged["loaded"], successor.staged["rows"]) == ([0, 1], 10)
        successor.publish()
    late.join(30)
    assert ids(destination.database) == list(range(10))
