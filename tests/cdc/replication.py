"""A pipeline of `cdc` streams between two databases, from outside: started, watched, and held against its source."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapidbyte_dagster.config import Pipeline, load_pipeline
from rapidbyte_dagster.engine import CancelToken, SlotResult, StreamResult, run_slot
from rapidbyte_dagster.engine.capture.runner import PIECE_BYTES
from rapidbyte_dagster.engine.result import ProgressListener
from rapidbyte_dagster.state import open_state
from tests.pipelines import write_pipeline
from tests.postgres_server import Database
from tests.roundtrip.comparison import Table, assert_same

PIPELINE = "replica"
SLOT = "rapidbyte_replica"
LANDING = "raw"
"""The names of the pipeline, of what it makes at the source by default, and of the schema of its tables."""

WAIT_SECONDS = 30.0


@dataclass
class Replication:
    """`streams` are tables' names, or mappings of a stream's keys; sections go into the pipeline's file.

    `source_config` and `destination_config` replace the databases' own, to lead through a proxy.
    """

    folder: Path
    source: Database
    destination: Database
    streams: Sequence[str | Mapping[str, Any]]
    write_mode: str = "upsert"
    source_config: Mapping[str, Any] | None = None
    destination_config: Mapping[str, Any] | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)

    def write(self) -> Path:
        """The pipeline's file, as it is to be now."""
        streams = [{"name": one} if isinstance(one, str) else one for one in self.streams]
        return write_pipeline(
            self.folder,
            self.source_config or self.source.config,
            {**(self.destination_config or self.destination.config), "schema": LANDING},
            [{"sync_mode": "cdc", **one} for one in streams],
            name=PIPELINE,
            write_mode=self.write_mode,
            **self.sections,
        )

    @property
    def pipeline(self) -> Pipeline:
        return load_pipeline(self.write())

    # Runs

    def run(
        self,
        *,
        group: str | None = None,
        streams: Collection[str] | None = None,
        full_refresh: Collection[str] = (),
        tail_seconds: float | None = None,
        cancel: CancelToken | None = None,
        on_log: Callable[[int, str], None] | None = None,
        on_progress: ProgressListener | None = None,
        piece_bytes: int = PIECE_BYTES,
    ) -> SlotResult:
        """One run of a slot, the first unless named, however its streams end."""
        pipeline = self.pipeline
        chosen = next(one for one in pipeline.slot_groups if group in (None, one.name))
        with open_state(pipeline, {}) as state:
            return run_slot(
                pipeline,
                chosen,
                state=state,
                run_id=str(uuid.uuid4()),
                environ={},
                streams=streams,
                full_refresh=full_refresh,
                tail_seconds=tail_seconds,
                cancel=cancel,
                on_log=on_log,
                on_progress=on_progress,
                piece_bytes=piece_bytes,
            )

    def catch_up(self, **options: Any) -> dict[str, StreamResult]:
        """A run in which no stream may fail."""
        results = self.run(**options).streams
        for outcome in results.values():
            if isinstance(outcome, Exception):
                raise outcome
        return {name: outcome for name, outcome in results.items() if isinstance(outcome, StreamResult)}

    # What is there

    def table(self, name: str) -> str:
        return Table(self.destination, LANDING, name).quoted

    def rows(self, name: str, columns: str = "*", order: str = "1, 2") -> list[tuple[Any, ...]]:
        """Of the destination's table."""
        return self.destination.fetch(f"SELECT {columns} FROM {self.table(name)} ORDER BY {order}")

    def history(self, name: str, columns: str = "_rb_op, id") -> list[tuple[Any, ...]]:
        """In the order in which it happened."""
        return self.rows(name, columns, "_rb_lsn, _rb_seq")

    def position(self, stream: str) -> str:
        """Up to which the destination has everything of a stream."""
        return str(
            self.destination.fetch_value(
                f"SELECT cursor->>'lsn' FROM {LANDING}._rapidbyte_watermarks WHERE stream = %s", [stream]
            )
        )

    def slot_position(self, slot: str = SLOT) -> str:
        """What the slot has been told not to send again."""
        return str(
            self.source.fetch_value("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s", [slot])
        )

    def is_behind(self, a: str, b: str) -> bool:
        """Whether position `a` is before `b`."""
        return bool(self.source.fetch_value("SELECT %s::pg_lsn < %s::pg_lsn", [a, b]))

    def wait_until(self, sql: str, *, database: Database | None = None, why: str = "") -> None:
        """Until the query's one value is true; of the source, unless told otherwise."""
        wait_until(lambda: (database or self.source).fetch_value(sql) is True, why or sql)

    # What must hold

    def assert_mirrors(self, *tables: str, columns: Sequence[str] | None = None, keyed: bool = True) -> None:
        """Tables (all streams', unless named) with their types, nullability, keys and rows are those of the source."""
        for name in tables or [one if isinstance(one, str) else str(one["name"]) for one in self.streams]:
            assert_same(
                Table(self.source, "public", name), Table(self.destination, LANDING, name), columns, keyed=keyed
            )


def wait_until(holds: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {why}"
        time.sleep(0.02)


@contextlib.contextmanager
def in_background(work: Callable[[], object]) -> Iterator[None]:
    """`work` in a thread while the block runs, which waits for its end; what it raises is raised there."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001  a thread's edge
            failures.append(failure)

    thread = threading.Thread(target=run, name="background")
    thread.start()
    try:
        yield
    finally:
        thread.join(2 * WAIT_SECONDS)
        assert not thread.is_alive(), "what runs in the background does not end"
    if failures:
        raise failures[0]
