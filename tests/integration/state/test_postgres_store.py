"""What only the PostgreSQL store has: a connection, which breaks, and a database, which it shares."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from types import FrameType

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import Kind, StateError
from rapidbyte_dagster.state import RunRecord, Watermark, postgres
from rapidbyte_dagster.state.postgres import PostgresStateStore
from tests.integration.state.proxy import proxied
from tests.postgres_server import Database, MakeDatabase, unique_name
from tests.unit.state.backends import PostgresBackend, connection_to
from tests.unit.state.samples import PIPELINE, STREAM, a_change, a_checkpoint, a_version


@pytest.fixture
def state_db(make_database: MakeDatabase) -> Database:
    return make_database("state")


@pytest.fixture
def store(state_db: Database) -> Iterator[PostgresStateStore]:
    with PostgresStateStore(connection_to(state_db.dsn)) as store:
        yield store


def terminate(database: Database) -> None:
    """Ends every session of `database`, and waits until they are gone."""
    others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    database.fetch(f"select pg_terminate_backend(pid, 5000) {others}", superuser=True)
    assert database.fetch(f"select 1 {others}", superuser=True) == []


def test_an_operation_after_the_connection_was_cut_is_done_on_a_new_one(
    store: PostgresStateStore, state_db: Database
) -> None:
    store.prepare(a_checkpoint(1, cursor="x"))
    terminate(state_db)
    store.finalise(PIPELINE, STREAM, 1)
    terminate(state_db)
    assert [c.cursor for c in store.checkpoints(PIPELINE, STREAM)] == ["x"]


def test_a_session_that_ends_while_it_waits_is_followed_by_another(
    store: PostgresStateStore, state_db: Database
) -> None:
    done = threading.Event()

    def prepare() -> None:
        store.prepare(a_checkpoint(1))
        done.set()

    waiting = "wait_event_type = 'Lock' and datname = current_database()"
    with state_db.connect() as other, other.transaction():
        other.execute("lock table _rapidbyte_checkpoints")
        writer = threading.Thread(target=prepare)
        writer.start()
        deadline = time.monotonic() + 10
        while not state_db.fetch(f"select pg_terminate_backend(pid) from pg_stat_activity where {waiting}"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    writer.join(20)
    assert done.is_set()
    store.finalise(PIPELINE, STREAM, 1)


def test_a_commit_whose_answer_got_lost_is_done_again_and_changes_nothing(state_db: Database) -> None:
    run = RunRecord(run_id="run", pipeline=PIPELINE, stream=STREAM, status="ok", started_at=datetime.now(timezone.utc))
    with proxied(state_db.dsn) as proxy, PostgresStateStore(connection_to(proxy.dsn)) as store:

        def losing_an_answer() -> PostgresStateStore:
            proxy.lose_commits += 1
            return store

        losing_an_answer().prepare(a_checkpoint(1, cursor="x"))
        losing_an_answer().finalise(PIPELINE, STREAM, 1)
        losing_an_answer().record_schema(PIPELINE, STREAM, a_version("id"))
        losing_an_answer().record_run(run)
        store.prepare(a_checkpoint(2, cursor="y"))
        resume = losing_an_answer().reconcile(PIPELINE, STREAM, Watermark(sequence=1, cursor="x"))
        assert proxy.lost == 5
        assert resume.sequence == 2, "the number that was discarded is given out again"
        assert [(c.sequence, c.cursor) for c in store.checkpoints(PIPELINE, STREAM)] == [(1, "x")]
        assert len(store.schema_state(PIPELINE, STREAM).versions) == 1
        assert store.runs(PIPELINE, STREAM) == [run]


def test_a_server_that_is_down_is_told_as_worth_another_try_and_is_used_again_when_it_is_back(
    own_postgres: EmbeddedPostgres,
) -> None:
    own_postgres.create_database("state")
    with PostgresStateStore(connection_to(own_postgres.dsn("state"))) as store:
        store.prepare(a_checkpoint(1))
        own_postgres.crash()
        with pytest.raises(StateError, match="cannot be reached: Connection refused") as caught:
            store.finalise(PIPELINE, STREAM, 1)
        assert (caught.value.kind, caught.value.exit_code) == (Kind.TRANSIENT_NETWORK, 6)
        assert caught.value.retryable
        own_postgres.start()
        store.finalise(PIPELINE, STREAM, 1)
        own_postgres.crash()
        own_postgres.start()
        assert len(store.checkpoints(PIPELINE, STREAM)) == 1


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    state_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(state_db.dsn) as proxy, PostgresStateStore(connection_to(proxy.dsn)) as store:
        store.prepare(a_checkpoint(1))
        monkeypatch.setattr(postgres, "PATIENCE_SECONDS", 0.5)
        proxy.silent = True
        started = time.monotonic()
        with pytest.raises(StateError, match=r"gave no answer within 0\.5 s") as caught:
            store.finalise(PIPELINE, STREAM, 1)
        assert time.monotonic() - started < 5
        assert caught.value.retryable
        proxy.silent = False
        store.finalise(PIPELINE, STREAM, 1)


def test_a_lock_that_somebody_holds_is_waited_for_within_the_connections_own_limit(state_db: Database) -> None:
    impatient = make_conninfo(state_db.dsn, options="-c statement_timeout=300ms")
    with PostgresStateStore(connection_to(impatient)) as store:
        with state_db.connect() as other, other.transaction():
            other.execute("lock table _rapidbyte_checkpoints")
            with pytest.raises(StateError, match="cannot be written: canceling statement") as caught:
                store.prepare(a_checkpoint(1))
        assert caught.value.retryable
        store.prepare(a_checkpoint(1))


def test_a_signal_reaches_a_store_that_waits_for_a_lock(store: PostgresStateStore, state_db: Database) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGUSR1])
    try:
        with state_db.connect() as other, other.transaction():
            other.execute("lock table _rapidbyte_checkpoints")
            started = time.monotonic()
            timer.start()
            with pytest.raises(Interrupted):
                store.prepare(a_checkpoint(1))
            assert time.monotonic() - started < 2
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    store.prepare(a_checkpoint(1))


def test_without_a_limit_of_its_own_a_connection_gets_one_and_leaves_none_behind(store: PostgresStateStore) -> None:
    asked = "SELECT current_setting('statement_timeout'), current_setting('application_name')"
    assert store._read(asked, ()) == [("30s", "rapidbyte")]
    connection = store._connection
    assert connection is not None
    assert connection.execute("SELECT current_setting('statement_timeout')").fetchall() == [("0",)]
    assert connection.execute("SELECT name FROM pg_prepared_statements").fetchall() == []
    assert connection.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").fetchall() == []
    connection.rollback()


@pytest.mark.parametrize("table", ["_rapidbyte_dlq", "_rapidbyte_state_format"])
def test_tables_of_something_else_are_refused_and_left_alone(state_db: Database, table: str) -> None:
    state_db.execute(f"create table {table} (theirs int); insert into {table} values (7)")
    with pytest.raises(StateError, match=f"something else's: {table}") as caught:
        PostgresStateStore(connection_to(state_db.dsn))
    assert "search_path" in str(caught.value.hint)
    assert state_db.fetch(f"select * from {table}") == [(7,)]
    assert state_db.fetch_value("select count(*) from pg_tables where schemaname = 'public'") == 1
    state_db.execute("create schema rapidbyte")
    with PostgresStateStore(connection_to(make_conninfo(state_db.dsn, options="-csearch_path=rapidbyte"))) as store:
        store.prepare(a_checkpoint(1))
    assert state_db.fetch_value("select count(*) from rapidbyte._rapidbyte_checkpoints") == 1


def test_a_schema_that_does_not_exist_is_told(state_db: Database) -> None:
    with pytest.raises(StateError, match="names no schema that exists"):
        PostgresStateStore(connection_to(make_conninfo(state_db.dsn, options="-csearch_path=nowhere")))


@pytest.mark.parametrize(("encoding", "usable"), [("LATIN1", False), ("SQL_ASCII", True)])
def test_a_database_that_cannot_hold_every_name_is_refused(
    postgres: EmbeddedPostgres, encoding: str, usable: bool
) -> None:
    name = unique_name("state")
    with postgres.connect() as connection:
        connection.execute(f"create database {name} encoding '{encoding}' template template0 owner etl".encode())
    target = connection_to(postgres.dsn(name, user="etl"))
    try:
        if usable:
            with PostgresStateStore(target) as store:
                store.record_schema(PIPELINE, STREAM, a_version("ü€"))
                current = store.schema_state(PIPELINE, STREAM).current
                assert current is not None
                assert current.columns[0].name == "ü€"
        else:
            with pytest.raises(StateError, match="encoded in LATIN1") as caught:
                PostgresStateStore(target)
            assert "UTF8" in str(caught.value.hint)
    finally:
        postgres.drop_database(name)


def test_a_role_that_may_not_create_tables_is_told_what_it_needs(
    postgres: EmbeddedPostgres, state_db: Database
) -> None:
    role = unique_name("reader")
    postgres.create_role(role, password="some-password")
    reader = postgres.dsn(state_db.name, user=role, password="some-password")
    with pytest.raises(StateError, match="permission denied") as caught:
        PostgresStateStore(connection_to(reader))
    assert caught.value.info.sqlstate == "42501"
    assert not caught.value.retryable
    assert "create tables" in str(caught.value.hint)
    with PostgresStateStore(connection_to(state_db.dsn)):
        state_db.execute(f"grant select, insert, update, delete on all tables in schema public to {role}")
        # Where the tables are, nothing more is needed.
        with PostgresStateStore(connection_to(reader)) as store:
            store.prepare(a_checkpoint(1))
    state_db.execute(f"drop owned by {role}", superuser=True)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_server_that_only_reads_is_told_with_where_to_write(state_db: Database, is_new: bool) -> None:
    if not is_new:
        PostgresStateStore(connection_to(state_db.dsn)).close()
    read_only = make_conninfo(state_db.dsn, options="-cdefault_transaction_read_only=on")
    with (
        pytest.raises(StateError, match="read-only transaction") as caught,
        PostgresStateStore(connection_to(read_only)) as store,
    ):
        store.prepare(a_checkpoint(1))
    assert caught.value.info.sqlstate == "25006"
    assert caught.value.retryable, "a standby may become the primary"
    assert "target_session_attrs=read-write" in str(caught.value.hint)
    writable = make_conninfo(read_only, target_session_attrs="read-write")
    with pytest.raises(StateError, match="session is read-only") as caught:
        PostgresStateStore(connection_to(writable))
    assert caught.value.hint == postgres.UNREACHABLE_HINT


def test_a_store_of_an_older_version_is_brought_up_to_date_by_its_owner_alone(
    postgres: EmbeddedPostgres, state_db: Database
) -> None:
    PostgresBackend(state_db.dsn).make_first_format()
    role = unique_name("writer")
    postgres.create_role(role, password="some-password")
    state_db.execute(f"grant select, insert, update, delete on all tables in schema public to {role}")
    writer = connection_to(postgres.dsn(state_db.name, user=role, password="some-password"))
    with pytest.raises(StateError, match="must be owner of") as caught:
        PostgresStateStore(writer)
    assert not caught.value.retryable
    assert "by their owner" in str(caught.value.hint)
    assert state_db.fetch("select version from _rapidbyte_state_format") == [(1,)]
    PostgresStateStore(connection_to(state_db.dsn)).close()
    with PostgresStateStore(writer) as store:
        store.prepare(a_checkpoint(1, changes=[a_change()]))
        store.finalise(PIPELINE, STREAM, 1)
        assert len(store.schema_state(PIPELINE, STREAM).history) == 1
    state_db.execute(f"drop owned by {role}", superuser=True)


@pytest.mark.parametrize(
    ("wrong", "reason", "retryable"),
    [
        ({"password": "hunter2-is-wrong"}, "password authentication failed", False),
        ({"user": "nobody_s3cr3t"}, "authentication failed", False),
        ({"dbname": "missing_s3cr3t"}, "does not exist", False),
        ({"host": "s3cr3t.invalid"}, "resolve", True),
        ({"port": "1"}, "Connection refused", True),
        ({"host": "/s3cr3t"}, "No such file", True),
        ({"sslmode": "require"}, "does not support SSL", False),
    ],
)
def test_a_connection_that_fails_is_told_without_what_the_connection_string_says(
    state_db: Database, wrong: dict[str, str], reason: str, retryable: bool
) -> None:
    dsn = make_conninfo(state_db.dsn, **wrong)
    with pytest.raises(StateError, match=reason) as caught:
        PostgresStateStore(connection_to(dsn))
    error = caught.value
    assert error.retryable is retryable, error.kind
    for secret in (*psycopg.conninfo.conninfo_to_dict(dsn).values(), "127.0.0.1", "s3cr3t"):
        assert str(secret) not in str(error).replace("postgresql", ""), secret
    assert error.__context__ is None
    assert error.__cause__ is None


def test_a_store_shows_nothing_of_its_connection(store: PostgresStateStore, state_db: Database) -> None:
    for secret in (str(state_db.config["password"]), state_db.name, "127.0.0.1"):
        assert secret not in repr(store) + repr(connection_to(state_db.dsn))
