"""What a guest emits, checked: a schema message first, then record batches of that schema.

The guest is not trusted and its messages feed another guest and, later, users' code: each is opened with pyarrow
(no copy of the values) before it moves on.
"""

from __future__ import annotations

import json
import struct
from typing import Final

import pyarrow as pa
import pyarrow.ipc

from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import RapidbyteError, Stage

_MESSAGE_HEADER: Final = 2
"""Field `header` of the table `Message`, see https://github.com/apache/arrow/blob/main/format/Message.fbs."""

_BATCH_COMPRESSION: Final = 3
"""Field `compression` of the table `RecordBatch`."""


PRIMARY_KEY: Final = b"rapidbyte:primary_key"
"""In a schema's metadata: the source table's own key, a JSON list of column names."""

PG_TYPE: Final = b"rapidbyte:pg_type"
"""In a field's metadata: its PostgreSQL type."""


def stream_key(schema: pa.Schema) -> tuple[str, ...] | None:
    """The key that the stream told with its columns; None where it told none, or none that is to be understood."""
    try:
        key = json.loads((schema.metadata or {}).get(PRIMARY_KEY, b"null"))
    except ValueError:
        return None
    return tuple(key) if isinstance(key, list) and key and all(isinstance(name, str) for name in key) else None


class ArrowStream:
    """Follows one stream of IPC messages, as `stage` emits it."""

    def __init__(self, stage: Stage = Stage.SOURCE) -> None:
        self._stage = stage
        self.schema: pa.Schema | None = None
        self.schema_message: bytes | None = None
        """The one that told it."""
        self.batches = 0

    def accept(self, message: bytes | bytearray) -> int:
        """The number of rows in `message` (0 for a schema). Raises when it is not what it should be."""
        try:
            opened = pa.ipc.read_message(pa.py_buffer(message))
            if opened.type == "schema":
                schema = pa.ipc.read_schema(opened)
                # Names are decoded when they are first looked at: now, while their fault is the connector's.
                assert len(schema.names) == len(schema)
                self.schema, self.schema_message = schema, bytes(message)
                return 0
            if opened.type != "record batch":
                raise self._emitted(f"a {opened.type} message")
            if self.schema is None:
                raise self._emitted("a record batch before any schema")
            if _is_compressed(opened.metadata.to_pybytes()):
                # Opening it would take as much of the host's memory as its maker likes.
                raise self._emitted("a compressed record batch")
            batch = pa.ipc.read_record_batch(opened, self.schema)
            batch.validate()
        except (pa.ArrowException, OSError, EOFError, ValueError, struct.error) as error:
            raise self._emitted(f"a malformed Arrow message ({error})") from error
        self.batches += 1
        return int(batch.num_rows)

    def _emitted(self, what: str) -> RapidbyteError:
        return violation(self._stage, f"emitted {what}")


def _is_compressed(metadata: bytes) -> bool:
    """Whether a record batch message, which pyarrow has verified, has compressed buffers."""
    (message,) = struct.unpack_from("<I", metadata)
    slot = _field(metadata, message, _MESSAGE_HEADER)
    assert slot is not None, "pyarrow told the header's type"
    (offset,) = struct.unpack_from("<I", metadata, slot)
    return _field(metadata, slot + offset, _BATCH_COMPRESSION) is not None


def _field(flatbuffer: bytes, table: int, number: int) -> int | None:
    """Where field `number` of the table at `table` lies; None when the table does not have it."""
    (back,) = struct.unpack_from("<i", flatbuffer, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", flatbuffer, vtable)
    entry = 4 + 2 * number
    if entry + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", flatbuffer, vtable + entry)
    return table + offset if offset else None
