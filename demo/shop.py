"""The demo's databases: `shop`, seeded, and `warehouse`, where the pipeline puts its tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

SEED_FILE = Path(__file__).with_name("shop.sql")
SEED_LOCK = 0x5EED


@dataclass(frozen=True)
class Shop:
    """The running server with both databases on it."""

    server: EmbeddedPostgres

    def environment(self) -> dict[str, str]:
        """The variables that `pipelines/shop.yaml` asks for."""
        return {
            f"{database}_{name}": value
            for database in ("SHOP", "WAREHOUSE")
            for name, value in (
                ("HOST", self.server.host),
                ("PORT", str(self.server.port)),
                ("USER", USER),
                ("PASSWORD", self.server.password),
            )
        }

    def count(self, database: str, table: str) -> int:
        """The rows of `table`, which is written as SQL."""
        with psycopg.connect(self.server.dsn(database, user=USER)) as connection:
            row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
        assert row is not None
        return int(row[0])


@contextlib.contextmanager
def open_shop(folder: Path) -> Iterator[Shop]:
    """Starts the server that keeps its data in `folder`, or joins it, and seeds what is not seeded yet."""
    with EmbeddedPostgres(folder) as server:
        with server.connect() as connection:
            # Two demos at once: the second waits until the first has made the databases.
            connection.execute("select pg_advisory_lock(%s)", [SEED_LOCK])
            made = {name for (name,) in connection.execute("select datname from pg_database")}
            for name in {"shop", "warehouse"} - made:
                server.create_database(name)
            _seed(server)
        yield Shop(server)


def _seed(server: EmbeddedPostgres) -> None:
    script = SEED_FILE.read_text()
    with psycopg.connect(server.dsn("shop", user=USER)) as connection:
        mark = connection.execute("select md5(%s)", [script]).fetchone()
        assert mark is not None
        found = connection.execute(
            "select shobj_description(oid, 'pg_database') from pg_database where datname = 'shop'"
        ).fetchone()
        if found == (f"seeded {mark[0]}",):
            return
        # One transaction: a demo that is interrupted here leaves no half of a shop.
        connection.execute(script.encode())
        connection.execute(f"comment on database shop is 'seeded {mark[0]}'".encode())
