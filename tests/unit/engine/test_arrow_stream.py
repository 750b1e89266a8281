"""Whatever a source emits that is no plain Arrow is its own fault, told as such, and opened at nobody's cost."""

from __future__ import annotations

import io
from typing import Any, Literal

import pyarrow as pa
import pytest

from rapidbyte_dagster.engine.arrow_stream import ArrowStream
from rapidbyte_dagster.errors import Kind, RapidbyteError

FIELDS: list[pa.Field[Any]] = [pa.field("id", pa.int64()), pa.field("name", pa.string())]
SCHEMA = pa.schema(FIELDS)


def messages(rows: int, compression: Literal["lz4", "zstd"] | None = None) -> list[bytes]:
    """The schema and one batch."""
    batch = pa.RecordBatch.from_arrays([pa.array([0] * rows, pa.int64()), pa.array(["x"] * rows)], schema=SCHEMA)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    sink.seek(0)
    reader = pa.ipc.MessageReader.open_stream(sink)
    return [reader.read_next_message().serialize().to_pybytes() for _ in range(2)]


def test_batches_are_counted() -> None:
    stream = ArrowStream()
    assert [stream.accept(message) for message in messages(7)] == [0, 7]
    assert stream.batches == 1
    assert stream.schema == SCHEMA


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xff\xff\xff\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\x10\0\0\0" + b"\x07" * 16,
        b"no arrow at all",
    ],
)
def test_what_is_no_message_is_the_connectors_fault(message: bytes) -> None:
    with pytest.raises(RapidbyteError, match="malformed Arrow") as caught:
        ArrowStream().accept(message)
    assert caught.value.kind is Kind.PROTOCOL


def test_a_name_that_is_not_utf8_is_the_connectors_fault() -> None:
    schema = messages(1)[0].replace(b"name", b"n\xff\xfee")
    with pytest.raises(RapidbyteError) as caught:
        ArrowStream().accept(schema)
    assert caught.value.kind is Kind.PROTOCOL


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_compressed_batch_is_refused_before_it_is_opened(compression: Literal["lz4", "zstd"]) -> None:
    """A kilobyte can hold gigabytes: the memory would be the host's."""
    schema, batch = messages(1_000_000, compression)
    stream = ArrowStream()
    stream.accept(schema)
    before = pa.total_allocated_bytes()
    with pytest.raises(RapidbyteError, match="compressed"):
        stream.accept(batch)
    assert pa.total_allocated_bytes() == before


def test_a_batch_before_its_schema_is_refused() -> None:
    with pytest.raises(RapidbyteError, match="before any schema"):
        ArrowStream().accept(messages(1)[1])
