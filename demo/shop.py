"""The demo's databases: `shop`, seeded, and `warehouse`, where the pipeline puts its tables."""

from __future__ import annotations

import contextlib
import hashlib
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
        """The variables that the pipelines in `pipelines/` ask for."""
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
            script = SEED_FILE.read_text()
            mark = f"seeded {hashlib.md5(script.encode()).hexdigest()}"
            found = connection.execute(
                "select shobj_description(oid, 'pg_database') from pg_database where datname = 'shop'"
            ).fetchone()
            if found != (mark,):
                _seed(server, script, mark)
        yield Shop(server)


def _seed(server: EmbeddedPostgres, script: str, mark: str) -> None:
    """Makes both databases anew: of a shop that begins again, what was copied and read of it is nobody's past."""
    for name in ("shop", "warehouse"):
        server.drop_database(name)
        server.create_database(name)
    with psycopg.connect(server.dsn("shop", user=USER)) as connection:
        # One transaction: a demo that is interrupted here leaves no half of a shop.
        connection.execute(script.encode())
        connection.execute(f"comment on database shop is '{mark}'".encode())
