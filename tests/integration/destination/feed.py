"""Drives dest-postgres without an engine: a host that hands out prepared items, and what came of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import (
    Barrier,
    Connector,
    End,
    Instance,
    Item,
    LogLevel,
    Message,
    NoData,
    Sandbox,
)
from tests.postgres_server import Database

MEMORY_BYTES = 256 * 1024 * 1024
PIPELINE = "shop"

Hook = Callable[[dict[str, Any]], None]


def schema_item(schema: pa.Schema) -> Message:
    return Message(schema.serialize().to_pybytes())


def batch_item(batch: pa.RecordBatch) -> Message:
    return Message(batch.serialize().to_pybytes())


def barrier(sequence: int = 1, *, cursor: Any = None, final: bool = True) -> Barrier:
    return Barrier(json.dumps({"sequence": sequence, "cursor": cursor, "final": final}).encode())


def whole_stream(table: pa.Table, *, sequence: int = 1, cursor: Any = None) -> Iterator[Item]:
    """Schema, batches, the final barrier, the end."""
    yield schema_item(table.schema)
    for batch in table.to_batches():
        yield batch_item(batch)
    yield barrier(sequence, cursor=cursor)
    yield End()


def committed(sequence: int, cursor: Any = None, *, run_id: str | None = "run", final: bool = True) -> dict[str, Any]:
    """The watermark of a commit."""
    return {"sequence": sequence, "cursor": cursor, "run_id": run_id, "final": final}


def column(name: str, arrow_type: pa.DataType, pg_type: str | None = None, **more: Any) -> pa.Field[Any]:
    """A field as a source makes it; `kind` is its `pg_kind`, `nullable` as in Arrow."""
    metadata: dict[str | bytes, str | bytes] = {}
    if pg_type is not None:
        metadata = {"rapidbyte:pg_type": pg_type, "rapidbyte:pg_kind": more.get("kind", "base")}
    return pa.field(name, arrow_type, nullable=more.get("nullable", True), metadata=metadata or None)


class Feed(NoData):
    """What the destination sees of the engine: items one after the other, and ears for what it says."""

    def __init__(
        self, items: Iterable[Item], *, on_prepare: Hook | None = None, on_committed: Hook | None = None
    ) -> None:
        self._items = iter(items)
        self._on_prepare = on_prepare
        self._on_committed = on_committed
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.lines: list[tuple[LogLevel, str]] = []
        self.letters: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        """What it told last of how the stream differs from the table."""

    def next(self) -> Item:
        return next(self._items)

    def prepare(self, payload: dict[str, Any]) -> None:
        self.said.append(("prepare", payload))
        if self._on_prepare is not None:
            self._on_prepare(payload)

    def committed(self, payload: dict[str, Any]) -> None:
        self.said.append(("committed", payload))
        if self._on_committed is not None:
            self._on_committed(payload)

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        self.letters += payload["letters"]

    def drift(self, payload: dict[str, Any]) -> None:
        self.changes = payload["changes"]

    def log(self, level: LogLevel, message: str) -> None:
        self.lines.append((level, message))

    def heard(self, text: str) -> bool:
        """Whether a line of the log holds `text`."""
        return any(text in line for _, line in self.lines)


@dataclass(frozen=True)
class Destination:
    """dest-postgres, pointed at a database."""

    connector: Connector
    database: Database
    config: Mapping[str, Any] = field(default_factory=dict)
    """Over the database's own."""

    def with_config(self, **config: Any) -> Destination:
        return Destination(self.connector, self.database, {**self.config, **config})

    def instance(self, host: NoData) -> Instance:
        sandbox = Sandbox(
            allowed_hosts=("*",), readable_files=frozenset(), max_memory=MEMORY_BYTES, timeout_seconds=None
        )
        return Instance(self.connector, host=host, sandbox=sandbox, stage=Stage.DESTINATION)

    def open_argument(
        self, stream: str | None, *, pipeline: str = PIPELINE, run_id: str = "run", shard: int | None = None
    ) -> dict[str, Any]:
        return {
            "config": {**self.database.config, **self.config},
            "pipeline": pipeline,
            "stream": stream,
            "run_id": run_id,
            "shard": shard,
        }

    def write(
        self,
        data: pa.Table | Iterable[Item],
        mode: str = "append",
        *,
        table: str = "users",
        stream: str | None = None,
        schema: str | None = None,
        primary_key: Sequence[str] | None = None,
        sequence: int = 1,
        cursor: Any = None,
        target: str = "any",
        run_id: str = "run",
        schema_evolution: Mapping[str, str] | None = None,
        known_columns: Sequence[Mapping[str, Any]] | None = None,
        on_data_error: str = "fail",
        on_prepare: Hook | None = None,
        on_committed: Hook | None = None,
    ) -> Written:
        """One run of one stream, from `rb_open` to `rb_close`."""
        items = whole_stream(data, sequence=sequence, cursor=cursor) if isinstance(data, pa.Table) else data
        feed = Feed(items, on_prepare=on_prepare, on_committed=on_committed)
        name = stream or table
        described = {
            "name": name,
            "schema": schema,
            "table": table,
            "write_mode": mode,
            "primary_key": None if primary_key is None else list(primary_key),
            "schema_evolution": schema_evolution,
            "known_columns": known_columns,
            "on_data_error": on_data_error,
        }
        with self.instance(feed) as instance:
            opened = instance.call("rb_open", self.open_argument(name, run_id=run_id))
            result = instance.call("rb_write", {"stream": described, "target": target})
        return Written(opened, result, feed)

    @contextlib.contextmanager
    def staging(
        self,
        schema: pa.Schema,
        mode: str = "append",
        *,
        table: str = "users",
        in_schema: str | None = None,
        primary_key: Sequence[str] | None = None,
        pipeline: str = PIPELINE,
        target: str = "any",
        schema_evolution: Mapping[str, str] | None = None,
        known_columns: Sequence[Mapping[str, Any]] | None = None,
        published: Iterable[Item] | None = None,
        on_prepare: Hook | None = None,
        note: Any = None,
        resumes: bool = False,
    ) -> Iterator[Staging]:
        """The run of a stream in shards: staged, and published when and if told to; `published` is what comes then.
        With a note, a later one may go on with them."""
        items: Iterable[Item] = [schema_item(schema), barrier(), End()] if published is None else published
        feed = Feed(itertools.chain([schema_item(schema)], items), on_prepare=on_prepare)
        described = {
            "name": table,
            "schema": in_schema,
            "table": table,
            "write_mode": mode,
            "primary_key": None if primary_key is None else list(primary_key),
            "schema_evolution": schema_evolution,
            "known_columns": known_columns,
        }
        with self.instance(feed) as coordinator:
            opened = coordinator.call("rb_open", self.open_argument(table, pipeline=pipeline))
            argument = {"stream": described, "target": target, "note": note, "resumes": resumes}
            staged = coordinator.call("rb_stage", argument)
            yield Staging(self, coordinator, feed, pipeline, described, opened, staged)

    def watermark(self, stream: str) -> dict[str, Any] | None:
        """What `rb_open` says of the stream."""
        with self.instance(NoData()) as instance:
            told: dict[str, Any] | None = instance.call("rb_open", self.open_argument(stream))["watermark"]
            return told

    def check(self, *streams: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The findings of `rb_check`."""
        with self.instance(NoData()) as instance:
            instance.call("rb_open", self.open_argument(None))
            findings: list[dict[str, Any]] = instance.call("rb_check", {"streams": [dict(s) for s in streams]})[
                "findings"
            ]
            return findings


@dataclass(frozen=True)
class Written:
    opened: dict[str, Any]
    result: dict[str, Any]
    feed: Feed

    @property
    def rejected(self) -> int:
        """Rows that the commits were said to leave out."""
        return sum(payload["rejected"] for what, payload in self.feed.said if what == "prepare")


@dataclass(frozen=True)
class Staging:
    """A staged stream, whose coordinator is open."""

    destination: Destination
    coordinator: Instance
    feed: Feed
    pipeline: str
    described: dict[str, Any]
    opened: dict[str, Any]
    staged: dict[str, Any]
    """What `rb_stage` answered."""

    def shard(self, number: int, data: pa.Table | Iterable[Item], *, on_prepare: Hook | None = None) -> Written:
        """One shard, from `rb_open` to `rb_close`."""
        feed = Feed(whole_stream(data) if isinstance(data, pa.Table) else data, on_prepare=on_prepare)
        name = self.described["table"]
        argument = self.destination.open_argument(name, pipeline=self.pipeline, shard=number)
        with self.destination.instance(feed) as instance:
            opened = instance.call("rb_open", argument)
            result = instance.call("rb_write", {"stream": self.described, "into": self.staged["into"]})
        return Written(opened, result, feed)

    def shards(self, *parts: pa.Table) -> list[Written]:
        """All of them, at once."""
        written: dict[int, Written] = {}
        failures: list[BaseException] = []

        def write(number: int) -> None:
            try:
                written[number] = self.shard(number, parts[number])
            except BaseException as failure:  # noqa: BLE001  a thread's edge: raised below
                failures.append(failure)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(len(parts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return [written[number] for number in range(len(parts))]

    def publish(self) -> Written:
        result = self.coordinator.call("rb_write", {"stream": self.described, "staged": self.staged["into"]})
        return Written(self.opened, result, self.feed)
