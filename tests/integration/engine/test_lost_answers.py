"""A run whose commit happened while its news got lost: the rows are there once, whoever failed afterwards."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import CancelToken, reset_stream
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, RunCancelled, SchemaError
from rapidbyte_dagster.state import open_state
from tests.integration.engine.written_source import FINAL, WrittenSource, a_batch, a_schema
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database


class LossyProxy:
    """Carries connections to a server. The first client that says COMMIT after a COPY never hears of it: the server
    does it, and the connection breaks. With `down_afterwards` nobody is let in any more."""

    def __init__(self, database: Database, *, down_afterwards: bool = False) -> None:
        self._target = (database.config["host"], int(database.config["port"]))
        self._down_afterwards = down_afterwards
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.port: int = self._listener.getsockname()[1]
        self.lost = 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.lost and self._down_afterwards:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._threads.append(threading.Thread(target=self._carry, args=(client, server)))
                self._threads[-1].start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        deaf = threading.Event()

        def end() -> None:
            for sock in (client, server):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

        def answer() -> None:
            with contextlib.suppress(OSError):
                # The server's answer to COMMIT says that it happened, to nobody.
                while (data := server.recv(65536)) and not deaf.is_set():
                    client.sendall(data)
            end()

        answering = threading.Thread(target=answer)
        answering.start()
        copied = False
        with client, server:
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    copied = copied or b"PGCOPY\n" in data
                    if copied and b"COMMIT" in data and not self.lost:
                        self.lost += 1
                        deaf.set()
                    server.sendall(data)
            end()
            answering.join(10)


@contextlib.contextmanager
def lossy(database: Database, **options: Any) -> Iterator[tuple[LossyProxy, dict[str, Any]]]:
    """The proxy, and a destination's config that goes through it."""
    proxy = LossyProxy(database, **options)
    try:
        yield proxy, {**database.config, "host": "127.0.0.1", "port": proxy.port, "schema": "raw"}
    finally:
        proxy.close()


@pytest.fixture
def notes_db(source_db: Database) -> Database:
    source_db.execute("CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes VALUES (1, 'a'), (2, 'b')")
    return source_db


@pytest.mark.parametrize("write_mode", ["append", "replace"])
def test_a_commit_whose_answer_got_lost_is_not_repeated(
    tmp_path: Path, notes_db: Database, destination_db: Database, write_mode: str
) -> None:
    destination_db.execute("CREATE SCHEMA raw; CREATE TABLE raw.notes (id int, body text)")
    with lossy(destination_db) as (proxy, config):
        pipeline = make_pipeline(tmp_path, notes_db, config, ["notes"], write_mode=write_mode)
        result = run(pipeline)
    assert proxy.lost == 1
    assert destination_db.fetch("SELECT * FROM raw.notes ORDER BY 1") == [(1, "a"), (2, "b")]
    assert (result.rows, result.batches, result.attempts, result.table) == (2, 1, 2, "raw.notes")
    assert [column.name for column in result.columns] == ["id", "body"]
    assert result.arrow_schema.names == ["id", "body"]
    with open_state(pipeline, {}) as state:
        assert [(c.sequence, c.rows) for c in state.checkpoints("shop", "notes")] == [(1, 2)]
        assert [(r.status, r.rows) for r in state.runs("shop", "notes")] == [("ok", 2)]
    assert result.checkpoint.sequence == 1


def test_a_commit_that_nobody_could_ask_about_any_more_is_told_as_uncertain(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    destination_db.execute("CREATE SCHEMA raw; CREATE TABLE raw.notes (id int, body text)")
    with lossy(destination_db, down_afterwards=True) as (_, config):
        pipeline = make_pipeline(tmp_path, notes_db, config, ["notes"], resources={"max_retries": 1})
        with pytest.raises(DestinationError, match="may be in the table") as caught:
            run(pipeline)
    assert caught.value.kind is Kind.TRANSIENT_NETWORK
    assert caught.value.retryable
    assert destination_db.fetch_value("SELECT count(*) FROM raw.notes") == 2
    direct = make_pipeline(tmp_path, notes_db, destination_db, ["notes"])
    assert run(direct).rows == 2
    assert destination_db.fetch_value("SELECT count(*) FROM raw.notes") == 2, "the next run completes the one before"
    with open_state(direct, {}) as state:
        runs = [(told.status, told.rows, told.error) for told in state.runs("shop", "notes")]
    assert runs == [("ok", 2, None)] * 2
    assert run(direct).rows == 2
    assert destination_db.fetch_value("SELECT count(*) FROM raw.notes") == 4, "and the one after it appends again"


def test_a_table_that_was_dropped_is_told_of_by_the_run_that_should_complete_the_one_before(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    destination_db.execute("CREATE SCHEMA raw; CREATE TABLE raw.notes (id int, body text)")
    with lossy(destination_db, down_afterwards=True) as (_, config):
        pipeline = make_pipeline(tmp_path, notes_db, config, ["notes"], resources={"max_retries": 0})
        with pytest.raises(DestinationError, match="may be in the table"):
            run(pipeline)
    destination_db.execute("DROP TABLE raw.notes")
    direct = make_pipeline(tmp_path, notes_db, destination_db, ["notes"])
    with pytest.raises(SchemaError, match="notes is gone, but its watermark says") as caught:
        run(direct)
    assert "rapidbyte state reset FILE --stream notes" in str(caught.value.info.hint)
    assert caught.value.info.detail is None, "nothing of this run is in a table"
    with open_state(direct, {}) as state:
        reset_stream(direct, direct.streams[0], state=state, run_id="reset", environ={})
    assert run(direct).rows == 2
    assert destination_db.fetch_value("SELECT count(*) FROM raw.notes") == 2


def written(folder: Path, source: WrittenSource, destination: Database, **options: Any) -> Pipeline:
    section = {"use": source.write(folder)}
    return make_pipeline(folder, {}, destination, ["written"], source_section=section, **options)


def test_a_source_that_fails_behind_its_final_barrier_has_nothing_committed(
    tmp_path: Path, destination_db: Database
) -> None:
    source = WrittenSource(
        messages=[a_schema(), a_batch(1, 2, 3)],
        barriers=[FINAL],
        spins_before_answer=500_000_000,
        answer={"err": {"kind": "transient_db", "message": "the snapshot is gone"}},
    )
    pipeline = written(tmp_path, source, destination_db, resources={"max_retries": 1})
    with pytest.raises(RapidbyteError, match="the snapshot is gone"):
        run(pipeline)
    assert destination_db.fetch_value("SELECT to_regclass('raw.written') IS NULL")


def test_a_written_source_arrives(tmp_path: Path, destination_db: Database) -> None:
    source = WrittenSource(messages=[a_schema(), a_batch(1, 2, 3)], barriers=[FINAL])
    assert run(written(tmp_path, source, destination_db)).rows == 3
    assert destination_db.fetch_value("SELECT sum(id) FROM raw.written") == 6


def test_cancelling_reaches_a_connector_that_does_not_come_back_from_its_close(
    tmp_path: Path, destination_db: Database
) -> None:
    source = WrittenSource(answer={"err": {"kind": "data", "message": "no"}}, never_closes=True)
    token = CancelToken()
    threading.Timer(0.5, token.cancel).start()
    started = time.monotonic()
    with pytest.raises(RapidbyteError):
        run(written(tmp_path, source, destination_db), cancel=token)
    assert time.monotonic() - started < 3


def test_a_source_that_does_not_come_back_from_its_close_does_not_hold_up_the_failure_of_the_run(
    tmp_path: Path, destination_db: Database
) -> None:
    """The destination must hear of the abort at once, not after the close: it holds locks."""
    source = WrittenSource(
        messages=[a_schema(), a_batch(1)], answer={"err": {"kind": "data", "message": "no"}}, never_closes=True
    )
    pipeline = written(tmp_path, source, destination_db)
    busy: list[int] = []

    def look() -> None:
        time.sleep(2)
        busy.append(
            destination_db.fetch_value(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rapidbyte/shop/written'"
            )
        )

    watcher = threading.Thread(target=look)
    watcher.start()
    with pytest.raises(RapidbyteError, match="no"):
        run(pipeline)
    watcher.join()
    assert busy == [0]


def test_the_time_limit_reaches_a_destination_that_waits_for_its_source(
    tmp_path: Path, destination_db: Database
) -> None:
    source = WrittenSource(messages=[a_schema()], never_answers=True)
    section = {"limits": {"timeout_seconds": 1}}
    pipeline = written(tmp_path, source, destination_db, destination_section=section)
    token = CancelToken()
    threading.Timer(5, token.cancel).start()
    with pytest.raises(RapidbyteError) as caught:
        run(pipeline, cancel=token)
    assert caught.value.kind is Kind.TIMEOUT
    assert isinstance(caught.value, DestinationError)


def test_a_run_that_is_cancelled_while_it_commits_does_not_claim_that_nothing_was_written(
    tmp_path: Path, notes_db: Database, destination_db: Database
) -> None:
    """A deferred constraint trigger makes the COMMIT itself slow."""
    destination_db.execute(
        "CREATE SCHEMA raw; CREATE TABLE raw.notes (id int, body text);"
        " CREATE FUNCTION raw.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(3); RETURN NULL; END';"
        " CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON raw.notes DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION raw.slow()"
    )
    token = CancelToken()
    threading.Timer(1.5, token.cancel).start()
    started = time.monotonic()
    with pytest.raises(RunCancelled, match="may be in the table"):
        run(make_pipeline(tmp_path, notes_db, destination_db, ["notes"]), cancel=token)
    assert time.monotonic() - started < 3.5
