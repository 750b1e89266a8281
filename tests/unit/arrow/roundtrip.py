"""Talks to `arrow-roundtrip`, which decodes IPC messages with the connectors' reader and encodes them again.

request, reply    u32 length | one IPC message
reply to what could not be decoded    u32 length + 2^31 | the error's name
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

ERROR_FLAG = 1 << 31

# Seconds for all the messages of one test.
TIMEOUT = 120


@dataclass(frozen=True)
class Refused:
    """The reader's error for one message."""

    name: str


@dataclass(frozen=True)
class Roundtrip:
    executable: Path

    def messages(self, messages: Sequence[bytes]) -> list[bytes | Refused]:
        """One reply per message. A crash of the command fails the test."""
        request = b"".join(struct.pack("<I", len(message)) + message for message in messages)
        done = subprocess.run([str(self.executable)], input=request, capture_output=True, timeout=TIMEOUT, check=False)
        replies = list(_split(done.stdout))
        assert done.returncode == 0, f"died with {done.returncode} after {len(replies)} replies: {done.stderr.decode()}"
        assert len(replies) == len(messages)
        return replies

    def batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch as it comes back, validated."""
        schema_message, batch_message = self.messages([encode_schema(batch.schema), batch.serialize().to_pybytes()])
        assert isinstance(schema_message, bytes), schema_message
        assert isinstance(batch_message, bytes), batch_message
        schema = pa.ipc.read_schema(pa.py_buffer(schema_message))
        result = pa.ipc.read_record_batch(pa.py_buffer(batch_message), schema)
        result.validate(full=True)
        return result


def encode_schema(schema: pa.Schema) -> bytes:
    return schema.serialize().to_pybytes()


def _split(reply: bytes) -> list[bytes | Refused]:
    replies: list[bytes | Refused] = []
    position = 0
    while position + 4 <= len(reply):
        (length,) = struct.unpack_from("<I", reply, position)
        position += 4
        size = length & ~ERROR_FLAG
        content = reply[position : position + size]
        if len(content) < size:
            break
        position += size
        replies.append(Refused(content.decode()) if length & ERROR_FLAG else content)
    return replies
