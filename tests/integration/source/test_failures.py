"""What can go wrong with a table or a server: one clear error each, and never the end of the data."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import Kind, RapidbyteError, RunCancelled, SourceError
from tests.integration.source.reading import Collected, open_argument, open_source, read_stream, stream_argument
from tests.postgres_server import Database, unique_name


def failure(config: dict[str, Any], name: str, **stream: Any) -> RapidbyteError:
    with pytest.raises(RapidbyteError) as caught:
        read_stream(config, name, **stream)
    assert config["password"] not in str(caught.value)
    return caught.value


def test_a_missing_table_is_not_found_with_names_that_are_near(source_db: Database) -> None:
    source_db.execute('create table "Users" (a int); create schema crm; create table crm.users (a int)')
    error = failure(source_db.config, "users")
    assert error.kind is Kind.NOT_FOUND
    assert error.info.message == "there is no table public.users"
    assert error.hint == 'did you mean public."Users" or crm.users?'
    assert failure(source_db.config, "zzz").hint == "check the stream's `name` and `schema`; case matters"


def test_missing_columns_are_all_named_with_those_that_exist(source_db: Database) -> None:
    source_db.execute("create table t (id int, email text)")
    error = failure(source_db.config, "t", columns=["id", "mail", "nmae"])
    assert error.kind is Kind.NOT_FOUND
    assert error.info.message == "public.t has no such column: mail, nmae"
    assert error.hint == "its columns are: id, email"


def test_what_is_no_table_cannot_be_read(source_db: Database) -> None:
    source_db.execute("create sequence s; create table t (a int primary key)")
    assert failure(source_db.config, "s").kind is Kind.UNSUPPORTED
    assert failure(source_db.config, "t_pkey").kind is Kind.UNSUPPORTED


def test_a_missing_privilege_is_a_permission_error(source_db: Database) -> None:
    role = unique_name("outsider")
    source_db.server.create_role(role, password="outsider-secret")
    source_db.execute(
        f"""
        create table t (a int, b int);
        create schema closed;
        create table closed.t (a int);
        grant select on closed.t to {role};
        """
    )
    config = {**source_db.config, "user": role, "password": "outsider-secret"}
    error = failure(config, "t")
    assert error.kind is Kind.PERMISSION
    assert "permission denied for table t" in error.info.message
    assert failure(config, "t", schema="closed").kind is Kind.PERMISSION
    source_db.execute(f"grant select (a) on t to {role}; insert into t values (1, 2)")
    assert failure(config, "t").kind is Kind.PERMISSION
    assert read_stream(config, "t", columns=["a"]).column("a") == [1]


def test_other_sync_modes_are_not_supported_yet(source_db: Database) -> None:
    source_db.execute("create table t (a int)")
    error = failure(source_db.config, "t", sync_mode="snapshot")
    assert error.kind is Kind.UNSUPPORTED
    assert "not supported yet" in error.info.message


def test_a_row_that_the_server_cannot_compute_is_its_error(source_db: Database) -> None:
    source_db.execute("create view v as select 1000 / (500 - n) as a from generate_series(1, 1000) n")
    error = failure(source_db.config, "v")
    assert error.kind is Kind.DATA
    assert error.info.sqlstate == "22012"
    assert "reading public.v: division by zero" in error.info.message


class InterruptedAt(Collected):
    """Does something once, when the n-th message is handed over."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        super().__init__()
        self._number = number
        self._act = act

    def emit(self, message: bytes | bytearray) -> None:
        super().emit(message)
        if len(self.messages) == self._number:
            self._act()


def big_table(database: Database) -> None:
    database.execute("create table big as select n, repeat('x', 500) as filler from generate_series(1, 200000) n")


def backends(database: Database) -> list[int]:
    return [
        pid
        for (pid,) in database.fetch("select pid from pg_stat_activity where application_name = 'rapidbyte/shop/big'")
    ]


def test_a_session_ended_by_an_administrator_mid_copy_is_not_the_end_of_the_data(source_db: Database) -> None:
    big_table(source_db)

    def terminate() -> None:
        [pid] = backends(source_db)
        source_db.execute(f"select pg_terminate_backend({pid})", superuser=True)

    host = InterruptedAt(3, terminate)
    with pytest.raises(SourceError) as caught:
        read_stream(source_db.config, "big", host=host)
    assert caught.value.kind in (Kind.TRANSIENT_DB, Kind.TRANSIENT_NETWORK)
    assert caught.value.kind.retryable
    assert host.barriers == []


def test_a_backend_killed_mid_copy_is_a_network_error_and_not_the_end_of_the_data(
    own_postgres: EmbeddedPostgres,
) -> None:
    own_postgres.create_database("doomed")
    database = Database(own_postgres, "doomed")
    big_table(database)

    def kill() -> None:
        [pid] = backends(database)
        os.kill(pid, signal.SIGKILL)

    host = InterruptedAt(3, kill)
    with pytest.raises(SourceError) as caught:
        read_stream(database.config, "big", host=host)
    assert caught.value.kind.retryable
    assert "reading public.big" in caught.value.info.message
    assert host.barriers == []
    # The server restarts all its sessions after such a crash; a stop in the middle of that would take long.
    until_reachable(database)


def until_reachable(database: Database) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return database.execute("select 1")
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_read_that_waits_for_a_lock_can_be_cancelled(source_db: Database) -> None:
    source_db.execute("create table t (a int)")
    with source_db.connect() as blocker:
        blocker.execute("begin; lock table t in access exclusive mode")
        with open_source(Collected(), source_db.config) as instance:
            instance.call("rb_open", open_argument(source_db.config, "t"))
            threading.Timer(0.5, instance.cancel).start()
            started = time.monotonic()
            argument = {"stream": stream_argument("t"), "cursor": None, "max_batch_bytes": 1 << 20}
            with pytest.raises(RunCancelled):
                instance.call("rb_read", argument)
            assert time.monotonic() - started < 5
        blocker.execute("rollback")


def test_a_host_that_refuses_a_batch_ends_the_read_with_its_own_reason(source_db: Database) -> None:
    big_table(source_db)

    def refuse() -> None:
        raise SourceError("the channel is full for good", kind=Kind.RESOURCE)

    with pytest.raises(RapidbyteError, match="full for good"):
        read_stream(source_db.config, "big", host=InterruptedAt(2, refuse))
