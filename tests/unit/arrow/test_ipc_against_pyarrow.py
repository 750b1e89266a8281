"""Messages of pyarrow are read, rebuilt value by value and written by the connectors' SDK; pyarrow reads the result."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.unit.arrow import samples
from tests.unit.arrow.roundtrip import Refused, Roundtrip, encode_schema

SEED = 20260101

# Rows of a batch in the benchmark; one more than fits 16 bits.
LARGE = 65_537


@pytest.mark.parametrize("null_chance", [0.0, 0.3, 1.0], ids=["no nulls", "some nulls", "all null"])
@pytest.mark.parametrize("rows", [0, 1, 8, 200])
def test_every_type_survives_with_any_share_of_nulls(roundtrip: Roundtrip, rows: int, null_chance: float) -> None:
    batch = samples.batch(rows, null_chance, SEED)
    result = roundtrip.batch(batch)
    assert result.schema.equals(batch.schema, check_metadata=True)
    for name in batch.schema.names:
        assert result.column(name).equals(batch.column(name)), name


@pytest.mark.parametrize("offset", [1, 7, 8, 63])
@pytest.mark.parametrize("length", [0, 1, 50])
def test_sliced_arrays_survive(roundtrip: Roundtrip, offset: int, length: int) -> None:
    batch = samples.batch(150, 0.3, SEED).slice(offset, length)
    result = roundtrip.batch(batch)
    assert result.num_rows == length
    assert result.equals(batch)


def test_a_slice_without_nulls_of_an_array_with_nulls_survives(roundtrip: Roundtrip) -> None:
    whole = pa.array([None, "a", "b", "c", None])
    batch = pa.RecordBatch.from_arrays([whole.slice(1, 3)], names=["text"])
    result = roundtrip.batch(batch)
    assert result.column(0).to_pylist() == ["a", "b", "c"]
    assert result.column(0).null_count == 0


def test_more_than_65536_rows_survive(roundtrip: Roundtrip) -> None:
    short = samples.batch(1000, 0.2, SEED)
    table = pa.Table.from_batches([short] * (LARGE // 1000 + 1)).slice(0, LARGE)
    batch = table.combine_chunks().to_batches()[0]
    assert batch.num_rows == LARGE
    assert roundtrip.batch(batch).equals(batch)


def test_batches_of_one_stream_do_not_mix(roundtrip: Roundtrip) -> None:
    batches = [
        samples.batch(rows, chance, SEED + rows) for rows, chance in [(100, 0.0), (3, 1.0), (0, 0.0), (300, 0.5)]
    ]
    messages = [encode_schema(batches[0].schema), *(batch.serialize().to_pybytes() for batch in batches)]
    _, *replies = roundtrip.messages(messages)
    for batch, reply in zip(batches, replies, strict=True):
        assert isinstance(reply, bytes)
        result = pa.ipc.read_record_batch(pa.py_buffer(reply), batch.schema)
        result.validate(full=True)
        assert result.equals(batch)


def test_a_stream_of_messages_opens_as_an_ipc_stream(roundtrip: Roundtrip) -> None:
    batch = samples.batch(10, 0.2, SEED)
    replies = roundtrip.messages([encode_schema(batch.schema), *[batch.serialize().to_pybytes()] * 3])
    stream = b"".join(reply for reply in replies if isinstance(reply, bytes))
    table = pa.ipc.open_stream(stream).read_all()
    table.validate(full=True)
    assert table.equals(pa.Table.from_batches([batch] * 3))


def test_a_batch_without_columns_keeps_its_rows(roundtrip: Roundtrip) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2, 3])], names=["a"]).select([])
    assert batch.num_rows == 3
    assert roundtrip.batch(batch).num_rows == 3


def test_buffers_aligned_to_64_bytes_are_read(roundtrip: Roundtrip) -> None:
    sink = pa.BufferOutputStream()
    batch = samples.batch(9, 0.3, SEED)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    messages = [message.serialize(alignment=64).to_pybytes() for message in reader]
    _, reply = roundtrip.messages(messages)
    assert isinstance(reply, bytes)
    assert pa.ipc.read_record_batch(pa.py_buffer(reply), batch.schema).equals(batch)


def test_metadata_names_and_nullability_survive(roundtrip: Roundtrip) -> None:
    element = pa.field("element", pa.int32(), nullable=False, metadata={"inner": "1"})
    fields: list[pa.Field[Any]] = [
        pa.field("id", pa.int64(), nullable=False, metadata={"rapidbyte:pg_type": "bigint"}),
        pa.field("", pa.string()),
        pa.field('quote " and 日本', pa.list_(element), metadata={"rapidbyte:pg_type": "integer[]", "": ""}),
        pa.field("uuid", pa.binary(16), metadata={"ARROW:extension:name": "arrow.uuid"}),
    ]
    schema = pa.schema(
        fields,
        metadata={"rapidbyte:primary_key": '["id"]', "long": "x" * 100_000},
    )
    (reply,) = roundtrip.messages([encode_schema(schema)])
    assert isinstance(reply, bytes)
    result = pa.ipc.read_schema(pa.py_buffer(reply))
    # pyarrow turns the uuid's metadata into a type of its own when it reads.
    assert result.equals(pa.ipc.read_schema(schema.serialize()), check_metadata=True)
    assert result.field(3).type == pa.uuid()
    assert result.field(2).type.value_field.equals(element, check_metadata=True)


def test_extension_types_of_pyarrow_are_their_storage_with_a_name(roundtrip: Roundtrip) -> None:
    uuid = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef", None], pa.binary(16)))
    batch = pa.RecordBatch.from_arrays([uuid], names=["id"])
    assert roundtrip.batch(batch).schema.field("id").type == pa.uuid()


def test_1600_columns_survive(roundtrip: Roundtrip) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([i, None]) for i in range(1600)], names=[f"c{i}" for i in range(1600)])
    assert roundtrip.batch(batch).equals(batch)


UNSUPPORTED: dict[str, pa.DataType] = {
    "int8": pa.int8(),
    "uint8": pa.uint8(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float16": pa.float16(),
    "null": pa.null(),
    "large_string": pa.large_string(),
    "large_binary": pa.large_binary(),
    "string_view": pa.string_view(),
    "large_list": pa.large_list(pa.int32()),
    "fixed_size_list": pa.list_(pa.int32(), 2),
    "struct": pa.struct([("a", pa.int32())]),
    "map": pa.map_(pa.string(), pa.int32()),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "date64": pa.date64(),
    "time32": pa.time32("ms"),
    "time64_ns": pa.time64("ns"),
    "timestamp_ns": pa.timestamp("ns"),
    "timestamp_s": pa.timestamp("s"),
    "timestamp_elsewhere": pa.timestamp("us", tz="Europe/Berlin"),
    "duration": pa.duration("us"),
    "decimal32": pa.decimal32(5, 2),
    "empty_binary": pa.binary(0),
    "list_of_uint": pa.list_(pa.uint16()),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_types_outside_the_abi_are_refused_by_name(roundtrip: Roundtrip, name: str) -> None:
    schema = pa.schema({"good": pa.int64(), name: UNSUPPORTED[name]})
    assert roundtrip.messages([encode_schema(schema)]) == [Refused("UnsupportedType")]


def test_compressed_batches_are_refused(roundtrip: Roundtrip) -> None:
    batch = samples.batch(100, 0.1, SEED)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    messages = [message.serialize().to_pybytes() for message in pa.ipc.MessageReader.open_stream(sink.getvalue())]
    _, reply = roundtrip.messages(messages)
    assert reply == Refused("Unsupported")


def test_metadata_of_version_4_is_refused(roundtrip: Roundtrip) -> None:
    batch = samples.batch(3, 0.1, SEED)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    message = next(iter(pa.ipc.MessageReader.open_stream(sink.getvalue()))).serialize().to_pybytes()
    assert roundtrip.messages([message]) == [Refused("Unsupported")]


def test_a_batch_of_another_schema_is_refused(roundtrip: Roundtrip) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2])], names=["a"])
    other = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    _, reply = roundtrip.messages([encode_schema(other), batch.serialize().to_pybytes()])
    assert reply == Refused("SchemaMismatch")
