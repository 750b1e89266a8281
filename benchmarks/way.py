"""A way to move `events` from the database `source` to the schema `raw` of the database `destination`.

Each is one command, run in a folder of its own, over TCP, as the same role with the same authentication.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import quote

from typing_extensions import LiteralString

from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

SOURCE, DESTINATION = "source", "destination"

Before = Literal["absent", "empty", "left", "copied", "continued"]
"""What a way finds at the destination, and in its folder.

absent     no table
empty      the table, without rows
left       what the run before left
copied     the table with what the source held at first, copied by hand
continued  what the way's own run left when the source held what it held at first

The last two are restored before each run.
"""


class CommandOf(Protocol):
    def __call__(self, server: EmbeddedPostgres, folder: Path) -> list[str]: ...


@dataclass(frozen=True)
class Told:
    """What a command says of its own run."""

    seconds: float | None
    """From connections open to commit; None: of the whole process."""
    rows: int
    """Moved."""


@dataclass(frozen=True)
class Way:
    """One way to move the table."""

    name: str
    """Unique in its scenario."""
    title: str
    command: CommandOf
    before: Before
    told: Callable[[str], Told] | None = None
    """Reads what the command printed; None: it says nothing, and its time is that of the whole process."""
    needs: tuple[str, ...] = ()
    """Python modules."""
    environment: Mapping[str, str] = field(default_factory=dict)
    keyed: bool = False
    """The destination's table has a primary key, although the source's has none."""
    theirs: bool = False
    """It tells of its run, and does not go through this engine."""
    fits: LiteralString | None = None
    """The CHECK of the table that is `empty` before each run: the rows that fail it are to be left out."""

    @property
    def missing(self) -> list[str]:
        return [module for module in self.needs if importlib.util.find_spec(module) is None]

    @property
    def ours(self) -> bool:
        """Whether it goes through this engine: goals are for these."""
        return self.told is not None and not self.theirs


def url(server: EmbeddedPostgres, database: str) -> str:
    """Of `database`, for libpq and for SQLAlchemy."""
    return f"postgresql://{USER}:{quote(server.password)}@{server.host}:{server.port}/{database}"
