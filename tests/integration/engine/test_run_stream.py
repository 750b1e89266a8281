"""Whole streams: a real source, both guests, a real destination, the state store."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from rapidbyte_dagster.engine import CancelToken, Progress, run_stream
from rapidbyte_dagster.errors import (
    ConfigError,
    DestinationError,
    Kind,
    RapidbyteError,
    RunCancelled,
    SchemaError,
    SourceError,
)
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database

USERS = """
    CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, balance numeric(12,2), joined timestamptz);
    INSERT INTO users SELECT i, 'user' || i || '@example.com', i * 1.25, '2024-01-01Z'::timestamptz + i * interval '1 h'
    FROM generate_series(1, 1000) i;
"""


def content(database: Database, table: str) -> list[tuple[object, ...]]:
    return database.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")


@pytest.fixture
def users_db(source_db: Database) -> Database:
    source_db.execute(USERS)
    return source_db


def test_a_table_arrives_with_its_types_key_and_rows(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    result = run(make_pipeline(tmp_path, users_db, destination_db, ["users"], write_mode="replace"))
    assert content(destination_db, "raw.users") == content(users_db, "users")
    assert (result.rows, result.table, result.attempts, result.primary_key) == (1000, "raw.users", 1, ("id",))
    assert [(c.name, c.type, c.nullable) for c in result.columns] == [
        ("id", "bigint", False),
        ("email", "text", False),
        ("balance", "numeric(12,2)", True),
        ("joined", "timestamp with time zone", True),
    ]
    with pytest.raises(Exception, match="duplicate key"):
        destination_db.execute("INSERT INTO raw.users SELECT * FROM raw.users LIMIT 1")


def test_appending_twice_gives_every_row_twice(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    source_db.execute("CREATE TABLE notes (body text); INSERT INTO notes VALUES ('a'), (''), (NULL)")
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["notes"])
    first, second = run(pipeline), run(pipeline)
    assert destination_db.fetch_value("SELECT count(*) FROM raw.notes") == 6
    assert (first.checkpoint.sequence, second.checkpoint.sequence) == (1, 2)


def test_replacing_twice_gives_the_source_as_it_is_now(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    pipeline = make_pipeline(tmp_path, users_db, destination_db, ["users"], write_mode="replace")
    run(pipeline)
    users_db.execute("DELETE FROM users WHERE id % 2 = 0; UPDATE users SET email = upper(email) WHERE id = 1")
    run(pipeline)
    assert content(destination_db, "raw.users") == content(users_db, "users")


def test_an_empty_source_gives_an_empty_table(tmp_path: Path, users_db: Database, destination_db: Database) -> None:
    pipeline = make_pipeline(tmp_path, users_db, destination_db, ["users"], write_mode="replace")
    run(pipeline)
    users_db.execute("TRUNCATE users")
    result = run(pipeline)
    assert result.rows == 0
    assert content(destination_db, "raw.users") == []


def test_only_the_chosen_columns_and_rows_move(tmp_path: Path, users_db: Database, destination_db: Database) -> None:
    stream = {"name": "users", "columns": ["email", "id"], "filter": "id <= 10 -- the first ten", "table": "ten"}
    result = run(make_pipeline(tmp_path, users_db, destination_db, [stream]))
    assert result.rows == 10
    columns = (
        "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'ten' ORDER BY ordinal_position"
    )
    assert destination_db.fetch(columns) == [("email",), ("id",)]
    assert destination_db.fetch_value("SELECT max(id) FROM raw.ten") == 10


def test_the_state_store_and_the_destination_agree_on_the_checkpoint(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    pipeline = make_pipeline(tmp_path, users_db, destination_db, ["users"], write_mode="replace")
    result = run(pipeline)
    with open_state(pipeline, {}) as state:
        assert state.latest_checkpoint("shop", "users") == result.checkpoint.model_copy(
            update={"committed_at": state.checkpoints("shop", "users")[0].committed_at}
        )
        schema = state.schema_state("shop", "users").current
        assert schema is not None
        assert schema.primary_key == ("id",)
        assert [(r.status, r.rows) for r in state.runs("shop", "users")] == [("ok", 1000)]
    assert destination_db.fetch("SELECT pipeline, stream, sequence FROM raw._rapidbyte_watermarks") == [
        ("shop", "users", 1)
    ]


def test_a_deleted_state_file_goes_on_from_the_destinations_watermark(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    pipeline = make_pipeline(tmp_path, users_db, destination_db, ["users"], write_mode="replace")
    run(pipeline)
    for file in (tmp_path / ".rapidbyte").iterdir():
        file.unlink()
    assert run(pipeline).checkpoint.sequence == 2


def test_many_batches_cross_a_small_channel(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    source_db.execute("CREATE TABLE wide AS SELECT i AS id, repeat('x', 1000) AS body FROM generate_series(1, 20000) i")
    resources = {"max_batch_bytes": "1mb", "max_inflight_bytes": "1mb"}
    result = run(make_pipeline(tmp_path, source_db, destination_db, ["wide"], resources=resources))
    assert result.rows == 20000
    assert result.batches >= 15
    hashed = "SELECT sum(hashtextextended(t::text, 0)) FROM {} t"
    assert destination_db.fetch_value(hashed.format("raw.wide")) == source_db.fetch_value(hashed.format("wide"))


def test_a_wrong_password_is_one_clear_error_without_the_password(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    config = {**users_db.config, "password": "${PASSWORD}"}
    pipeline = make_pipeline(tmp_path, config, destination_db, ["users"])
    with pytest.raises(SourceError) as caught:
        run(pipeline, environ={"PASSWORD": "not-the-password"})
    assert caught.value.kind is Kind.AUTH
    assert caught.value.info.stream == "users"
    assert caught.value.hint
    assert "not-the-password" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"database": "no_such_database"}, Kind.NOT_FOUND),
        ({"host": "no-such-host.invalid"}, Kind.NOT_FOUND),
        ({"schema": "no_such_schema"}, Kind.NOT_FOUND),
    ],
)
def test_a_source_that_is_not_there_is_told_as_such(
    tmp_path: Path, users_db: Database, destination_db: Database, change: dict[str, str], kind: Kind
) -> None:
    pipeline = make_pipeline(
        tmp_path, {**users_db.config, **change}, destination_db, ["users"], resources={"max_retries": 0}
    )
    with pytest.raises(SourceError) as caught:
        run(pipeline)
    assert caught.value.kind in (kind, Kind.TRANSIENT_NETWORK) if "host" in change else caught.value.kind is kind


def test_a_closed_port_is_tried_again_and_then_told(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    config = {**users_db.config, "port": 1}
    pipeline = make_pipeline(tmp_path, config, destination_db, ["users"], resources={"max_retries": 1})
    with pytest.raises(SourceError) as caught:
        run(pipeline)
    assert caught.value.kind is Kind.TRANSIENT_NETWORK
    with open_state(pipeline, {}) as state:
        assert [(r.status, r.attempts) for r in state.runs("shop", "users")] == [("failed", 2)]


def test_a_host_outside_the_allowed_ones_is_refused(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    section = {"permissions": {"network": {"allowed_hosts": ["db.internal"]}}}
    pipeline = make_pipeline(tmp_path, users_db, destination_db, ["users"], source_section=section)
    with pytest.raises(SourceError, match="allowed") as caught:
        run(pipeline)
    assert caught.value.kind is Kind.DENIED


@pytest.mark.parametrize(
    ("stream", "named"),
    [({"name": "nobody"}, "nobody"), ({"name": "users", "columns": ["id", "emial"]}, "emial")],
)
def test_a_missing_table_or_column_is_named(
    tmp_path: Path, users_db: Database, destination_db: Database, stream: dict[str, object], named: str
) -> None:
    with pytest.raises(SourceError, match=named) as caught:
        run(make_pipeline(tmp_path, users_db, destination_db, [stream]))
    assert caught.value.kind is Kind.NOT_FOUND


def test_a_broken_filter_shows_what_the_server_said(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    with pytest.raises(RapidbyteError, match="nope"):
        run(make_pipeline(tmp_path, users_db, destination_db, [{"name": "users", "filter": "nope = 1"}]))


def test_a_missing_variable_is_named_before_anything_starts(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    config = {**users_db.config, "password": "${NO_SUCH_VARIABLE}"}
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE"):
        run(make_pipeline(tmp_path, config, destination_db, ["users"]))


def test_a_table_of_another_shape_is_left_as_it_was(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    destination_db.execute(
        "CREATE SCHEMA raw; CREATE TABLE raw.users (id text, email text); INSERT INTO raw.users VALUES ('x', 'y')"
    )
    with pytest.raises(SchemaError, match=r"users|id|balance"):
        run(make_pipeline(tmp_path, users_db, destination_db, ["users"]))
    assert destination_db.fetch("SELECT * FROM raw.users") == [("x", "y")]


def test_a_row_that_violates_a_constraint_stops_the_run_and_nothing_is_written(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    pipeline = make_pipeline(tmp_path, users_db, destination_db, [{"name": "users", "primary_key": ["id"]}])
    run(pipeline)
    with pytest.raises(DestinationError, match=r"users_pkey|duplicate") as caught:
        run(pipeline)
    assert caught.value.kind is Kind.DATA
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 1000
    assert destination_db.fetch_value("SELECT max(sequence) FROM raw._rapidbyte_watermarks") == 1
    with open_state(pipeline, {}) as state:
        assert len(state.checkpoints("shop", "users")) == 1


SLOW = "id > 0 AND pg_sleep(0.02) IS NOT NULL"


def test_a_source_backend_that_dies_in_the_middle_leaves_nothing_behind_and_is_tried_again(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    stream = {"name": "users", "filter": "id <= 100 AND pg_sleep(0.02) IS NOT NULL"}
    pipeline = make_pipeline(tmp_path, users_db, destination_db, [stream], resources={"max_retries": 2})
    killed = threading.Event()

    def kill() -> None:
        for _ in range(200):
            found = users_db.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'COPY%%' AND pid <> pg_backend_pid()",
                superuser=True,
            )
            if found:
                killed.set()
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    result = run(pipeline)
    killer.join()
    assert killed.is_set()
    assert result.attempts == 2
    assert len(result.retried) == 1
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 100


def test_cancelling_stops_within_two_seconds_and_writes_nothing(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    pipeline = make_pipeline(tmp_path, users_db, destination_db, [{"name": "users", "filter": SLOW}])
    token = CancelToken()
    threading.Timer(1.0, token.cancel).start()
    started = time.monotonic()
    with pytest.raises(RunCancelled):
        run(pipeline, cancel=token)
    assert time.monotonic() - started < 3.0
    assert destination_db.fetch_value("SELECT to_regclass('raw.users') IS NULL")
    with open_state(pipeline, {}) as state:
        assert [r.status for r in state.runs("shop", "users")] == ["cancelled"]


def test_a_time_limit_stops_a_source_that_waits(tmp_path: Path, users_db: Database, destination_db: Database) -> None:
    section = {"limits": {"timeout_seconds": 1}}
    pipeline = make_pipeline(
        tmp_path, users_db, destination_db, [{"name": "users", "filter": SLOW}], source_section=section
    )
    with pytest.raises(SourceError, match="1 s") as caught:
        run(pipeline)
    assert caught.value.kind is Kind.TIMEOUT


def test_a_memory_limit_that_is_too_small_is_told_with_its_key(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("CREATE TABLE big AS SELECT repeat('x', 30000000) AS body")
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["big"], resources={"max_memory": "8mb"})
    with pytest.raises(SourceError, match="memory") as caught:
        run(pipeline)
    assert caught.value.kind is Kind.RESOURCE
    assert "max_memory" in str(caught.value)


def test_an_exception_in_the_calling_thread_stops_the_run(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.elapsed_seconds > 0.5:
            raise Interrupted

    pipeline = make_pipeline(tmp_path, users_db, destination_db, [{"name": "users", "filter": SLOW}])
    before = threading.active_count()
    with open_state(pipeline, {}) as state, pytest.raises(Interrupted):
        run_stream(pipeline, pipeline.streams[0], state=state, run_id="r", environ={}, on_progress=interrupt)
    assert threading.active_count() == before
    assert destination_db.fetch_value("SELECT to_regclass('raw.users') IS NULL")


def test_a_listener_that_fails_stops_the_run_and_is_told_as_a_failure(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    def fail(progress: Progress) -> None:
        raise LookupError("no such log")

    pipeline = make_pipeline(tmp_path, users_db, destination_db, [{"name": "users", "filter": SLOW}])
    with open_state(pipeline, {}) as state:
        with pytest.raises(LookupError):
            run_stream(pipeline, pipeline.streams[0], state=state, run_id="r", environ={}, on_progress=fail)
        assert [(r.status, r.error) for r in state.runs("shop", "users")] == [("failed", "LookupError")]


def test_a_run_that_is_executed_again_and_fails_counts_the_rows_of_this_time_alone(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    """As when a scheduler repeats a step within its run."""
    source_db.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)")
    stream = {"name": "t", "sync_mode": "incremental", "cursor_field": "id"}
    pipeline = make_pipeline(
        tmp_path, source_db, destination_db, [stream], resources={"checkpoint_interval_rows": 1, "max_retries": 0}
    )
    with open_state(pipeline, {}) as state:

        def execute() -> None:
            run_stream(pipeline, pipeline.streams[0], state=state, run_id="r", environ={})

        def recorded() -> list[tuple[str, int]]:
            return [(told.status, told.rows) for told in state.runs("shop", "t")]

        execute()
        assert recorded() == [("ok", 2)]
        destination_db.execute("ALTER TABLE raw.t ADD CHECK (id < 5)")
        source_db.execute("INSERT INTO t SELECT generate_series(3, 6)")
        with pytest.raises(DestinationError, match="check constraint"):
            execute()
        assert destination_db.fetch_value("SELECT max(id) FROM raw.t") == 4
        assert recorded() == [("failed", 2)]
        with pytest.raises(DestinationError, match="check constraint"):
            execute()
        assert recorded() == [("failed", 0)]
        destination_db.execute("ALTER TABLE raw.t DROP CONSTRAINT t_id_check")
        execute()
        assert recorded() == [("ok", 2)]


def test_a_run_that_is_executed_again_and_interrupted_counts_the_rows_of_this_time_alone(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.rows_committed > 0:
            raise Interrupted

    source_db.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)")
    stream = {"name": "t", "sync_mode": "incremental", "cursor_field": "id"}
    pipeline = make_pipeline(tmp_path, source_db, destination_db, [stream], resources={"checkpoint_interval_rows": 1})
    with open_state(pipeline, {}) as state:
        run_stream(pipeline, pipeline.streams[0], state=state, run_id="r", environ={})
        source_db.execute("INSERT INTO t SELECT generate_series(3, 2000)")
        with pytest.raises(Interrupted):
            run_stream(pipeline, pipeline.streams[0], state=state, run_id="r", environ={}, on_progress=interrupt)
        in_all = state.committed("shop", "t", "r").rows
        assert 2 < in_all < 2000
        assert [(told.status, told.rows) for told in state.runs("shop", "t")] == [("cancelled", in_all - 2)]


def test_an_error_keeps_its_problems_and_drags_no_secret_behind_it(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    missing = {**users_db.config, "password": "${NO_SUCH_VARIABLE}"}
    with pytest.raises(ConfigError) as caught:
        run(make_pipeline(tmp_path, missing, destination_db, ["users"]))
    assert len(caught.value.problems) == 1
    wrong = {**users_db.config, "password": "${PASSWORD}"}
    with pytest.raises(SourceError) as failed:
        run(make_pipeline(tmp_path, wrong, destination_db, ["users"]), environ={"PASSWORD": "not-the-password"})
    for error in (caught.value, failed.value):
        # Not only hidden from tracebacks: whatever walks the chain would find the text before it was redacted.
        assert error.__context__ is None
        assert error.__cause__ is None


def test_stages_that_end_between_two_looks_are_a_success(
    tmp_path: Path, users_db: Database, destination_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`is_alive` may answer what is no longer true by the time that somebody acts on it."""
    is_alive = threading.Thread.is_alive

    def stale(thread: threading.Thread) -> bool:
        alive = is_alive(thread)
        if alive and thread.name == "destination-users":
            thread.join()
        return alive

    monkeypatch.setattr(threading.Thread, "is_alive", stale)
    assert run(make_pipeline(tmp_path, users_db, destination_db, ["users"])).rows == 1000


def test_cancelling_reaches_a_server_that_works_on_one_long_statement(
    tmp_path: Path, users_db: Database, destination_db: Database
) -> None:
    destination_db.execute(
        "CREATE SCHEMA raw;"
        " CREATE TABLE raw.users (id bigint, email text, balance numeric(12,2), joined timestamptz);"
        " CREATE FUNCTION raw.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';"
        " CREATE TRIGGER slow AFTER INSERT ON raw.users FOR EACH STATEMENT EXECUTE FUNCTION raw.slow()"
    )
    pipeline = make_pipeline(tmp_path, users_db, destination_db, ["users"])
    token = CancelToken()
    cancelled_at: list[float] = []

    def cancel() -> None:
        cancelled_at.append(time.monotonic())
        token.cancel()

    threading.Timer(2.0, cancel).start()
    with pytest.raises(RunCancelled, match="nothing since the last checkpoint"):
        run(pipeline, cancel=token)
    assert time.monotonic() - cancelled_at[0] < 2
    working = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rapidbyte/shop/users' AND datname = %s"
    deadline = time.monotonic() + 6
    while destination_db.fetch_value(working.replace("%s", f"'{destination_db.name}'")):
        assert time.monotonic() < deadline, "the server goes on and holds its locks"
        time.sleep(0.1)
    assert destination_db.fetch_value("SELECT count(*) FROM raw.users") == 0
