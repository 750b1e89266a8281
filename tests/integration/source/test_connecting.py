"""From no session to a session: every way to log in, every way to be refused."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.runtime import NoData
from tests.integration.source.reading import check, open_argument, open_source, read_stream
from tests.postgres_server import Database, TlsServer, unique_name


def greeting(config: Mapping[str, Any]) -> str:
    """What `rb_open` says of the server."""
    with open_source(NoData(), config) as instance:
        return str(instance.call("rb_open", open_argument(config))["server"])


def refusal(config: Mapping[str, Any]) -> RapidbyteError:
    with pytest.raises(RapidbyteError) as caught:
        greeting(config)
    password = config.get("password")
    assert not password or password not in str(caught.value)
    return caught.value


Auth = Literal["scram-sha-256", "md5", "password", "trust"]


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password", "trust"])
def test_each_way_to_authenticate_works(source_db: Database, auth: Auth) -> None:
    role = unique_name("reader")
    secret = "p'ä\"ss\\word $1" if auth != "trust" else "unused"
    source_db.server.create_role(role, password=secret, auth=auth)
    config = {**source_db.config, "user": role, "password": secret}
    assert greeting(config).startswith("PostgreSQL ")
    if auth == "trust":
        del config["password"]
        assert greeting(config).startswith("PostgreSQL ")
        return
    wrong = refusal({**config, "password": "not-this-one"})
    assert wrong.kind is Kind.AUTH
    assert wrong.info.sqlstate == "28P01"
    assert role in wrong.info.message
    assert wrong.hint == "check `user` and `password`"
    del config["password"]
    missing = refusal(config)
    assert missing.kind is Kind.AUTH
    assert "none is configured" in missing.info.message


def test_a_role_that_the_server_rejects_is_told_about_pg_hba(source_db: Database) -> None:
    role = unique_name("nobody")
    source_db.server.create_role(role, password="rejected-secret", auth="reject")
    error = refusal({**source_db.config, "user": role, "password": "rejected-secret"})
    assert error.kind is Kind.AUTH
    assert error.info.sqlstate == "28000"
    assert "pg_hba.conf" in (error.hint or "")


def test_an_unknown_database_is_not_found(source_db: Database) -> None:
    error = refusal({**source_db.config, "database": "no_such_database"})
    assert error.kind is Kind.NOT_FOUND
    assert 'database "no_such_database" does not exist' in error.info.message


def test_a_unix_socket_is_reached_by_its_directory(source_db: Database) -> None:
    source_db.execute("create table t as select 1 as a")
    assert read_stream(source_db.socket_config, "t").column("a") == [1]
    assert refusal({**source_db.socket_config, "sslmode": "verify-full"}).kind is Kind.CONFIG


def test_a_port_where_nobody_listens_is_a_network_error(source_db: Database) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert refusal({**source_db.config, "port": port}).kind is Kind.TRANSIENT_NETWORK


@contextmanager
def answering(*answers: bytes) -> Iterator[dict[str, Any]]:
    """A server that answers each connection with fixed bytes, whatever it is asked; its config."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield {
            "host": "127.0.0.1",
            "port": listener.getsockname()[1],
            "user": "etl",
            "password": "guarded",
            "database": "shop",
            "sslmode": "disable",
        }
        thread.join(10)


def test_a_peer_that_is_no_postgresql_is_a_protocol_error() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as config:
        assert refusal(config).kind in (Kind.PROTOCOL, Kind.RESOURCE)
    with answering(b"R\x00\x00\x00\x08\x00\x00\x00\x63") as config:
        assert refusal(config).kind is Kind.UNSUPPORTED
    with answering(b"T\x00\x00\x00\x06\x00\x00") as config:
        error = refusal(config)
        assert error.kind is Kind.PROTOCOL
        assert "message 'T'" in error.info.message


def test_a_peer_that_goes_away_at_startup_is_a_network_error() -> None:
    with answering(b"") as config:
        error = refusal(config)
    assert error.kind is Kind.TRANSIENT_NETWORK
    assert "closed the connection while connecting" in error.info.message


def test_a_server_that_does_not_know_the_password_is_found_out() -> None:
    """It says that SCRAM is complete without the signature that only the real server can make."""
    with answering(
        b"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" + b"R\x00\x00\x00\x16\x00\x00\x00\x0bv=AAAAAAAAAA=="
    ) as config:
        assert refusal(config).kind is Kind.PROTOCOL


def test_an_old_server_is_refused_with_its_version() -> None:
    startup = (
        b"R\x00\x00\x00\x08\x00\x00\x00\x00" + b"S\x00\x00\x00\x19server_version\x009.6.2\x00" + b"Z\x00\x00\x00\x05I"
    )
    with answering(startup) as config:
        error = refusal(config)
    assert error.kind is Kind.UNSUPPORTED
    assert "9.6.2" in error.info.message


def tls_config(server: TlsServer, **keys: str) -> dict[str, Any]:
    return {**server.database("postgres").config, "host": "localhost", **keys}


def encrypted(config: Mapping[str, Any]) -> bool:
    """Whether the server says that the session is encrypted."""
    findings = check(config)
    return "over TLS" in findings[0]["message"]


@pytest.mark.parametrize(
    ("sslmode", "expected"),
    [("disable", False), ("prefer", True), ("require", True), ("verify-ca", True), ("verify-full", True)],
)
def test_sslmode_decides_about_tls(tls_postgres: TlsServer, sslmode: str, expected: bool) -> None:
    assert (
        encrypted(tls_config(tls_postgres, sslmode=sslmode, sslrootcert=str(tls_postgres.root_certificate))) is expected
    )


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_a_certificate_of_somebody_elses_authority_is_refused(tls_postgres: TlsServer, sslmode: str) -> None:
    error = refusal(tls_config(tls_postgres, sslmode=sslmode, sslrootcert=str(tls_postgres.other_root_certificate)))
    assert error.kind is Kind.TLS
    # Without an authority to check, `require` only asks for encryption.
    assert encrypted(tls_config(tls_postgres, sslmode="require"))


def test_a_client_certificate_logs_in(tls_postgres: TlsServer) -> None:
    config = tls_config(
        tls_postgres,
        sslmode="verify-full",
        sslrootcert=str(tls_postgres.root_certificate),
        user="etl_cert",
        sslcert=str(tls_postgres.cert_certificate),
        sslkey=str(tls_postgres.cert_key),
    )
    del config["password"]
    assert encrypted(config)


def test_require_refuses_a_server_without_tls_and_prefer_goes_on(source_db: Database) -> None:
    if os.environ.get("PGSSLMODE"):
        pytest.skip("the environment says something about TLS")
    assert greeting({**source_db.config, "sslmode": "prefer"})
    error = refusal({**source_db.config, "sslmode": "require"})
    assert error.kind is Kind.TLS
    assert "does not speak TLS" in error.info.message


def test_prefer_falls_back_to_plain_where_the_server_refuses_tls_for_this_user(tls_postgres: TlsServer) -> None:
    database = tls_postgres.database("postgres")
    config = {**database.config, "host": "localhost", "user": "tls_only", "password": "tls-only-secret"}
    assert encrypted({**config, "sslmode": "prefer"})
    assert refusal({**config, "sslmode": "disable"}).kind is Kind.AUTH
