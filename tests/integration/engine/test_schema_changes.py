"""What is known of a table's changes after runs that end well, fail, are killed, or never hear of their commit."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.errors import DestinationError, Kind, SchemaError
from rapidbyte_dagster.state import SchemaChange, SchemaEvent, SchemaState, open_state
from tests.integration.engine.test_lost_answers import lossy
from tests.integration.engine.written_source import FINAL, SCHEMA, WrittenSource, a_batch, a_schema
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database
from tests.recovery.worker import Job, StateCrash, Worker

ROWS_PER_CHECKPOINT = 100
NOTES = {"name": "notes", "sync_mode": "incremental", "cursor_field": "id"}


@pytest.fixture
def notes_db(source_db: Database) -> Database:
    source_db.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, body text);"
        " INSERT INTO notes SELECT n, 'x' FROM generate_series(1, 100) n"
    )
    return source_db


def incremental(
    folder: Path, source: Database, destination: Database | dict[str, Any], policy: dict[str, str] | None = None
) -> Pipeline:
    section = {"schema_evolution": policy} if policy is not None else {}
    resources = {"checkpoint_interval_rows": ROWS_PER_CHECKPOINT}
    return make_pipeline(folder, source, destination, [NOTES], resources=resources, destination_section=section)


def grow(source: Database, column: str = "colour", to: int = 1000) -> None:
    """A new column, and new rows that have a value in it."""
    source.execute(
        f"ALTER TABLE notes ADD COLUMN {column} text;"
        f" INSERT INTO notes (id, body, {column}) SELECT n, 'y', 'red' FROM generate_series(101, {to}) n"
    )


def schema_state(pipeline: Pipeline) -> SchemaState:
    with open_state(pipeline, {}) as state:
        return state.schema_state("shop", "notes")


def told(changes: Sequence[SchemaChange]) -> list[tuple[str, str | None, str]]:
    return [(str(change.kind), change.column, str(change.action)) for change in changes]


def history(pipeline: Pipeline) -> list[tuple[int, list[tuple[str, str | None, str]]]]:
    return [(event.sequence, told(event.changes)) for event in schema_state(pipeline).history]


COLOUR_ADDED = [("new_column", "colour", "added")]


def test_an_added_column_is_in_the_result_the_history_and_the_versions(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    pipeline = incremental(tmp_path, notes_db, destination_db)
    first = run(pipeline)
    assert (first.schema_changes, schema_state(pipeline).history) == ((), ())
    grow(notes_db)
    heard: list[tuple[SchemaChange, ...]] = []
    result = run(pipeline, on_drift=heard.append)
    assert told(result.schema_changes) == COLOUR_ADDED
    assert heard == [result.schema_changes]
    state = schema_state(pipeline)
    assert state.history == (
        SchemaEvent(
            changes=result.schema_changes,
            run_id=result.checkpoint.run_id,
            sequence=first.checkpoint.sequence + 1,
            at=state.history[0].at,
        ),
    )
    assert [[(c.name, c.stream_nullable) for c in version.columns] for version in state.versions] == [
        [("id", False), ("body", True)],
        [("id", False), ("body", True), ("colour", True)],
    ]
    assert run(pipeline).schema_changes == ()
    assert len(schema_state(pipeline).history) == 1


def test_a_run_that_fails_behind_its_first_checkpoint_leaves_the_history_of_its_ddl(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    pipeline = incremental(tmp_path, notes_db, destination_db)
    done = run(pipeline).checkpoint.sequence
    grow(notes_db)
    destination_db.execute("ALTER TABLE raw.notes ADD CHECK (id <= 500)")
    with pytest.raises(DestinationError, match="check constraint") as caught:
        run(pipeline)
    assert caught.value.kind is Kind.DATA
    kept = destination_db.fetch_value("SELECT max(id) FROM raw.notes WHERE colour = 'red'")
    assert kept == 500, "the test needs a checkpoint before the failure"
    assert history(pipeline) == [(done + 1, COLOUR_ADDED)]
    destination_db.execute("ALTER TABLE raw.notes DROP CONSTRAINT notes_id_check")
    assert run(pipeline).schema_changes == (), "the run before did it"
    assert history(pipeline) == [(done + 1, COLOUR_ADDED)]
    assert destination_db.fetch("SELECT count(*), count(colour) FROM raw.notes") == [(1000, 900)]


def test_a_run_that_fails_before_its_first_checkpoint_leaves_neither_ddl_nor_history(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    pipeline = incremental(tmp_path, notes_db, destination_db)
    run(pipeline)
    grow(notes_db)
    destination_db.execute("ALTER TABLE raw.notes ADD CHECK (id <> 101)")
    heard: list[tuple[SchemaChange, ...]] = []
    with pytest.raises(DestinationError, match="check constraint"):
        run(pipeline, on_drift=heard.append)
    assert history(pipeline) == []
    assert destination_db.fetch("SELECT to_jsonb(n) FROM raw.notes n WHERE id = 1") == [({"id": 1, "body": "x"},)]


@pytest.mark.parametrize(
    ("crash", "committed"),
    [
        (StateCrash("prepare", "before"), False),
        (StateCrash("prepare", "after"), False),
        (StateCrash("finalise", "before"), True),
        (StateCrash("finalise", "after"), True),
        (StateCrash("prepare", "after", nth=3), True),
        (StateCrash("finalise", "before", nth=3), True),
    ],
    ids=lambda value: f"{value.when} {value.method} {value.nth}" if isinstance(value, StateCrash) else "",
)
def test_a_killed_run_leaves_each_change_in_the_history_once(
    tmp_path: Path, notes_db: Database, destination_db: Database, crash: StateCrash, committed: bool
) -> None:
    pipeline = incremental(tmp_path, notes_db, destination_db)
    done = run(pipeline).checkpoint.sequence
    grow(notes_db)
    killed = str(uuid.uuid4())
    with Worker(Job(pipeline.path, "notes", killed, crash=crash)) as worker:
        worker.wait()
        assert worker.was_killed
    has_column = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'notes' AND column_name = 'colour'"
    assert destination_db.fetch_value(has_column) == int(committed)
    result = run(pipeline)
    assert told(result.schema_changes) == ([] if committed else COLOUR_ADDED)
    (event,) = schema_state(pipeline).history
    assert told(event.changes) == COLOUR_ADDED
    assert event.run_id == (killed if committed else result.checkpoint.run_id)
    assert event.sequence > done
    assert destination_db.fetch("SELECT count(*), count(colour) FROM raw.notes") == [(1000, 900)]


def test_a_commit_whose_answer_got_lost_tells_its_changes_once(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    """The first checkpoint of a run: the second attempt finds the column there already."""
    done = run(incremental(tmp_path, notes_db, destination_db)).checkpoint.sequence
    grow(notes_db)
    with lossy(destination_db) as (proxy, config):
        pipeline = incremental(tmp_path, notes_db, config)
        result = run(pipeline)
    assert (proxy.lost, result.attempts) == (1, 2)
    assert told(result.schema_changes) == COLOUR_ADDED
    assert history(pipeline) == [(done + 1, COLOUR_ADDED)]
    assert destination_db.fetch("SELECT count(*), count(colour) FROM raw.notes") == [(1000, 900)]


def test_a_last_commit_whose_answer_got_lost_tells_its_changes_once(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    run(make_pipeline(tmp_path, notes_db, destination_db, ["notes"], write_mode="replace"))
    grow(notes_db)
    with lossy(destination_db) as (proxy, config):
        pipeline = make_pipeline(tmp_path, notes_db, config, ["notes"], write_mode="replace")
        result = run(pipeline)
    assert (proxy.lost, result.attempts) == (1, 2)
    assert told(result.schema_changes) == COLOUR_ADDED
    assert history(pipeline) == [(2, COLOUR_ADDED)]
    last = schema_state(pipeline).versions[-1].columns[-1]
    assert (last.name, last.stream_nullable) == ("colour", True)


def test_an_ignored_column_is_told_by_each_run_and_written_down_once(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    ignore = {"new_column": "ignore"}
    pipeline = incremental(tmp_path, notes_db, destination_db, ignore)
    done = run(pipeline).checkpoint.sequence
    grow(notes_db, to=400)
    for to in (400, 700, 1000):
        notes_db.execute(
            f"INSERT INTO notes SELECT n, 'z', 'blue' FROM generate_series((SELECT max(id) + 1 FROM notes), {to}) n"
        )
        lines: list[str] = []
        result = run(pipeline, on_log=lambda _, line: lines.append(line))  # noqa: B023  called in this turn alone
        assert told(result.schema_changes) == [("new_column", "colour", "ignored")]
        assert [line for line in lines if "colour" in line] == [f"destination: {result.schema_changes[0].message}"]
    assert history(pipeline) == [(done + 1, [("new_column", "colour", "ignored")])]
    notes_db.execute("ALTER TABLE notes ADD COLUMN size text")
    run(pipeline)
    assert [len(changes) for _, changes in history(pipeline)] == [1, 2], "one more is ignored: that is news"


def test_a_run_that_the_policy_refuses_is_heard_of_and_changes_nothing(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    pipeline = incremental(tmp_path, notes_db, destination_db, {"new_column": "fail"})
    run(pipeline)
    grow(notes_db)
    heard: list[tuple[SchemaChange, ...]] = []
    with pytest.raises(SchemaError, match="colour"):
        run(pipeline, on_drift=heard.append)
    assert [told(report) for report in heard] == [[("new_column", "colour", "refused")]]
    assert history(pipeline) == []
    assert destination_db.fetch_value("SELECT count(*) FROM raw.notes") == 100


def test_what_the_stream_brought_is_known_of_a_table_that_is_called_like_a_secret(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    """Its name is written down as it may be shown; a column that the source dropped is cleared where rows change."""
    config = {**destination_db.config, "user": "${DB_USER}", "schema": "raw"}
    secret = str(destination_db.config["user"])
    stream = {"name": "notes", "table": secret}
    pipeline = make_pipeline(tmp_path, notes_db, config, [stream], write_mode="upsert")
    environ = {"DB_USER": secret}
    assert run(pipeline, environ=environ).table == "raw.${DB_USER}"
    destination_db.execute(f"ALTER TABLE raw.{secret} ADD COLUMN theirs text; UPDATE raw.{secret} SET theirs = 'kept'")
    notes_db.execute("ALTER TABLE notes DROP COLUMN body; ALTER TABLE notes ADD COLUMN colour text DEFAULT 'red'")
    result = run(pipeline, environ=environ)
    assert {change.column for change in result.schema_changes} == {"body", "theirs", "colour"}
    content = f"SELECT DISTINCT body, theirs, colour FROM raw.{secret}"
    assert destination_db.fetch(content) == [(None, "kept", "red")]
    assert secret not in schema_state(pipeline).model_dump_json()


def test_a_stream_that_changes_midway_is_known_as_it_was_last(tmp_path: Path, destination_db: Database) -> None:
    colour = pa.field("colour", pa.string(), metadata={"rapidbyte:pg_type": "text", "rapidbyte:pg_kind": "base"})
    wider = pa.schema([*SCHEMA, colour])
    batch = pa.RecordBatch.from_pydict({"id": [2], "colour": ["red"]}, schema=wider)
    later = [bytes(message.serialize().to_pybytes()) for message in (wider, batch)]

    def notes(*messages: bytes) -> Pipeline:
        source = WrittenSource([a_schema(), a_batch(1), *messages], [FINAL])
        return make_pipeline(tmp_path, {}, destination_db, ["notes"], source_section={"use": source.write(tmp_path)})

    run(notes())
    result = run(notes(*later))
    assert (result.rows, told(result.schema_changes)) == (2, COLOUR_ADDED)
    assert history(notes()) == [(2, COLOUR_ADDED)]
    columns = schema_state(notes()).versions[-1].columns
    assert [(c.name, c.arrow_type) for c in columns] == [("id", "int32"), ("colour", "string")]
    assert destination_db.fetch("SELECT * FROM raw.notes ORDER BY 1, 2") == [(1, None), (1, None), (2, "red")]


@pytest.mark.parametrize("write_mode", ["append", "replace", "upsert"])
def test_a_table_in_shards_changes_once(
    tmp_path: Path, notes_db: Database, destination_db: Database, write_mode: str
) -> None:
    notes_db.execute("INSERT INTO notes SELECT n, repeat('x', 300) FROM generate_series(101, 20000) n")
    pipeline = make_pipeline(
        tmp_path,
        notes_db,
        destination_db,
        [{"name": "notes", "shards": 2}],
        write_mode=write_mode,
        resources={"parallelism": 2},
    )
    run(pipeline)
    notes_db.execute("ALTER TABLE notes ADD COLUMN colour text DEFAULT 'red'")
    lines: list[str] = []
    heard: list[tuple[SchemaChange, ...]] = []
    result = run(pipeline, on_log=lambda _, line: lines.append(line), on_drift=heard.append)
    assert "the table is read in 2 shards at once" in lines
    assert told(result.schema_changes) == COLOUR_ADDED
    assert set(heard) == {result.schema_changes}
    assert len([line for line in lines if "colour" in line]) == 1
    assert history(pipeline) == [(2, COLOUR_ADDED)]
    assert destination_db.fetch_value("SELECT count(*) FROM raw.notes WHERE colour = 'red'") == 20_000
