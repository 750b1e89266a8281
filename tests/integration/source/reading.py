"""Drives the built source connector as the engine does, and keeps all that it says.

`plain` takes pyarrow values down to what lies in the buffers: days, microseconds, scaled integers. What Arrow cannot
express (infinities, NaN) is then a number like any other, as docs/types.md lists it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from rapidbyte_dagster.config import Redactor
from rapidbyte_dagster.config.capabilities import Limits, Permissions
from rapidbyte_dagster.config.manifest import Role, find_manifest
from rapidbyte_dagster.engine.letters import read_letters
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Connector, Instance, LogLevel, NoData, sandbox_for

MAX_MEMORY = 256 * 1024 * 1024
MAX_BATCH_BYTES = 16 * 1024 * 1024


@dataclass
class Collected(NoData):
    """A host that keeps what a source hands over."""

    messages: list[bytes] = field(default_factory=list)
    barriers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """With the number of messages before each."""
    logs: list[tuple[LogLevel, str]] = field(default_factory=list)
    letters: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """With the number of barriers before each."""

    def emit(self, message: bytes | bytearray) -> None:
        self.messages.append(bytes(message))

    def barrier(self, payload: dict[str, Any]) -> None:
        self.barriers.append((len(self.messages), payload))

    def log(self, level: LogLevel, message: str) -> None:
        self.logs.append((level, message))

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        read_letters(payload, Stage.SOURCE, Redactor(()))
        self.letters += [(len(self.barriers), letter) for letter in payload["letters"]]

    @property
    def told(self) -> list[dict[str, Any]]:
        return [letter for _, letter in self.letters]

    @property
    def rejected(self) -> int:
        return sum(payload.get("rejected", 0) for _, payload in self.barriers)

    @property
    def warnings(self) -> list[str]:
        return [text for level, text in self.logs if level is LogLevel.WARNING]


@dataclass(frozen=True)
class Read:
    """What one `rb_read` brought."""

    table: pa.Table
    rows: int
    received: int
    messages: list[bytes]
    logs: list[tuple[LogLevel, str]]

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def field_metadata(self, name: str) -> dict[str, str]:
        metadata = self.schema.field(name).metadata or {}
        return {key.decode(): value.decode() for key, value in metadata.items()}

    def column(self, name: str) -> list[Any]:
        return plain(self.table.column(name).combine_chunks())


def open_source(host: NoData, config: Mapping[str, Any], *, max_memory: int = MAX_MEMORY) -> Instance:
    """The built connector in the sandbox that a pipeline would give it. Enter it, then `call`."""
    manifest = find_manifest("source-postgres", Role.SOURCE, Path())
    sandbox = sandbox_for(manifest, config, Permissions(), Limits(), max_memory, "source")
    return Instance(Connector.load(manifest), host=host, sandbox=sandbox, stage=Stage.SOURCE)


def open_argument(config: Mapping[str, Any], stream: str | None = None) -> dict[str, Any]:
    return {"config": dict(config), "pipeline": "shop", "stream": stream, "run_id": "test"}


def stream_argument(
    name: str,
    *,
    schema: str | None = "public",
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    sync_mode: str = "full_refresh",
    **others: Any,
) -> dict[str, Any]:
    """`others`: cursor_field, tie_breaker_field, cursor_lag (seconds), write_mode, primary_key."""
    return {"name": name, "schema": schema, "sync_mode": sync_mode, "columns": columns, "filter": filter, **others}


def read_stream(
    config: Mapping[str, Any],
    name: str,
    *,
    max_batch_bytes: int = MAX_BATCH_BYTES,
    max_memory: int = MAX_MEMORY,
    host: Collected | None = None,
    **stream: Any,
) -> Read:
    """Reads one table whole; raises what the runtime raises."""
    host = host or Collected()
    with open_source(host, config, max_memory=max_memory) as instance:
        instance.call("rb_open", open_argument(config, name))
        argument = {"stream": stream_argument(name, **stream), "cursor": None, "max_batch_bytes": max_batch_bytes}
        result = instance.call("rb_read", argument)
    counted = {"rejected": host.rejected} if host.rejected else {}
    assert host.barriers == [(len(host.messages), {"cursor": None, "final": True, **counted})]
    with pa.ipc.open_stream(pa.BufferReader(b"".join(host.messages))) as reader:
        table = reader.read_all()
    # pyarrow's full check knows no 24:00:00.
    table.validate(full=not any("time64" in str(kind) for kind in table.schema.types))
    assert table.num_rows == result["rows"]
    return Read(table, result["rows"], result["bytes"], host.messages, host.logs)


@dataclass(frozen=True)
class Increment:
    """What one incremental `rb_read` brought, and the cursors that it marked."""

    table: pa.Table
    cursors: list[tuple[int, Any]]
    """Of each barrier, with the number of rows before it; the last one is final."""
    logs: list[tuple[LogLevel, str]]

    @property
    def cursor(self) -> Any:
        """Where the next run goes on."""
        return self.cursors[-1][1]

    @property
    def warnings(self) -> list[str]:
        return [text for level, text in self.logs if level is LogLevel.WARNING]

    def column(self, name: str) -> list[Any]:
        return plain(self.table.column(name).combine_chunks())


def read_increment(
    config: Mapping[str, Any],
    name: str,
    cursor: Any = None,
    *,
    max_batch_bytes: int = MAX_BATCH_BYTES,
    max_batch_rows: int | None = None,
    max_memory: int = MAX_MEMORY,
    host: Collected | None = None,
    **stream: Any,
) -> Increment:
    """Reads what is new in one table; raises what the runtime raises."""
    host = host or Collected()
    with open_source(host, config, max_memory=max_memory) as instance:
        instance.call("rb_open", open_argument(config, name))
        asked = stream_argument(name, sync_mode="incremental", **stream)
        limits = {"max_batch_bytes": max_batch_bytes, "max_batch_rows": max_batch_rows}
        instance.call("rb_read", {"stream": asked, "cursor": cursor, **limits})
    with pa.ipc.open_stream(pa.BufferReader(b"".join(host.messages))) as reader:
        batches = list(reader)
        table = pa.Table.from_batches(batches, reader.schema)
    # The first message is the schema.
    before = [0, 0, *itertools.accumulate(batch.num_rows for batch in batches)]
    cursors = [(before[messages], payload["cursor"]) for messages, payload in host.barriers]
    assert [payload["final"] for _, payload in host.barriers] == [False] * (len(cursors) - 1) + [True]
    assert cursors[-1][0] == table.num_rows
    return Increment(table, cursors, host.logs)


def check(config: Mapping[str, Any], *streams: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The findings of `rb_check`."""
    with open_source(NoData(), config) as instance:
        instance.call("rb_open", open_argument(config))
        findings: list[dict[str, Any]] = instance.call("rb_check", {"streams": list(streams)})["findings"]
        return findings


def discover(config: Mapping[str, Any], schema: str | None) -> list[dict[str, Any]]:
    """The tables of `rb_discover`."""
    with open_source(NoData(), config) as instance:
        instance.call("rb_open", open_argument(config))
        tables: list[dict[str, Any]] = instance.call("rb_discover", {"schema": schema})["tables"]
        return tables


def describe(config: Mapping[str, Any], name: str, **stream: Any) -> bytes:
    """The one message of `rb_describe`; raises what the runtime raises."""
    host = Collected()
    with open_source(host, config) as instance:
        instance.call("rb_open", open_argument(config))
        answer = instance.call("rb_describe", {"stream": stream_argument(name, **stream)})
    assert (answer, host.barriers) == ({}, [])
    [message] = host.messages
    return message


def plain(array: pa.Array[Any]) -> list[Any]:
    """The values as they lie in the buffers: integers for dates, times, timestamps and decimals, bytes for uuids."""
    if isinstance(array, pa.ExtensionArray):
        return plain(array.storage)
    kind = array.type
    if pa.types.is_list(kind):
        return [plain(item.values) if item.is_valid else None for item in array]
    if pa.types.is_decimal(kind):
        width = kind.bit_width // 8
        slots = cast(list[bytes | None], array.view(pa.binary(width)).to_pylist())
        return [None if slot is None else int.from_bytes(slot, "little", signed=True) for slot in slots]
    if pa.types.is_date32(kind):
        array = array.view(pa.int32())
    elif pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        array = array.view(pa.int64())
    values = array.to_pylist()
    if pa.types.is_interval(kind):
        return [None if value is None else tuple(value) for value in values]
    return values
