"""Whatever bytes come, the reader answers with an error or with a batch: it never crashes."""

from __future__ import annotations

import os
import random
import struct

import pyarrow as pa
import pytest

from tests.unit.arrow import samples
from tests.unit.arrow.roundtrip import Refused, Roundtrip, encode_schema

MUTATIONS = 3_000

EXPECTED_ERRORS = {"Malformed", "Unsupported", "UnsupportedType", "SchemaMismatch"}

EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


@pytest.fixture
def generator() -> random.Random:
    """Seeded anew each time; replay with RAPIDBYTE_TEST_SEED."""
    seed = int(os.environ.get("RAPIDBYTE_TEST_SEED") or random.SystemRandom().randrange(2**32))
    # Captured, and shown when the test fails.
    print(f"RAPIDBYTE_TEST_SEED={seed}")  # noqa: T201
    return random.Random(seed)


def mutated(message: bytes, generator: random.Random) -> bytes:
    """The message with a few numbers replaced, or cut, or with a piece missing or doubled."""
    data = bytearray(message)
    # Most of a message is values, which may be anything: aim at the metadata.
    metadata_end = min(len(data), 8 + struct.unpack_from("<I", message, 4)[0])
    for _ in range(generator.randint(1, 3)):
        end = metadata_end if generator.random() < 0.8 else len(data)
        width = generator.choice([1, 2, 4, 8])
        at = generator.randrange(max(1, min(end, len(data)) - width))
        match generator.choice(["number", "extreme", "bit", "cut", "remove", "double"]):
            case "number":
                data[at : at + width] = generator.randbytes(width)
            case "extreme":
                data[at : at + width] = (generator.choice(EXTREMES) % 256**width).to_bytes(width, "little")
            case "bit":
                data[at] ^= 1 << generator.randrange(8)
            case "cut" if generator.random() < 0.2:
                del data[at:]
            case "remove" if generator.random() < 0.3:
                del data[at : at + width]
            case "double" if generator.random() < 0.3:
                data[at:at] = data[at : at + width]
        if len(data) < 16:
            break
    return bytes(data)


def test_mutated_batches_never_crash_the_reader(roundtrip: Roundtrip, generator: random.Random) -> None:
    batch = samples.batch(20, 0.3, 1)
    message = batch.serialize().to_pybytes()
    # A mutation can make a schema message of a batch, good or bad: each batch comes with its schema.
    schema = encode_schema(batch.schema)
    requests = [part for _ in range(MUTATIONS) for part in (schema, mutated(message, generator))]
    *replies, last = roundtrip.messages([*requests, schema, message])[1::2]
    refused = [reply for reply in replies if isinstance(reply, Refused)]
    assert {reply.name for reply in refused} <= EXPECTED_ERRORS
    assert len(refused) > MUTATIONS / 10
    # Text may have become other than UTF-8, so not `full`: but each reply is a batch whose buffers fit.
    for reply in replies:
        if isinstance(reply, bytes):
            pa.ipc.read_record_batch(pa.py_buffer(reply), batch.schema).validate()
    # What came before left no trace.
    assert isinstance(last, bytes)
    assert pa.ipc.read_record_batch(pa.py_buffer(last), batch.schema).equals(batch)


def test_mutated_schemas_never_crash_the_reader(roundtrip: Roundtrip, generator: random.Random) -> None:
    schema = samples.batch(0, 0, 1).schema.with_metadata({"rapidbyte:primary_key": '["a"]'})
    message = encode_schema(schema)
    messages = [mutated(message, generator) for _ in range(MUTATIONS)]
    replies = roundtrip.messages(messages)
    assert {reply.name for reply in replies if isinstance(reply, Refused)} <= EXPECTED_ERRORS


def test_messages_cut_anywhere_are_refused(roundtrip: Roundtrip) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["a", None]), pa.array([[1], [2, 3]])], names=["a", "b"])
    message = batch.serialize().to_pybytes()
    _, *replies = roundtrip.messages([encode_schema(batch.schema), *(message[:end] for end in range(len(message)))])
    assert set(replies) == {Refused("Malformed")}


@pytest.mark.parametrize(
    "message",
    [b"", b"\xff" * 8, b"\xff\xff\xff\xff\0\0\0\0", b"\xff\xff\xff\xff\x08\0\0\0" + b"\0" * 8, b"ARROW1\0\0" * 4],
    ids=["nothing", "ones", "the end-of-stream mark", "empty metadata", "a file's magic"],
)
def test_what_is_no_message_is_refused(roundtrip: Roundtrip, message: bytes) -> None:
    assert roundtrip.messages([message]) == [Refused("Malformed")]
