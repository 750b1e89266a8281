"""The order of a commit: prepare, COMMIT of data and watermark, committed."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError, StateError
from rapidbyte_dagster.runtime import NoData
from tests.integration.destination.feed import PIPELINE, Destination, column, committed
from tests.postgres_server import Database

NOTES = pa.schema([column("id", pa.int64(), "bigint"), column("body", pa.string(), "text")])


def notes(*ids: int) -> pa.Table:
    return pa.table({"id": list(ids), "body": [f"note {i}" for i in ids]}, schema=NOTES)


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("view", [False, True], ids=["plain", "with a view"])
def test_others_see_nothing_at_prepare_and_everything_at_committed(
    destination: Destination, destination_db: Database, mode: str, view: bool
) -> None:
    destination.write(notes(1), mode, table="notes", cursor="first")
    if view:
        destination_db.execute("create view v as select * from notes")
    looks: list[tuple[list[int], int]] = []

    def look(_: dict[str, Any]) -> None:
        ids = [row[0] for row in destination_db.fetch("select id from notes order by id")]
        looks.append((ids, destination_db.fetch_value("select sequence from _rapidbyte_watermarks")))

    written = destination.write(
        notes(2, 3), mode, table="notes", sequence=2, cursor="second", on_prepare=look, on_committed=look
    )
    assert looks == [([1], 1), ([1, 2, 3] if mode == "append" else [2, 3], 2)]
    assert [name for name, _ in written.feed.said] == ["prepare", "committed"]
    assert written.feed.said[0][1] == {
        "sequence": 2,
        "rows": 2,
        "bytes": written.result["bytes"],
        "rejected": 0,
    }
    assert written.feed.said[1][1] == {"sequence": 2}


def test_the_watermark_says_what_was_committed_last(destination: Destination, destination_db: Database) -> None:
    assert destination.watermark("notes") is None
    cursor = {"lsn": "0/16B3748", "number": 12345678901234567890.5, "text": 'é "\\', "list": [1, None]}
    destination.write(notes(1), table="notes", sequence=7, cursor=cursor)
    assert destination.watermark("notes") == committed(7, cursor)
    assert destination.watermark("other") is None
    rows = destination_db.fetch(
        "select pipeline, stream, sequence, cursor, committed_at between now() - interval '1 min' and now() "
        "from _rapidbyte_watermarks"
    )
    assert rows == [(PIPELINE, "notes", 7, cursor, True)]


def test_watermarks_lie_in_the_config_s_schema_whatever_schema_the_stream_has(
    destination: Destination, destination_db: Database
) -> None:
    raw = destination.with_config(schema="raw")
    raw.write(notes(1), table="notes", schema="elsewhere")
    raw.write(notes(1), table="other")
    assert destination_db.fetch("select stream from raw._rapidbyte_watermarks order by 1") == [("notes",), ("other",)]
    assert destination_db.fetch_value("select count(*) from elsewhere.notes") == 1
    assert destination_db.fetch_value("select count(*) from raw.other") == 1
    assert destination.watermark("notes") is None


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_refused_prepare_rolls_back(destination: Destination, destination_db: Database, mode: str) -> None:
    destination.write(notes(1), mode, table="notes")

    def refuse(_: dict[str, Any]) -> None:
        raise StateError("the state store is full", kind=Kind.STATE)

    with pytest.raises(StateError, match="the state store is full"):
        destination.write(notes(2), mode, table="notes", sequence=2, on_prepare=refuse)
    assert destination_db.fetch("select id from notes") == [(1,)]
    assert destination.watermark("notes") == committed(1)


def test_what_is_committed_stays_when_the_host_cannot_finalise_it(
    destination: Destination, destination_db: Database
) -> None:
    def refuse(_: dict[str, Any]) -> None:
        raise StateError("the state store is gone")

    with pytest.raises(StateError, match="the state store is gone"):
        destination.write(notes(1), table="notes", sequence=3, on_committed=refuse)
    assert destination_db.fetch("select id from notes") == [(1,)]
    assert destination.watermark("notes") == committed(3)


def test_streams_that_start_together_create_the_same_schema_once(
    destination: Destination, destination_db: Database
) -> None:
    together = threading.Barrier(4)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            together.wait()
            destination.with_config(schema="raw").write(notes(number), table=f"notes{number}")
        except BaseException as failure:  # noqa: BLE001  a thread's edge: told below
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert destination_db.fetch_value("select count(*) from raw._rapidbyte_watermarks") == 4


def test_a_second_run_of_the_same_stream_is_turned_away(destination: Destination) -> None:
    with destination.instance(NoData()) as first:
        first.call("rb_open", destination.open_argument("notes"))
        with pytest.raises(RapidbyteError, match="another run is writing stream notes") as raised:
            destination.watermark("notes")
        assert not raised.value.kind.retryable
        assert destination.watermark("other") is None
    assert destination.watermark("notes") is None
