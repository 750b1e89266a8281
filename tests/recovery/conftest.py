"""The trial that each test of this folder is: two databases, with a proxy before either."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgres_server import Database
from tests.recovery.cells import Cell
from tests.recovery.proxy import Proxy
from tests.recovery.trial import Trial

MakeTrial = Callable[..., Trial]


@pytest.fixture
def make_trial(tmp_path: Path, source_db: Database, destination_db: Database) -> Iterator[MakeTrial]:
    """A trial of one cell, not begun yet; further arguments are those of `Trial`."""
    with contextlib.ExitStack() as proxies:

        def make(cell: Cell, **options: Any) -> Trial:
            pair = [proxies.enter_context(Proxy(database)) for database in (source_db, destination_db)]
            return Trial(tmp_path, source_db, destination_db, cell, *pair, **options)

        yield make
