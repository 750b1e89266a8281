"""A first load that is interrupted goes on with the pieces that are missing, and is the table of one moment all the same."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.errors import RapidbyteError
from tests.cdc.conftest import Replicate
from tests.cdc.replication import LANDING, Replication
from tests.cdc.worker import Job, start
from tests.postgres_server import Database
from tests.recovery.proxy import Moment, Proxy
from tests.recovery.trial import GOING_SECONDS, LEFTOVERS
from tests.recovery.worker import Worker

PIECE_BYTES = 64 * 1024
ROWS = 2400
ITEMS = f"""
    CREATE TABLE items (id int PRIMARY KEY, name text, big text);
    ALTER TABLE items ALTER big SET STORAGE EXTERNAL;
    INSERT INTO items SELECT i, repeat('x', 150), CASE WHEN i % 100 = 0 THEN repeat(i::text, 1500) END
    FROM generate_series(1, {ROWS}) i;
"""
"""Some 60 blocks of rows, and as many of values beside them."""

PIECE = "INSERT INTO [^ ]*_rapidbyte_shards_[0-9a-f]+\\S* \\(shard"
PRUNED = "DELETE FROM [^ ]*_rapidbyte_staged_"
AMENDED = "COMMENT ON TABLE"
PUBLISHED = "_rapidbyte_watermarks"


@dataclass
class Load:
    """Of a pipeline whose connections to its destination can be cut."""

    replication: Replication
    proxy: Proxy
    log: list[str] = field(default_factory=list)

    def run(self, **options: Any) -> StreamResult:
        self.log = []
        results = self.replication.catch_up(
            piece_bytes=PIECE_BYTES, on_log=lambda _, line: self.log.append(line), **options
        )
        return next(iter(results.values()))

    def interrupt(self, within: str = PIECE, nth: int = 4, **options: Any) -> None:
        """At the `nth` commit of that kind, which does not arrive."""
        self.proxy.arm(Moment("^COMMIT", "arrives", nth, within=within))
        with pytest.raises(RapidbyteError):
            self.run(**options)
        assert self.proxy.struck.is_set(), self.proxy.statements

    @property
    def pieces(self) -> int:
        """In how many the table is divided."""
        return int(self._told(r"the table is read in (\d+) pieces")[0])

    @property
    def taken_up(self) -> int | None:
        """How many of them an earlier run had loaded."""
        told = self._told(r"goes on with a load that was interrupted: (\d+) of \d+ pieces are there")
        return int(told[0]) if told else None

    @property
    def kept_and_gone(self) -> tuple[int, int]:
        """Rows of these that stayed, and that went."""
        kept, gone = self._told(r"(\d+) rows stay, (\d+) are gone or have changed")
        return int(kept), int(gone)

    def _told(self, pattern: str) -> tuple[str, ...]:
        found = [match.groups() for line in self.log if (match := re.search(pattern, line))]
        return found[0] if found else ()

    def assert_complete(self) -> None:
        """The table is the source's, now and after another change, and nothing is left behind."""
        self.replication.assert_mirrors()
        self.replication.source.execute("INSERT INTO items (id, name) VALUES (-77, 'afterwards')")
        self.replication.catch_up()
        self.replication.assert_mirrors()
        assert [one for [one] in self.replication.destination.fetch(LEFTOVERS, superuser=True)] == []


MakeLoad = Callable[..., Load]


@pytest.fixture
def make_load(replicate: Replicate, destination: Database) -> Iterator[MakeLoad]:
    """Options are those of `Replication`; `parallelism` is the pipeline's."""
    with Proxy(destination) as proxy:

        def make(definition: str = ITEMS, *, parallelism: int = 1, max_retries: int = 0, **options: Any) -> Load:
            stream = {"name": "items", **options.pop("stream", {})}
            replication = replicate(
                stream,
                sections={"resources": {"parallelism": parallelism, "max_retries": max_retries}},
                destination_config=proxy.config(destination),
                **options,
            )
            replication.source.execute(definition)
            return Load(replication, proxy)

        yield make


def test_a_load_goes_on_with_the_pieces_that_are_missing(make_load: MakeLoad) -> None:
    load = make_load()
    load.interrupt(nth=4)
    pieces = load.pieces
    assert pieces > 6
    result = load.run()
    assert load.taken_up == 3
    kept, gone = load.kept_and_gone
    assert 0 < kept < ROWS
    assert gone == 0
    assert result.rows == ROWS
    load.assert_complete()
