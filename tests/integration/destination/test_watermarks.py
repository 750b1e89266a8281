"""The watermark: whose commit it was, tables of the first version, rewinding, and what it is held against."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, SchemaError
from rapidbyte_dagster.runtime import End, Item
from tests.integration.destination.feed import (
    PIPELINE,
    Destination,
    Feed,
    barrier,
    batch_item,
    column,
    committed,
    schema_item,
)
from tests.postgres_server import Database

NOTES = pa.schema([column("id", pa.int64(), "bigint"), column("body", pa.string(), "text")])

FIRST_VERSION = f"""
    create table _rapidbyte_watermarks (
        pipeline text not null, stream text not null, sequence bigint not null, cursor json,
        committed_at timestamptz not null, primary key (pipeline, stream));
    insert into _rapidbyte_watermarks values ('{PIPELINE}', 'notes', 6, '{{"id": 1}}', now())
"""


def notes(*ids: int) -> pa.Table:
    return pa.table({"id": list(ids), "body": [f"note {i}" for i in ids]}, schema=NOTES)


def ids(database: Database) -> list[int]:
    return [row[0] for row in database.fetch("select id from notes order by id")]


def rewind(destination: Destination, watermark: dict[str, Any], *, run_id: str = "by hand") -> None:
    with destination.instance(Feed([])) as instance:
        instance.call("rb_open", destination.open_argument("notes", run_id=run_id))
        assert instance.call("rb_rewind", {"watermark": watermark}) == {}


def test_a_watermark_names_its_run_and_tells_its_last_commit(destination: Destination) -> None:
    seen: list[dict[str, Any] | None] = []

    def items() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield batch_item(notes(1).to_batches()[0])
        yield barrier(1, cursor=1, final=False)
        yield batch_item(notes(2).to_batches()[0])
        yield barrier(2, cursor=2)
        yield End()

    def look(_: dict[str, Any]) -> None:
        rows = destination.database.fetch("select sequence, cursor, run_id, final from _rapidbyte_watermarks")
        seen.extend(committed(row[0], row[1], run_id=row[2], final=row[3]) for row in rows)

    destination.write(items(), table="notes", run_id="a", on_committed=look)
    assert seen == [committed(1, 1, run_id="a", final=False), committed(2, 2, run_id="a")]
    again = destination.write(notes(3), "replace", table="notes", sequence=3, run_id="b")
    assert again.opened["watermark"] == committed(2, 2, run_id="a")
    assert destination.watermark("notes") == committed(3, run_id="b")


def test_a_table_of_the_first_version_is_read_as_it_is_and_upgraded_by_the_next_write(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute(FIRST_VERSION)
    assert destination.watermark("notes") == committed(6, {"id": 1}, run_id=None, final=False)
    assert destination_db.fetch_value("select count(*) from pg_attribute where attname = 'run_id'") == 0
    destination.write(notes(1), table="other")
    assert destination.watermark("notes") == committed(6, {"id": 1}, run_id=None, final=False)
    destination.write(notes(1), table="notes", sequence=7, run_id="b")
    assert destination.watermark("notes") == committed(7, run_id="b")


def test_streams_that_start_together_upgrade_the_table_once(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(FIRST_VERSION)
    together = threading.Barrier(4)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            together.wait()
            destination.write(notes(number), table=f"notes{number}")
        except BaseException as failure:  # noqa: BLE001  a thread's edge: told below
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert destination_db.fetch_value("select count(*) from _rapidbyte_watermarks where final") == 4


def test_a_check_passes_on_a_table_of_the_first_version(destination: Destination, destination_db: Database) -> None:
    destination_db.execute(FIRST_VERSION)
    assert {finding["level"] for finding in destination.check()} == {"ok"}
    assert destination_db.fetch_value("select count(*) from pg_attribute where attname = 'run_id'") == 0


def test_a_rewind_writes_the_watermark_digit_for_digit(destination: Destination, destination_db: Database) -> None:
    raw = destination.with_config(schema="raw")
    cursor = {"n": 1.0, "big": 12345678901234567890123, "text": 'é "\\'}
    rewind(raw, {"sequence": 8, "cursor": cursor})
    assert raw.watermark("notes") == committed(8, cursor, run_id="by hand", final=False)
    text = destination_db.fetch_value("select cursor::text from raw._rapidbyte_watermarks")
    assert text.startswith('{"n":1.0,"big":12345678901234567890123,')
    rewind(raw, {"sequence": 9, "cursor": None})
    assert raw.watermark("notes") == committed(9, run_id="by hand", final=False)


def test_a_rewind_upgrades_a_table_of_the_first_version_and_touches_one_stream(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute(FIRST_VERSION)
    destination_db.execute(
        f"insert into _rapidbyte_watermarks values ('{PIPELINE}', 'other', 3, null, now()), "
        "('elsewhere', 'notes', 4, null, now())"
    )
    rewind(destination, {"sequence": 7, "cursor": None})
    rows = destination_db.fetch("select pipeline, stream, sequence from _rapidbyte_watermarks order by 1, 2")
    assert rows == [("elsewhere", "notes", 4), (PIPELINE, "notes", 7), (PIPELINE, "other", 3)]


def test_a_rewind_waits_its_turn_behind_a_run(destination: Destination) -> None:
    with destination.instance(Feed([])) as running:
        running.call("rb_open", destination.open_argument("notes"))
        with pytest.raises(RapidbyteError, match="another run is writing stream notes"):
            rewind(destination, {"sequence": 7, "cursor": None})


def test_a_run_that_waits_for_another_one_says_so(destination: Destination) -> None:
    feed = Feed([])
    with destination.instance(Feed([])) as running, destination.instance(feed) as waiting:
        running.call("rb_open", destination.open_argument("notes"))
        ended = threading.Timer(2.5, running.call, ("rb_close", {}))
        ended.start()
        started = time.monotonic()
        waiting.call("rb_open", destination.open_argument("notes"))
        assert time.monotonic() - started > 2
        ended.join()
    assert feed.heard("waiting for another run of stream notes of pipeline shop to end")


@pytest.mark.parametrize("way", ["append", "swapped", "in place"])
def test_a_write_that_waits_for_the_table_says_so(destination: Destination, destination_db: Database, way: str) -> None:
    mode = "append" if way == "append" else "replace"
    destination.write(notes(1), "replace", table="notes")
    if way == "in place":
        destination_db.execute("create view v as select * from notes")
    with destination_db.connect() as holder:
        holder.execute("begin; lock table notes in share mode")
        released = threading.Timer(2.0, holder.execute, ("commit",))
        released.start()
        written = destination.write(notes(2), mode, table="notes", sequence=2)
        released.join()
    assert written.feed.heard("waiting for other sessions to let go of public.notes")
    assert ids(destination_db) == ([1, 2] if mode == "append" else [2])


def test_who_may_insert_into_some_columns_only_still_appends(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(notes(1), table="notes", run_id="a")
    destination_db.execute("alter table notes owner to postgres", superuser=True)
    destination_db.execute("grant insert (id, body), select on notes to etl", superuser=True)
    destination.write(notes(2), table="notes", sequence=2)
    assert ids(destination_db) == [1, 2]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_table_that_has_to_be_there_and_is_not_is_told_before_a_row(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    items: Iterator[Item] = (pytest.fail("it was asked for what comes") for _ in range(1))
    with pytest.raises(SchemaError) as raised:
        destination.write(items, mode, table="notes", target="must_exist")
    assert str(raised.value).startswith(
        "destination: public.notes is gone, but its watermark says that rows were written"
    )
    assert raised.value.kind is Kind.SCHEMA
    assert "rapidbyte state reset FILE --stream notes" in str(raised.value.info.hint)
    destination.write(notes(1), mode, table="notes")
    destination.write(notes(2), mode, table="notes", sequence=2, target="must_exist")


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_table_that_must_not_be_there_and_is_is_told_before_a_row(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    destination.write(notes(1), mode, table="notes", target="must_not_exist")
    destination_db.execute("delete from _rapidbyte_watermarks")
    with pytest.raises(SchemaError) as raised:
        destination.write(notes(1), mode, table="notes", target="must_not_exist")
    assert "public.notes is there, but its watermark is gone" in str(raised.value)
    assert raised.value.kind is Kind.SCHEMA
    assert ids(destination_db) == [1]
    assert destination.watermark("notes") is None


def test_an_unknown_expectation_is_a_protocol_error(destination: Destination) -> None:
    with pytest.raises(DestinationError) as raised:
        destination.write(notes(1), table="notes", target="perhaps")
    assert raised.value.kind is Kind.PROTOCOL


def test_a_shard_s_session_takes_no_lock_and_has_no_watermark(destination: Destination) -> None:
    destination.write(notes(1), table="notes")
    with destination.instance(Feed([])) as running, destination.instance(Feed([])) as shard:
        running.call("rb_open", destination.open_argument("notes"))
        started = time.monotonic()
        opened = shard.call("rb_open", destination.open_argument("notes", shard=0))
        assert time.monotonic() - started < 1
        assert opened["watermark"] is None
        with pytest.raises(DestinationError, match="a shard has no watermark"):
            shard.call("rb_rewind", {"watermark": {"sequence": 3, "cursor": None}})
