"""A PostgreSQL server that goes down in the middle of a test, and comes back with what it has acknowledged."""

from __future__ import annotations

from pathlib import Path

from demo.embedded_postgres import EmbeddedPostgres

# Asynchronous commits, which the tests' other servers have, may be gone after a crash although they were acknowledged.
KEEPS_ITS_WORD = {"synchronous_commit": "on"}


def make_mortal(folder: Path) -> EmbeddedPostgres:
    """Its data is in `folder`, and outlives it. To be entered (`with`)."""
    return EmbeddedPostgres(folder, durable=False, settings=KEEPS_ITS_WORD)


def crash(server: EmbeddedPostgres) -> None:
    server.crash()
    server.start()


def restart(server: EmbeddedPostgres) -> None:
    server.stop()
    server.start()
