"""Dead letters that are replayed into a real destination: what is in the table, and what waits, afterwards."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import ReplayResult, StreamResult, replay_dead_letters, run_stream
from rapidbyte_dagster.engine.start import Start
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, SchemaError, StateError, UsageError
from rapidbyte_dagster.state import (
    Checkpoint,
    DeadLetter,
    LetterCategory,
    LetterChoice,
    RunRecord,
    StateStore,
    open_state,
    utc_now,
)
from rapidbyte_dagster.state.sql import SqlStateStore
from tests.pipelines import make_pipeline
from tests.postgres_server import Database, MakeDatabase
from tests.quick import few

INCREMENTAL = {"name": "users", "sync_mode": "incremental", "cursor_field": "id"}
TYPES = {"id": "bigint", "email": "text", "score": "numeric(12,4)"}


@dataclass
class Shop:
    """A stream of users and its dead letters."""

    folder: Path
    source: Database
    destination: Database
    stream: Mapping[str, Any] = field(default_factory=lambda: INCREMENTAL)
    write_mode: str = "append"
    destination_section: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def pipeline(self) -> Pipeline:
        return make_pipeline(
            self.folder,
            self.source,
            self.destination,
            [self.stream],
            write_mode=self.write_mode,
            destination_section=self.destination_section,
            resources={"max_retries": 1, **self.resources},
            **self.sections,
        )

    def state(self) -> StateStore:
        return open_state(self.pipeline, {})

    def run(
        self, run_id: str | None = None, state: StateStore | None = None, *, start: Start = Start.RESUME
    ) -> StreamResult:
        pipeline = self.pipeline
        with state or self.state() as opened:
            return run_stream(
                pipeline,
                pipeline.streams[0],
                state=opened,
                run_id=run_id or str(uuid.uuid4()),
                environ={},
                start=start,
                on_log=self._log,
            )

    def replay(
        self, choice: LetterChoice | None = None, *, run_id: str | None = None, state: StateStore | None = None
    ) -> ReplayResult:
        pipeline = self.pipeline
        with state or self.state() as opened:
            return replay_dead_letters(
                pipeline,
                pipeline.streams[0],
                state=opened,
                run_id=run_id or str(uuid.uuid4()),
                choice=choice,
                environ={},
                on_log=self._log,
            )

    def set_aside(
        self, *records: Mapping[str, Any] | None, types: Mapping[str, str] = TYPES, stage: str = "destination"
    ) -> None:
        """Dead letters of the stream's last checkpoint."""
        letters = [
            DeadLetter(
                record_json=json.dumps(record),
                types_json=json.dumps({name: types[name] for name in record or types}),
                message="no",
                category=LetterCategory.INVALID_TEXT if stage == "source" else LetterCategory.CHECK,
                stage=stage,
                failed_at=utc_now(),
            )
            for record in records
        ]
        with self.state() as state:
            last = state.latest_checkpoint("shop", "users")
            assert last is not None
            state.add_dead_letters("shop", "users", letters, run_id=last.run_id, sequence=last.sequence)

    def waiting(self) -> list[dict[str, Any]]:
        with self.state() as state:
            pages = state.dead_letter_pages("shop", "users", LetterChoice(waiting=True))
            return [json.loads(row["record_json"]) for page in pages for row in page.to_pylist()]

    def rows(self, query: str = "SELECT id, email, score::text FROM raw.users ORDER BY id") -> list[tuple[Any, ...]]:
        return self.destination.fetch(query)

    def count(self) -> int:
        return int(self.destination.fetch_value("SELECT count(*) FROM raw.users"))

    def add(self, first: int, last: int) -> None:
        self.source.execute(f"INSERT INTO users SELECT i, 'user' || i, i FROM generate_series({first}, {last}) i")

    def _log(self, level: int, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def shop(tmp_path: Path, source_db: Database, destination_db: Database) -> Shop:
    source_db.execute("CREATE TABLE users (id bigint PRIMARY KEY, email text, score numeric(12,4))")
    shop = Shop(tmp_path, source_db, destination_db)
    shop.add(1, 3)
    return shop


BAD = {"id": 7, "email": "mended", "score": "1.5000"}


def test_letters_are_added_to_the_table_once(shop: Shop) -> None:
    shop.run()
    shop.set_aside(BAD, {"id": 8, "email": None, "score": "NaN"})
    result = shop.replay(run_id="replay")
    assert (result.letters, result.rows, result.failed_again, result.sequence, result.attempts) == (2, 2, 0, 2, 1)
    assert shop.rows()[3:] == [(7, "mended", "1.5000"), (8, None, "NaN")]
    assert shop.waiting() == []
    with shop.state() as state:
        marks = state.dead_letters("shop", "users").select(["replayed_by_run", "replayed_sequence"]).to_pylist()
        record = state.run("replay", "shop", "users")
    assert marks == [{"replayed_by_run": "replay", "replayed_sequence": 2}] * 2
    assert record is not None
    assert (record.kind, record.status, record.rows) == ("replay", "ok", 2)
    again = shop.replay()
    assert (again.letters, again.rows, again.settled, again.sequence) == (0, 0, 2, None)
    assert shop.replay(run_id="replay").letters == 0
    assert shop.count() == 5


def test_every_value_comes_back_as_it_was(shop: Shop) -> None:
    """The texts are the server's own; what they become is compared with what they came from."""
    shop.source.execute(r"""
        CREATE TYPE mood AS ENUM ('sad', 'ok');
        DROP TABLE users;
        CREATE TABLE users (
            id bigint PRIMARY KEY, flag boolean, small smallint, real real, double double precision, free numeric,
            fixed numeric(60,20), name varchar(9), padded char(5), bytes bytea, day date, moment timestamptz,
            local timestamp(3), noon time, zoned timetz, span interval, uuid uuid, json json, jsonb jsonb, mood mood,
            tags text[], matrix integer[], range int8range, address inet, bits bit(3)
        );
        INSERT INTO users VALUES
        (1, true, -7, '-0', 'NaN', 'Infinity', 123456789012345678901234567890.00000000000000000001, E'ü\n"x\\', 'ab',
         '\x00ff', 'infinity', '2024-02-29 23:59:59.999999+05', '0044-03-15 12:00:00.123 BC', '24:00:00',
         '12:00:00+02', '1 mon -2 days 00:00:01', gen_random_uuid(), '{"a":  1.0}', '{"b": [1, null]}', 'sad',
         '{"a,b",NULL,"\"q\""}', '[0:1][2:2]={{1},{2}}', '[1,5)', '10.0.0.1/8', B'101'),
        (2, false, NULL, 'Infinity', 0.1, 1e-30, NULL, '', '', '', '0044-03-15 BC', '-infinity', NULL, NULL, NULL, '0',
         NULL, 'null', 'null', 'ok', '{}', '{}', 'empty', NULL, NULL);
    """)
    shop.destination.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    types = dict(
        shop.source.fetch(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'users'::regclass AND attnum > 0 ORDER BY attnum"
        )
    )
    types["mood"] = "public.mood"
    shop.run()
    columns = ", ".join(f"{name}::text AS {name}" for name in types)
    texts = shop.destination.fetch(
        f"SELECT row_to_json(t)::text FROM (SELECT {columns} FROM raw.users ORDER BY raw.users.id) t"
    )
    before = shop.rows("SELECT t::text FROM raw.users t ORDER BY id")
    records = [json.loads(text) for (text,) in texts]
    for record in records:
        record["id"] = int(record["id"])
        record["flag"] = record["flag"] == "true"
    shop.destination.execute("DELETE FROM raw.users")
    shop.set_aside(*records, types=types)
    assert shop.replay().rows == 2
    assert shop.rows("SELECT t::text FROM raw.users t ORDER BY id") == before


def test_an_upsert_merges_by_the_sources_own_key_and_leaves_other_columns_alone(shop: Shop) -> None:
    shop.write_mode = "upsert"
    shop.run()
    shop.destination.execute("UPDATE raw.users SET score = 99 WHERE id = 2")
    shop.set_aside({"id": 2, "email": "older"}, {"id": 2, "email": "newer"}, {"id": 9, "email": "new"})
    result = shop.replay()
    assert (result.letters, result.rows) == (3, 3)
    assert shop.rows()[1:] == [(2, "newer", "99.0000"), (3, "user3", "3.0000"), (9, "new", None)]
    assert shop.run().rows == 0


def test_a_replay_never_replaces_a_table_and_leaves_letters_that_a_replace_has_read_anew(shop: Shop) -> None:
    shop.stream, shop.write_mode = {"name": "users"}, "replace"
    shop.run()
    shop.set_aside(BAD)
    shop.run()
    assert shop.replay().settled == 1
    assert shop.count() == 3
    shop.set_aside(BAD)
    result = shop.replay()
    assert (result.rows, result.settled) == (1, 1)
    assert shop.count() == 4
    assert shop.run().rows == 3
    assert shop.count() == 3


def test_letters_that_fail_under_fail_leave_everything_as_it_was(shop: Shop) -> None:
    shop.run()
    shop.destination.execute("ALTER TABLE raw.users ADD CONSTRAINT adults CHECK (score < 100)")
    shop.set_aside(BAD, {"id": 8, "email": "x", "score": "100"})
    with pytest.raises(DestinationError, match="adults") as caught:
        shop.replay(run_id="replay")
    assert caught.value.kind is Kind.DATA
    assert shop.count() == 3
    assert [record["id"] for record in shop.waiting()] == [7, 8]
    with shop.state() as state:
        record = state.run("replay", "shop", "users")
    assert record is not None
    assert (record.status, record.rows) == ("failed", 0)
    shop.destination.execute("ALTER TABLE raw.users DROP CONSTRAINT adults")
    assert shop.replay().rows == 2


@pytest.mark.parametrize("write_mode", ["append", "upsert"])
def test_a_replay_never_alters_the_table(shop: Shop, write_mode: str) -> None:
    shop.write_mode = write_mode
    shop.destination_section["schema_evolution"] = {"type_change": "coerce"}
    shop.run()
    shop.destination.execute("ALTER TABLE raw.users ALTER email SET NOT NULL, ALTER score TYPE integer")
    described = (
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = 'raw.users'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1"
    )
    shape = shop.rows(described)
    more = {**TYPES, "id": "bigint", "extra": "text", "score": "integer"}
    for record, told in (
        ({"id": 7, "email": None}, "null value in column"),
        ({"id": 7, "score": 1}, "email"),
        ({"id": 7, "email": "x", "extra": "new"}, "column extra"),
    ):
        shop.set_aside(record, types=more)
        with pytest.raises((DestinationError, SchemaError)) as caught:
            shop.replay()
        assert told in str(caught.value)
        assert shop.rows(described) == shape
        with shop.state() as state:
            state.purge_dead_letters("shop", "users", LetterChoice())
    shop.set_aside({"id": 7, "email": "x", "score": "12.0000"})
    with pytest.raises(RapidbyteError, match="score"):
        shop.replay()
    assert shop.rows(described) == shape
    assert shop.count() == 3


def test_bytes_that_are_no_text_are_left_to_be_repaired(shop: Shop) -> None:
    shop.run()
    shop.set_aside({"id": 7, "email": "\\x80ff"}, types={**TYPES, "email": "bytea"}, stage="source")
    assert shop.replay().untold == 1
    shop.set_aside({"id": 8, "email": "\\x80ff"}, types={**TYPES, "email": "bytea"})
    shop.destination_section["schema_evolution"] = {"type_change": "coerce"}
    assert shop.replay().untold == 2
    shop.destination.execute("ALTER TABLE raw.users RENAME email TO old; ALTER TABLE raw.users ADD extra text")
    shop.set_aside({"id": 9, "extra": "\\x80ff"}, types={**TYPES, "extra": "bytea"})
    with pytest.raises(SchemaError, match="column extra of a dead letter holds bytes") as caught:
        shop.replay()
    assert "export" in str(caught.value.hint)
    assert (shop.count(), len(shop.waiting())) == (3, 3)


@pytest.mark.parametrize("write_mode", ["append", "upsert"])
def test_texts_that_are_told_as_bytes_stay_and_columns_of_bytes_are_replayed(shop: Shop, write_mode: str) -> None:
    """As the destination tells them: of a row that may have failed for another reason."""
    shop.write_mode = write_mode
    shop.source.execute(
        "ALTER TABLE users ADD photo bytea, ADD photos bytea[], ADD tags text[]; UPDATE users SET photo = '\\x00ff'"
    )
    types = {"id": "bigint", "email": "text", "photo": "bytea", "photos": "bytea[]", "tags": "text[]"}
    shop.run()
    good = {"id": 7, "email": "seven", "photo": "\\x80ff", "photos": '{"\\\\x80ff"}', "tags": "{a}"}
    shop.set_aside(good, types=types)
    shop.set_aside({**good, "id": 8, "email": "\\x80ff"}, types={**types, "email": "bytea"})
    shop.set_aside({**good, "id": 9, "tags": '{"\\\\x80ff"}'}, types={**types, "tags": "bytea[]"})
    shop.set_aside({**good, "id": 10}, types=types)
    result = shop.replay()
    assert (result.letters, result.rows, result.untold) == (2, 2, 2)
    told = "SELECT id, email, photo::text, photos::text, tags::text FROM raw.users WHERE id > 3 ORDER BY id"
    assert shop.rows(told) == [tuple(good.values()), tuple({**good, "id": 10}.values())]
    assert [record["id"] for record in shop.waiting()] == [8, 9]
    again = shop.replay()
    assert (again.letters, again.untold, again.sequence) == (0, 2, None)


def test_letters_of_different_columns_are_replayed_together_in_their_order(shop: Shop) -> None:
    shop.run()
    shop.set_aside(BAD, {"id": 8, "email": "only that"}, {"id": 9}, {"id": 10, "email": "x", "score": 2})
    assert shop.replay().rows == 4
    assert shop.rows()[3:] == [
        (7, "mended", "1.5000"),
        (8, "only that", None),
        (9, None, None),
        (10, "x", "2.0000"),
    ]


def test_letters_without_a_row_stay(shop: Shop) -> None:
    shop.run()
    shop.set_aside(None, BAD)
    result = shop.replay()
    assert (result.letters, result.untold) == (1, 1)
    assert shop.waiting() == [None]
    again = shop.replay()
    assert (again.letters, again.untold, again.sequence) == (0, 1, None)


def test_chosen_letters_alone_are_replayed(shop: Shop) -> None:
    shop.run()
    shop.set_aside(BAD, {**BAD, "id": 8}, {**BAD, "id": 9})
    with shop.state() as state:
        first, _, third = state.dead_letters("shop", "users")["id"].to_pylist()
    assert shop.replay(LetterChoice(ids=(first, third))).letters == 2
    assert [record["id"] for record in shop.waiting()] == [8]
    assert shop.replay(LetterChoice(categories=(LetterCategory.CAST,))).letters == 0
    assert shop.replay(LetterChoice(run_id="nobody's")).letters == 0
    with pytest.raises(UsageError, match="no dead letter 12345 of this stream"):
        shop.replay(LetterChoice(ids=(first, 12345)))


def test_many_letters_take_several_batches(shop: Shop) -> None:
    shop.run()
    shop.set_aside(*({"id": i, "email": "x" * 100_000} for i in range(100, 400)))
    assert shop.replay().rows == 300
    assert shop.count() == 303


def test_a_table_that_is_gone_is_not_made_by_a_replay(shop: Shop) -> None:
    shop.run()
    shop.set_aside(BAD)
    shop.destination.execute("DROP TABLE raw.users")
    with pytest.raises(SchemaError, match=r"raw\.users is gone"):
        shop.replay()
    assert len(shop.waiting()) == 1


def test_a_destination_that_lost_its_watermarks_is_not_replayed_into(shop: Shop) -> None:
    """The next run would have to take the table for one that it may add everything to."""
    shop.run()
    shop.set_aside(BAD)
    shop.destination.execute("DROP TABLE raw._rapidbyte_watermarks")
    with pytest.raises(StateError, match="knows of no commit of this stream"):
        shop.replay()
    assert (shop.count(), len(shop.waiting())) == (3, 1)
    with pytest.raises(SchemaError, match="its watermark is gone"):
        shop.run()


# Rows that the destination itself has set aside


@pytest.mark.parametrize("write_mode", ["append", "replace", "upsert"])
def test_rows_that_a_run_set_aside_come_home_once_their_cause_is_mended(shop: Shop, write_mode: str) -> None:
    shop.stream, shop.write_mode = {"name": "users"}, write_mode
    shop.run()
    shop.destination_section["on_data_error"] = "dlq"
    shop.destination.execute(
        "TRUNCATE raw.users; ALTER TABLE raw.users ADD CONSTRAINT adults CHECK (score >= 18);"
        " ALTER TABLE raw.users ADD CONSTRAINT named CHECK (email <> 'user7')"
    )
    shop.add(4, 30)
    first = shop.run()
    assert (first.rows, first.dead_letters) == (13, 17)
    again = shop.replay(LetterChoice(categories=(LetterCategory.CHECK,)))
    assert (again.letters, again.rows, again.failed_again) == (17, 0, 17)
    assert len(shop.waiting()) == 17
    shop.destination.execute("ALTER TABLE raw.users DROP CONSTRAINT adults")
    result = shop.replay()
    assert (result.letters, result.rows, result.failed_again) == (17, 16, 1)
    assert shop.waiting() == [{"id": 7, "email": "user7", "score": "7.0000"}]
    shop.destination.execute("ALTER TABLE raw.users DROP CONSTRAINT named")
    assert shop.replay().rows == 1
    assert shop.rows() == shop.source.fetch("SELECT id, email, score::text FROM users ORDER BY id")
    assert shop.replay().letters == 0


@pytest.mark.parametrize("write_mode", ["append", "upsert"])
def test_letters_of_other_columns_and_types_fail_one_by_one(shop: Shop, write_mode: str) -> None:
    shop.write_mode = write_mode
    shop.run()
    shop.destination_section["on_data_error"] = "dlq"
    shop.destination.execute("ALTER TABLE raw.users ALTER email SET NOT NULL, ALTER email TYPE varchar(6)")
    shop.set_aside(
        {"id": 7, "email": "seven"},
        {"id": 8, "email": None},
        {"id": 9, "email": "much too long"},
        {"id": 10, "email": "ten", "score": "no number"},
        {"id": 11, "email": "eleven", "score": "1e9"},
        {"id": "12", "email": "twelve", "score": "12"},
        types={**TYPES, "email": "character varying(6)"},
    )
    result = shop.replay()
    assert (result.letters, result.rows, result.failed_again) == (6, 2, 4)
    assert [row[0] for row in shop.rows()] == [1, 2, 3, 7, 12]
    with shop.state() as state:
        pages = state.dead_letter_pages("shop", "users", LetterChoice(waiting=True))
        found = {json.loads(row["record_json"])["id"]: row for page in pages for row in page.to_pylist()}
    categories = {number: row["error_category"] for number, row in found.items()}
    assert {int(number): category for number, category in categories.items()} == {
        8: "not_null",
        9: "too_long",
        10: "invalid_text",
        11: "out_of_range",
    }
    shop.destination.execute(
        "ALTER TABLE raw.users ALTER email DROP NOT NULL, ALTER email TYPE text, ALTER score TYPE numeric"
    )
    assert shop.replay().rows == 3
    assert [record["score"] for record in shop.waiting()] == ["no number"]


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_a_table_of_another_name_keeps_the_letters(shop: Shop, make_database: MakeDatabase, backend: str) -> None:
    if backend == "postgres":
        shop.sections["state"] = {"backend": "postgres", "connection": make_database("state").dsn}
    shop.destination_section.update(on_data_error="dlq", dlq_table="dead")
    shop.run()
    shop.destination.execute("ALTER TABLE raw.users ADD CONSTRAINT few CHECK (id < 6)")
    shop.add(4, 9)
    assert shop.run().dead_letters == 4
    shop.destination.execute("ALTER TABLE raw.users DROP CONSTRAINT few")
    with shop.state() as state:
        assert isinstance(state, SqlStateStore)
        assert state._read("SELECT count(*) FROM dead", ()) == [(4,)]
        assert state._read("SELECT count(*) FROM _rapidbyte_dlq", ()) == [(0,)]
    assert shop.replay().rows == 4
    assert shop.count() == 9
    shop.destination_section["dlq_table"] = "_rapidbyte_runs"
    with pytest.raises(StateError, match=r"table _rapidbyte_runs of .* is not one of dead letters"):
        shop.run()


def test_a_run_whose_letters_find_no_space_commits_nothing_of_them(shop: Shop) -> None:
    shop.destination_section["on_data_error"] = "dlq"
    shop.run()
    shop.destination.execute("ALTER TABLE raw.users ADD CONSTRAINT short CHECK (length(email) < 100)")
    shop.source.execute("INSERT INTO users SELECT i, repeat(i::text, 10000), i FROM generate_series(10, 40) i")
    shop.add(50, 60)
    state = shop.state()
    assert isinstance(state, SqlStateStore)
    [(pages,)] = state._read("PRAGMA page_count", ())
    state._read(f"PRAGMA max_page_count = {pages + 4}", ())
    with pytest.raises(StateError, match="database or disk is full"):
        shop.run(state=state)
    assert (shop.count(), shop.waiting()) == (3, [])
    result = shop.run()
    assert (result.rows, result.dead_letters, len(shop.waiting())) == (11, 31, 31)


# Failures between its steps


class Failing:
    """A state store that fails at one method, before or after it did its work."""

    def __init__(self, state: StateStore, method: str, *, after: bool) -> None:
        self._state, self._method, self._after = state, method, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._state, name)
        if name != self._method:
            return found

        def fail(*arguments: Any, **named: Any) -> Any:
            if self._after:
                found(*arguments, **named)
            raise StateError("the state store went away")

        return fail

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        self._state.close()


STEPS = [
    (method, after, committed)
    for method, committed in (
        ("reconcile", False),
        ("mark_dead_letters", False),
        ("prepare", False),
        ("finalise", True),
        ("record_run", False),
    )
    for after in (False, True)
]


@pytest.mark.parametrize(("method", "after", "committed"), STEPS)
@pytest.mark.parametrize("next_step", few(["replay", "run"]))
def test_a_replay_that_fails_between_two_steps_is_settled_by_the_watermark(
    shop: Shop, method: str, after: bool, committed: bool, next_step: str
) -> None:
    shop.run()
    shop.set_aside(BAD, {**BAD, "id": 8})
    failing: Any = Failing(shop.state(), method, after=after)
    with pytest.raises(StateError, match="went away") as caught:
        shop.replay(run_id="failed", state=failing)
    assert ("the rows are in the table" in str(caught.value.info.detail)) is committed
    assert shop.count() == (5 if committed else 3)
    if next_step == "run":
        shop.add(10, 11)
        assert shop.run().rows == 2
        assert len(shop.waiting()) == (0 if committed else 2)
    assert shop.replay().rows == (0 if committed else 2)
    assert shop.waiting() == []
    assert shop.count() == (7 if next_step == "run" else 5)
    assert shop.run().rows == 0


def test_a_replay_that_is_repeated_under_its_own_id_is_not_done_again(shop: Shop) -> None:
    shop.run()
    shop.set_aside(BAD)
    failing: Any = Failing(shop.state(), "finalise", after=False)
    with pytest.raises(StateError):
        shop.replay(run_id="step", state=failing)
    shop.set_aside({**BAD, "id": 8})
    assert shop.replay(run_id="step").rows == 1
    assert (shop.count(), len(shop.waiting())) == (4, 1)


def test_a_destination_that_was_restored_lets_its_letters_wait_again(shop: Shop) -> None:
    shop.run()
    shop.set_aside(BAD)
    shop.destination.execute(
        "CREATE TABLE kept AS TABLE raw.users; CREATE TABLE mark AS TABLE raw._rapidbyte_watermarks"
    )
    shop.replay()
    shop.destination.execute(
        "TRUNCATE raw.users, raw._rapidbyte_watermarks; INSERT INTO raw.users TABLE kept;"
        " INSERT INTO raw._rapidbyte_watermarks TABLE mark"
    )
    assert shop.run().rows == 0
    assert shop.waiting() == [BAD]
    assert shop.replay().rows == 1
    assert shop.count() == 4


def test_a_state_store_without_space_commits_nothing(shop: Shop) -> None:
    shop.run()
    shop.set_aside(*({**BAD, "id": i} for i in range(100, 2000)))
    state = shop.state()
    assert isinstance(state, SqlStateStore)
    [(pages,)] = state._read("PRAGMA page_count", ())
    state._read(f"PRAGMA max_page_count = {pages}", ())
    with pytest.raises(StateError, match="database or disk is full"):
        shop.replay(state=state)
    assert (shop.count(), len(shop.waiting())) == (3, 1900)
    assert shop.replay().rows == 1900


# Runs that read the rows of dead letters again


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_a_full_refresh_that_merges_has_read_the_rows_of_earlier_letters_anew(
    shop: Shop, make_database: MakeDatabase, backend: str
) -> None:
    """Every run of the stream reads every row: its letters stand for those of the runs before."""
    if backend == "postgres":
        shop.sections["state"] = {"backend": "postgres", "connection": make_database("state").dsn}
    shop.stream, shop.write_mode = {"name": "users", "sync_mode": "full_refresh"}, "upsert"
    shop.destination_section = {"on_data_error": "dlq"}
    shop.run()
    shop.destination.execute("ALTER TABLE raw.users ADD CHECK (score < 100)")
    shop.source.execute("INSERT INTO users VALUES (7, 'bad', 1000)")
    shop.run()
    shop.run()
    assert len(shop.waiting()) == 1
    assert shop.replay().failed_again == 1
    shop.run()
    assert len(shop.waiting()) == 1
    shop.source.execute("UPDATE users SET email = 'mended', score = 1 WHERE id = 7")
    shop.run()
    assert shop.waiting() == []
    shop.destination.execute("ALTER TABLE raw.users DROP CONSTRAINT users_score_check")
    assert shop.replay().letters == 0
    assert shop.rows()[3:] == [(7, "mended", "1.0000")]


@pytest.fixture
def merging(shop: Shop) -> Shop:
    """Forty rows, a checkpoint behind each ten; the table refuses three."""
    shop.stream, shop.write_mode = INCREMENTAL, "upsert"
    shop.destination_section = {"on_data_error": "dlq"}
    shop.resources = {"max_batch_bytes": 65536, "checkpoint_interval_rows": 10, "max_retries": 0}
    shop.source.execute(
        "TRUNCATE users; INSERT INTO users SELECT i, rpad('user' || i, 6000, '.'), i FROM generate_series(1, 40) i"
    )
    shop.run()
    shop.destination.execute(
        "DELETE FROM raw.users; ALTER TABLE raw.users ADD CONSTRAINT bad CHECK (id NOT IN (1, 15, 40))"
    )
    return shop


def waiting_ids(shop: Shop) -> list[int]:
    return [record["id"] for record in shop.waiting()]


def checkpoints_of(shop: Shop, run_id: str) -> int:
    with shop.state() as state:
        return state.committed("shop", "users", run_id).checkpoints


def test_a_run_that_starts_over_and_commits_several_times_keeps_its_own_letters(merging: Shop) -> None:
    for run_id in ("first", "second", "third"):
        assert merging.run(run_id, start=Start.RESET).dead_letters == 3
        assert waiting_ids(merging) == [1, 15, 40]
        assert checkpoints_of(merging, run_id) > 2
    merging.destination.execute("ALTER TABLE raw.users DROP CONSTRAINT bad")
    assert merging.replay().rows == 3
    assert merging.count() == 40


def test_an_incremental_run_supersedes_nothing(merging: Shop) -> None:
    merging.run(start=Start.RESET)
    merging.add(41, 42)
    assert merging.run().rows == 2
    merging.destination.execute("ALTER TABLE raw.users ADD CHECK (id < 43)")
    merging.add(43, 43)
    assert merging.run().dead_letters == 1
    assert waiting_ids(merging) == [1, 15, 40, 43]


class Interrupted:
    """A state store that goes away when the run is about to commit for the third time."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._left = 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def prepare(self, checkpoint: Checkpoint) -> None:
        self._left -= 1
        if self._left < 0:
            raise StateError("the state store went away")
        self._state.prepare(checkpoint)

    def __enter__(self) -> Interrupted:
        return self

    def __exit__(self, *_: object) -> None:
        self._state.close()


def test_a_run_that_starts_over_supersedes_nothing_until_it_is_at_its_end(merging: Shop) -> None:
    merging.run("first", start=Start.RESET)
    state: Any = Interrupted(merging.state())
    with pytest.raises(StateError, match="went away"):
        merging.run("second", state, start=Start.RESET)
    assert checkpoints_of(merging, "second") == 2
    assert waiting_ids(merging) == [1, 15, 40, 1, 15]
    again = merging.run("second", start=Start.RESET)
    assert again.rows + again.rejected < 30, "it goes on from its own commit"
    assert waiting_ids(merging) == [1, 15, 40]
    assert merging.run().dead_letters == 0
    assert waiting_ids(merging) == [1, 15, 40]


def test_a_run_that_starts_over_and_is_given_up_supersedes_nothing(merging: Shop) -> None:
    """The next one goes on from its cursor, as a run of its own."""
    merging.run("first", start=Start.RESET)
    state: Any = Interrupted(merging.state())
    with pytest.raises(StateError, match="went away"):
        merging.run("second", state, start=Start.RESET)
    merging.run("third")
    assert waiting_ids(merging) == [1, 15, 40, 1, 15, 40]


def test_a_full_refresh_that_is_interrupted_supersedes_nothing_until_it_is_done_again(merging: Shop) -> None:
    whole = {"name": "users"}
    merging.stream = whole
    merging.run("first")
    merging.stream = {**whole, "filter": "1 / (id - 30) <> 2"}
    with pytest.raises(RapidbyteError, match="division by zero"):
        merging.run("second")
    merging.stream = whole
    failing: Any = Failing(merging.state(), "prepare", after=True)
    with pytest.raises(StateError, match="went away"):
        merging.run("second", failing)
    assert waiting_ids(merging) == [1, 15, 40]
    merging.destination.execute("ALTER TABLE raw.users DROP CONSTRAINT bad")
    merging.source.execute("DELETE FROM users WHERE id = 1")
    assert merging.run("second").rows == 39
    assert waiting_ids(merging) == []


def test_an_append_never_supersedes_letters(shop: Shop) -> None:
    shop.run()
    shop.set_aside(BAD)
    shop.run(start=Start.RESET)
    shop.stream = {"name": "users"}
    shop.run()
    assert shop.waiting() == [BAD]


# The runs around it


def test_an_incremental_stream_goes_on_where_it_was(shop: Shop) -> None:
    shop.run()
    shop.set_aside({**BAD, "id": 2000})
    shop.replay()
    shop.add(4, 6)
    assert shop.run().rows == 3
    assert [row[0] for row in shop.rows()] == [1, 2, 3, 4, 5, 6, 2000]


@pytest.mark.parametrize("write_mode", ["append", "upsert", "replace"])
def test_a_full_refresh_does_what_it_does_without_a_replay(shop: Shop, write_mode: str) -> None:
    shop.stream, shop.write_mode = {"name": "users"}, write_mode
    shop.run()
    shop.set_aside(BAD)
    shop.replay()
    shop.replay()
    assert shop.run().rows == 3
    assert shop.count() == {"append": 7, "upsert": 4, "replace": 3}[write_mode]


def interrupted(shop: Shop, run_id: str) -> None:
    """A full refresh that appends, and dies behind its commit."""
    shop.run(run_id)
    with shop.state() as state:
        record = state.run(run_id, "shop", "users")
        assert record is not None
        state.record_run(RunRecord(**{**record.model_dump(), "status": "running", "ended_at": None}))


@pytest.mark.parametrize("replays", [0, 1, 2])
def test_a_replay_does_not_hide_an_interrupted_run(shop: Shop, replays: int) -> None:
    shop.stream = {"name": "users"}
    interrupted(shop, "first")
    for number in range(replays):
        shop.set_aside({**BAD, "id": 7 + number})
        assert shop.replay().rows == 1
    shop.lines.clear()
    assert shop.run("second").rows == 3
    assert any("run first was interrupted after it had committed its 3 rows" in line for line in shop.lines)
    assert shop.count() == 3 + replays
    assert shop.run("third").rows == 3
    assert shop.count() == 6 + replays


def test_a_step_that_is_repeated_under_its_own_id_behind_a_replay_adds_its_rows_once(shop: Shop) -> None:
    shop.stream = {"name": "users"}
    shop.run("step")
    shop.set_aside(BAD)
    shop.replay()
    assert shop.run("step").rows == 3
    assert shop.count() == 4


@pytest.mark.parametrize("method", ["prepare", "finalise"])
def test_an_interrupted_replay_is_no_run_to_be_completed(shop: Shop, method: str) -> None:
    shop.stream = {"name": "users"}
    shop.run()
    shop.set_aside(BAD)
    failing: Any = Failing(shop.state(), method, after=False)
    with pytest.raises(StateError):
        shop.replay(state=failing)
    before = shop.count()
    assert shop.run().rows == 3
    assert shop.count() == before + 3
