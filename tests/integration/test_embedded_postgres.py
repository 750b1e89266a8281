"""The server that every other integration test stands on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import Auth
from tests.postgres_server import Database, TlsServer, unique_name

ROOT = Path(__file__).parents[2]
GONE_SECONDS = 20.0

ABANDON = """
import os, signal
from demo.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(durable=False).start()
print(server.port, server.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the server's account may enter; pytest's own are closed to it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_every_test_gets_databases_of_its_own(source_db: Database, destination_db: Database) -> None:
    source_db.execute("create table t (id int); insert into t values (1), (2)")
    assert source_db.fetch("select id from t order by id") == [(1,), (2,)]
    assert destination_db.fetch("select relname from pg_class where relname = 't'") == []


def test_the_server_listens_on_tcp_and_on_a_unix_socket(postgres: EmbeddedPostgres) -> None:
    for unix_socket in (False, True):
        with psycopg.connect(postgres.dsn("postgres", user="etl", unix_socket=unix_socket)) as connection:
            assert connection.execute("show wal_level").fetchone() == ("logical",)
            assert connection.pgconn.used_password


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password", "trust"])
def test_a_role_logs_in_by_the_method_it_was_created_with(postgres: EmbeddedPostgres, auth: Auth) -> None:
    role = unique_name("role")
    postgres.create_role(role, password="right", auth=auth)
    with psycopg.connect(postgres.dsn("postgres", user=role, password="right")) as connection:
        assert bool(connection.pgconn.used_password) == (auth != "trust")
    if auth != "trust":
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.dsn("postgres", user=role, password="wrong"))


def test_a_crashed_server_comes_back_on_the_same_port(own_postgres: EmbeddedPostgres) -> None:
    port = own_postgres.port
    own_postgres.crash()
    with pytest.raises(psycopg.OperationalError):
        own_postgres.connect()
    own_postgres.start()
    with own_postgres.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert own_postgres.port == port


def test_a_server_ends_with_the_process_that_started_it_even_when_that_is_killed() -> None:
    owner = subprocess.run([sys.executable, "-c", ABANDON], cwd=ROOT, capture_output=True, text=True)
    assert owner.returncode == -signal.SIGKILL, owner.stderr
    port, folder = owner.stdout.split()
    deadline = time.monotonic() + GONE_SECONDS
    while os.path.exists(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(folder)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(host="127.0.0.1", port=port, user="etl", dbname="postgres")


def test_a_kept_server_is_joined_by_a_second_process_and_keeps_its_data(open_folder: Path) -> None:
    with EmbeddedPostgres(open_folder / "server", durable=False) as first:
        first.create_database("kept")
        second = EmbeddedPostgres(open_folder / "server", durable=False).start()
        assert (second.port, second.ours) == (first.port, False)
        second.stop()
        with first.connect("kept") as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    with EmbeddedPostgres(open_folder / "server", durable=False) as again, again.connect("kept") as connection:
        assert connection.execute("select current_database()").fetchone() == ("kept",)


def test_the_tls_server_verifies_and_is_verified(tls_postgres: TlsServer) -> None:
    server = tls_postgres.server
    with psycopg.connect(
        server.dsn("postgres", user="etl"), sslmode="verify-full", sslrootcert=str(tls_postgres.root_certificate)
    ) as connection:
        assert connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone() == (True,)
    with psycopg.connect(
        server.dsn("postgres", user="etl_cert"),
        sslmode="require",
        sslcert=str(tls_postgres.cert_certificate),
        sslkey=str(tls_postgres.cert_key),
    ) as connection:
        assert not connection.pgconn.used_password
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(
            server.dsn("postgres", user="etl"),
            sslmode="verify-ca",
            sslrootcert=str(tls_postgres.other_root_certificate),
        )
