"""transform-sql by itself, between a schema with batches and what comes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rapidbyte_dagster.config import first_party_manifests
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Barrier, End, Item, Message, Sandbox
from rapidbyte_dagster.transforms.sql import SqlTransform
from tests.sandbox.connectors import Recorder

MEGABYTE = 1024 * 1024
PG_TYPE = b"rapidbyte:pg_type"


@dataclass
class Ran:
    """What came out."""

    schema: pa.Schema
    batches: list[pa.RecordBatch]
    messages: list[bytes]
    host: Recorder
    rows: int

    @property
    def table(self) -> pa.Table:
        return pa.Table.from_batches(self.batches, self.schema)

    @property
    def counts(self) -> dict[str, int]:
        [(_, barrier)] = [call for call in self.host.calls if call[0] == "barrier"]
        return {name: barrier[name] for name in ("rejected", "filtered")}

    @property
    def letters(self) -> list[dict[str, Any]]:
        told = [call for name, call in self.host.calls if name == "emit_dlq_batch"]
        return [letter for batch in told for letter in batch["letters"]]


def transform(host: Recorder, *, max_memory: int = 64 * MEGABYTE, timeout_seconds: float | None = None) -> SqlTransform:
    manifest = first_party_manifests()["transform-sql"]
    sandbox = Sandbox((), frozenset(), max_memory, timeout_seconds, "transforms[0]")
    return SqlTransform(manifest, host=host, sandbox=sandbox, stage=Stage.TRANSFORM)


def message(data: pa.Schema | pa.RecordBatch) -> bytes:
    return bytes(data.serialize().to_pybytes())


def items(*given: pa.Schema | pa.RecordBatch) -> list[Item]:
    return [Message(message(each)) for each in given]


def argument(
    on_data_error: str = "fail", max_batch_bytes: int = 16 * MEGABYTE, *, replay: bool = False
) -> dict[str, Any]:
    stream = {"name": "users", "primary_key": None, "write_mode": "append", "on_data_error": on_data_error}
    return {"stream": stream, "max_batch_bytes": max_batch_bytes, "replay": replay}


def run(
    query: str,
    batches: pa.RecordBatch | Sequence[pa.RecordBatch],
    on_data_error: str = "fail",
    *,
    max_memory: int = 64 * MEGABYTE,
    **more: Any,
) -> Ran:
    batches = [batches] if isinstance(batches, pa.RecordBatch) else list(batches)
    host = Recorder(items=[*items(batches[0].schema, *batches), _BARRIER, End()])
    with transform(host, max_memory=max_memory) as worker:
        assert worker.call("rb_open", {"config": {"query": query}}) == {"whole_run": False}
        rows = worker.call("rb_transform", argument(on_data_error, **more))["rows"]
    schema, *rest = host.emitted
    read = pa.ipc.read_schema(pa.py_buffer(schema))
    made = [pa.ipc.read_record_batch(pa.py_buffer(each), read) for each in rest]
    for batch in made:
        batch.validate()
    return Ran(read, made, rest, host, rows)


_BARRIER = Barrier(json.dumps({"sequence": 1, "final": True}).encode())
