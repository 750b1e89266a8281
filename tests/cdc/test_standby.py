"""Changes that are read from a standby server, where nothing can be written."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.account import Account
from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.engine import run_slot
from rapidbyte_dagster.engine.capture.reconciliation import verify
from rapidbyte_dagster.engine.capture.slots import slot_status
from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.state import open_state
from tests.pipelines import write_pipeline
from tests.postgres_server import Database
from tests.recovery.proxy import Moment, Proxy

# A standby's must not be lower than its primary's.
SETTINGS = ("wal_level", "max_connections", "max_wal_senders", "max_replication_slots")


@contextmanager
def standby_of(primary: EmbeddedPostgres) -> Iterator[dict[str, Any]]:
    """A standby of `primary` beside it, as a connector's config without a database."""
    account, programs, folder = Account.choose(), primary.installation.bin, primary.folder / "standby"
    server = ["-h", primary.host, "-p", str(primary.port), "-U", "postgres"]
    copied = account.run(
        [str(programs / "pg_basebackup"), "-D", str(folder), "-R", *server], env={"PGPASSWORD": primary.password}
    )
    assert copied.returncode == 0, copied.stderr
    with primary.connect() as connection:
        values = {name: connection.execute("select current_setting(%s)", [name]).fetchone() for name in SETTINGS}
    with socket.create_server((primary.host, 0)) as free:
        port = free.getsockname()[1]
    settings = [f"{name}={value[0]}" for name, value in values.items() if value]
    settings += [
        f"port={port}",
        f"unix_socket_directories={primary.socket_folder}",
        "hot_standby_feedback=on",
        f"primary_conninfo=host={primary.host} port={primary.port} user=postgres password={primary.password}",
    ]
    command = [str(programs / "postgres"), "-D", str(folder), *(word for each in settings for word in ("-c", each))]
    process = subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL, **account.popen_options())
    try:
        yield {"host": primary.host, "port": port, "user": "etl", "password": primary.password}
    finally:
        process.terminate()
        process.wait()


@contextmanager
def records_of_running_transactions(primary: Database) -> Iterator[None]:
    """What a slot of a standby begins at, and an idle primary writes seldom."""
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.1):
            primary.execute("select pg_log_standby_snapshot()", superuser=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def wait_for(config: dict[str, Any], primary: Database) -> None:
    """Until the standby has what the primary has."""
    written = primary.fetch_value("select pg_current_wal_insert_lsn()::text")
    target = " ".join(
        f"{key}={value}" for key, value in {**config, "dbname": config["database"]}.items() if key != "database"
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with psycopg.connect(target, autocommit=True) as connection:
                replayed = connection.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", [written]).fetchone()
            if replayed == (True,):
                return
        except psycopg.OperationalError:
            pass
        time.sleep(0.05)
    raise AssertionError("the standby does not follow")


@pytest.mark.full
def test_a_standby_is_a_source_whose_publication_its_primary_makes(tmp_path: Path) -> None:
    with EmbeddedPostgres(durable=False, settings={"synchronous_commit": "on"}) as server:
        for name in ("shop", "warehouse"):
            server.create_database(name)
        primary, warehouse = Database(server, "shop"), Database(server, "warehouse")
        primary.execute("create table users (id int primary key, v text); insert into users values (1, 'a')")
        with standby_of(server) as found:
            config = {**found, "database": "shop"}
            stream = {"name": "users", "sync_mode": "cdc"}
            path = write_pipeline(
                tmp_path, config, {**warehouse.config, "schema": "raw"}, [stream], write_mode="upsert"
            )
            pipeline = load_pipeline(path)
            [group] = pipeline.slot_groups
            wait_for(config, primary)
            with open_state(pipeline, os.environ) as state, records_of_running_transactions(primary):

                def run() -> None:
                    run_slot(pipeline, group, state=state, run_id=str(uuid.uuid4()))

                with pytest.raises(RapidbyteError) as caught:
                    run()
                assert caught.value.info.kind is Kind.PERMISSION
                assert "connect to the primary server" in (caught.value.hint or "")
                primary.execute("create publication rapidbyte_shop for table users")
                wait_for(config, primary)
                run()
                before = slot_status(pipeline, group).change_counter
                primary.execute("insert into users values (2, 'b'); update users set v = 'c' where id = 1")
                wait_for(config, primary)
                assert slot_status(pipeline, group).change_counter != before
                run()
                assert warehouse.fetch("select id, v from raw.users order by id") == [(1, "c"), (2, "b")]
                compared = verify(pipeline, group, state=state, run_id=str(uuid.uuid4()))
                assert compared["users"].matches


@pytest.mark.full
def test_a_load_from_a_standby_goes_on_and_begins_again_where_the_standby_was_promoted(tmp_path: Path) -> None:
    """What committed on the old primary behind the promotion never happened on the new one, under the same numbers."""
    with EmbeddedPostgres(durable=False, settings={"synchronous_commit": "on"}) as server:
        for name in ("shop", "warehouse"):
            server.create_database(name)
        primary, warehouse = Database(server, "shop"), Database(server, "warehouse")
        primary.execute(
            "create table users (id int primary key, v text); create publication rapidbyte_shop for table users;"
            "insert into users select n, repeat('x', 150) from generate_series(1, 2400) n"
        )
        with standby_of(server) as found, Proxy(warehouse) as proxy:
            config = {**found, "database": "shop"}
            pipeline = load_pipeline(
                write_pipeline(
                    tmp_path,
                    config,
                    {**proxy.config(warehouse), "schema": "raw"},
                    [{"name": "users", "sync_mode": "cdc"}],
                    write_mode="upsert",
                    resources={"parallelism": 1, "max_retries": 0},
                )
            )
            [group] = pipeline.slot_groups
            wait_for(config, primary)
            lines: list[str] = []
            with open_state(pipeline, os.environ) as state:

                def run(*, interrupted: bool = False, full_refresh: tuple[str, ...] = ()) -> str:
                    lines.clear()
                    if interrupted:
                        proxy.arm(Moment("^COMMIT", "arrives", 4, within="INSERT INTO [^ ]*_rapidbyte_shards_"))
                    with pytest.raises(RapidbyteError) if interrupted else nullcontext():
                        run_slot(
                            pipeline,
                            group,
                            state=state,
                            run_id=str(uuid.uuid4()),
                            full_refresh=full_refresh,
                            piece_bytes=64 * 1024,
                            on_log=lambda _, line: lines.append(line),
                        )
                    return "\n".join(lines)

                with records_of_running_transactions(primary):
                    run(interrupted=True)
                    primary.execute("update users set v = 'new' where id % 10 = 1; delete from users where id % 10 = 2")
                    wait_for(config, primary)
                    assert "3 of" in run()
                    content = "select id, v from {}users order by id"
                    assert warehouse.fetch(content.format("raw.")) == primary.fetch(content.format(""))
                    run(interrupted=True, full_refresh=("users",))
                    wait_for(config, primary)
                target = " ".join(f"{k}={v}" for k, v in {**found, "user": "postgres", "dbname": "shop"}.items())
                with psycopg.connect(target, autocommit=True) as standby:
                    assert standby.execute("select pg_promote()").fetchone() == (True,)
                    standby.execute("update users set v = 'promoted' where id % 10 = 3")
                    told = run(full_refresh=("users",))
                    assert "the load that was interrupted is of no use" in told
                    assert "goes on with" not in told
                    assert warehouse.fetch(content.format("raw.")) == standby.execute(content.format("")).fetchall()
