"""One row among 10,000 that the source cannot read, all the way to the destination's table."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import ReplayResult, replay_dead_letters
from rapidbyte_dagster.engine.letter_files import EditedLetters
from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database, MakeDatabase
from tests.recovery.failpoints import WATERMARK
from tests.recovery.proxy import Moment, Proxy

ROWS = 10_000
BAD = 5_000
MEGABYTE = 1024 * 1024
INCREMENTAL = {"sync_mode": "incremental", "cursor_field": "at"}


@dataclass
class Notes:
    """A table of a database that takes any bytes for text, and where it goes."""

    folder: Path
    source: Database
    destination: Database
    on_data_error: str
    write_mode: str
    stream: Mapping[str, Any]

    def pipeline(self, **resources: Any) -> Pipeline:
        return make_pipeline(
            self.folder,
            self.source,
            self.destination,
            [{"name": "notes", **self.stream}],
            write_mode=self.write_mode,
            destination_section={"on_data_error": self.on_data_error},
            resources={"checkpoint_interval_rows": 700, **resources},
        )

    def letters(self) -> list[dict[str, Any]]:
        pipeline = self.pipeline()
        with open_state(pipeline, {}) as state:
            return state.dead_letters(pipeline.name, "notes").to_pylist()

    def counts(self) -> tuple[int, int, int]:
        """Rows, rejected rows and dead letters of all checkpoints together."""
        pipeline = self.pipeline()
        with open_state(pipeline, {}) as state:
            checkpoints = state.checkpoints(pipeline.name, "notes", limit=1000)
        return (
            sum(c.rows for c in checkpoints),
            sum(c.rejected for c in checkpoints),
            sum(c.dead_letters for c in checkpoints),
        )

    def replay(self, edited: EditedLetters | None = None) -> ReplayResult:
        pipeline = self.pipeline()
        with open_state(pipeline, {}) as state:
            return replay_dead_letters(
                pipeline, pipeline.streams[0], state=state, run_id=str(uuid.uuid4()), edited=edited, environ={}
            )

    def loaded(self) -> list[int]:
        return [number for (number,) in self.destination.fetch("select id from raw.notes order by id")]


@pytest.fixture
def source(make_database: MakeDatabase) -> Database:
    database = make_database("ascii", encoding="SQL_ASCII")
    database.execute(
        f"""
        create table notes (id int primary key, at timestamp not null, note text not null, bad interval);
        insert into notes
        select n, timestamp '2024-01-01' + n / 10 * interval '1 s',
            case when n = {BAD} then convert_from('\\x636166e9', 'SQL_ASCII') else 'naïve ' || n end
        from generate_series(1, {ROWS}) n
        """
    )
    return database


def numbers(*, without: int = BAD) -> list[int]:
    return [n for n in range(1, ROWS + 1) if n != without]


@pytest.mark.parametrize(
    ("stream", "write_mode"),
    [({}, "append"), ({}, "replace"), ({}, "upsert"), (INCREMENTAL, "append"), (INCREMENTAL, "upsert")],
)
@pytest.mark.parametrize("on_data_error", ["fail", "skip", "dlq"])
def test_a_row_that_is_not_utf8(
    tmp_path: Path,
    source: Database,
    destination_db: Database,
    on_data_error: str,
    write_mode: str,
    stream: dict[str, Any],
) -> None:
    notes = Notes(tmp_path, source, destination_db, on_data_error, write_mode, stream)
    if on_data_error == "fail":
        with pytest.raises(RapidbyteError, match=r"column note \(text\) holds bytes that are not UTF-8") as caught:
            run(notes.pipeline())
        assert (caught.value.kind, caught.value.info.sqlstate) == (Kind.DATA, "22021")
        assert notes.letters() == []
        return

    result = run(notes.pipeline())
    kept = 1 if on_data_error == "dlq" else 0
    assert (result.rows, result.rejected, result.dead_letters) == (ROWS - 1, 1, kept)
    assert notes.counts() == (ROWS - 1, 1, kept)
    assert notes.loaded() == numbers()
    assert [(letter["stage"], letter["error_category"], letter["column_name"]) for letter in notes.letters()] == [
        ("source", "invalid_text", "note")
    ] * kept
    if kept:
        [letter] = notes.letters()
        assert letter["record_json"] == (r'{"id":5000,"at":"2024-01-01 00:08:20","note":"\\x636166e9","bad":null}')
    if not stream:
        return
    # The next run reads neither it nor its neighbours again, and what is new.
    source.execute(
        f"insert into notes select id + {ROWS}, at, note from notes where id in ({BAD - 1}, {ROWS});"
        f" update notes set id = {2 * ROWS + 1}, at = '2025-01-01' where id = {2 * ROWS}"
    )
    again = run(notes.pipeline())
    assert (again.rows, again.rejected, again.dead_letters) == (1, 0, 0)
    assert notes.loaded() == [*numbers(), 2 * ROWS + 1]
    assert len(notes.letters()) == kept


def test_a_text_that_was_told_as_bytes_is_loaded_once_somebody_made_text_of_it(
    tmp_path: Path, source: Database, destination_db: Database
) -> None:
    notes = Notes(tmp_path, source, destination_db, "dlq", "append", INCREMENTAL)
    run(notes.pipeline())
    assert notes.replay().untold == 1
    assert notes.loaded() == numbers()
    [letter] = notes.letters()
    record = json.loads(letter["record_json"])
    record["note"] = bytes.fromhex(record["note"].removeprefix("\\x")).decode("latin-1")
    mended = {"id": letter["id"], "pipeline": "shop", "stream": "notes", "record": record}
    path = tmp_path / "mended.jsonl"
    path.write_text(json.dumps({**mended, "types": {**json.loads(letter["types_json"]), "note": "text"}}))
    result = notes.replay(EditedLetters(path, notes.pipeline()))
    assert (result.letters, result.rows, result.failed_again) == (1, 1, 0)
    assert notes.loaded() == list(range(1, ROWS + 1))
    assert destination_db.fetch_value(f"select note from raw.notes where id = {BAD}") == "café"
    # It was told, and is told no more: the stream goes on behind it.
    assert (run(notes.pipeline()).rows, len(notes.letters())) == (0, 1)


def test_each_checkpoint_has_the_letters_of_its_own_rows(
    tmp_path: Path, source: Database, destination_db: Database
) -> None:
    """Of 10,000 rows every hundredth is bad, and the next one of an interval that Arrow cannot hold."""
    source.execute(
        """
        update notes set note = convert_from('\\xff', 'SQL_ASCII') where id % 100 = 0;
        update notes set bad = '2562047788:00:54.775807' where id % 100 = 1;
        """
    )
    notes = Notes(tmp_path, source, destination_db, "dlq", "append", INCREMENTAL)
    result = run(notes.pipeline())
    assert (result.rows, result.rejected, result.dead_letters) == (ROWS - 200, 200, 200)
    pipeline = notes.pipeline()
    with open_state(pipeline, {}) as state:
        checkpoints = state.checkpoints(pipeline.name, "notes", limit=1000)
    assert len(checkpoints) > 10
    by_sequence: dict[int, int] = {}
    for letter in notes.letters():
        by_sequence[letter["checkpoint_sequence"]] = by_sequence.get(letter["checkpoint_sequence"], 0) + 1
    assert by_sequence == {c.sequence: c.dead_letters for c in checkpoints if c.dead_letters}
    assert all(c.rejected == c.dead_letters for c in checkpoints)
    categories = [letter["error_category"] for letter in notes.letters()]
    assert (categories.count("invalid_text"), categories.count("out_of_range")) == (100, 100)


CUTS = [
    ("source", Moment(copied=150_000)),
    ("source", Moment(copied=350_000)),
    ("destination", Moment(copied=200_000)),
    ("destination", Moment("^COMMIT", within=WATERMARK)),
    ("destination", Moment("^COMMIT", "answered", within=WATERMARK)),
]


@pytest.mark.parametrize(("side", "moment"), CUTS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("on_data_error", [pytest.param("skip", marks=pytest.mark.full), "dlq"])
@pytest.mark.parametrize(
    "stream", [pytest.param({}, marks=pytest.mark.full), INCREMENTAL], ids=["full_refresh", "incremental"]
)
def test_a_connection_that_is_cut_loses_no_row_and_tells_of_none_twice(
    tmp_path: Path,
    source: Database,
    destination_db: Database,
    stream: dict[str, Any],
    on_data_error: str,
    side: str,
    moment: Moment,
) -> None:
    source.execute("update notes set note = convert_from('\\xff', 'SQL_ASCII') where id % 100 = 0")
    with Proxy(source) as source_proxy, Proxy(destination_db) as destination_proxy:
        pipeline = make_pipeline(
            tmp_path,
            source_proxy.config(source),
            destination_proxy.config(destination_db, schema="raw"),
            [{"name": "notes", **stream}],
            write_mode="append",
            destination_section={"on_data_error": on_data_error},
            resources={"checkpoint_interval_rows": 700, "max_retries": 3},
        )
        (source_proxy if side == "source" else destination_proxy).arm(moment)
        result = run(pipeline)
    assert result.attempts == 2
    kept = 100 if on_data_error == "dlq" else 0
    assert (result.rows, result.rejected, result.dead_letters) == (ROWS - 100, 100, kept)
    notes = Notes(tmp_path, source, destination_db, on_data_error, "append", stream)
    assert notes.counts() == (ROWS - 100, 100, kept)
    assert notes.loaded() == [n for n in range(1, ROWS + 1) if n % 100]
    records = [json.loads(letter["record_json"])["id"] for letter in notes.letters()]
    assert sorted(records) == list(range(100, ROWS + 1, 100))[:kept]


def test_rows_that_either_side_refuses_are_letters_of_one_run(
    tmp_path: Path, source: Database, destination_db: Database
) -> None:
    destination_db.execute(
        "create schema raw; create table raw.notes (id int primary key, at timestamp, note text, bad interval,"
        " constraint notes_id_check check (id <> 7))"
    )
    notes = Notes(tmp_path, source, destination_db, "dlq", "append", {})
    result = run(notes.pipeline())
    assert (result.rows, result.rejected, result.dead_letters) == (ROWS - 2, 2, 2)
    told = sorted((letter["stage"], letter["error_category"]) for letter in notes.letters())
    assert told == [("destination", "check"), ("source", "invalid_text")]
    assert notes.loaded() == [n for n in numbers() if n != 7]


@pytest.mark.parametrize("stream", [{}, INCREMENTAL], ids=["full_refresh", "incremental"])
def test_a_row_that_is_too_large_for_the_memory_that_the_pipeline_allows(
    tmp_path: Path, source: Database, destination_db: Database, stream: dict[str, Any]
) -> None:
    source.execute(f"update notes set note = repeat('x', {100 * MEGABYTE}) where id = {BAD}")
    notes = Notes(tmp_path, source, destination_db, "dlq", "upsert", stream)
    result = run(notes.pipeline(max_memory="64mb"))
    assert (result.rows, result.rejected, result.dead_letters) == (ROWS - 1, 1, 1)
    [letter] = notes.letters()
    assert (letter["error_category"], letter["record_json"]) == ("oversized", "null")
    assert letter["error_message"].endswith("is too large for the connector's memory (id 5000)")
    assert max(result.peak_memory.values()) <= 64 * MEGABYTE
    assert notes.loaded() == numbers()

    failing = Notes(tmp_path, source, destination_db, "fail", "replace", {})
    with pytest.raises(RapidbyteError, match=r"a row of 10485\d{4} bytes is too large") as caught:
        run(failing.pipeline(max_memory="64mb"))
    assert caught.value.kind is Kind.RESOURCE
