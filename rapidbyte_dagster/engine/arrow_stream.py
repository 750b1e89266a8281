"""What a guest emits, checked: a schema message first, then record batches of that schema.

The guest is not trusted and its messages feed another guest and, later, users' code: each is opened with pyarrow
(no copy of the values) before it moves on.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.ipc

from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, Stage, error_from


class ArrowStream:
    """Follows one stream of IPC messages."""

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None
        self.batches = 0

    def accept(self, message: bytes | bytearray) -> int:
        """The number of rows in `message` (0 for a schema). Raises when it is not what it should be."""
        try:
            opened = pa.ipc.read_message(pa.py_buffer(message))
            if opened.type == "schema":
                self.schema = pa.ipc.read_schema(opened)
                return 0
            if opened.type != "record batch":
                raise _malformed(f"a {opened.type} message")
            if self.schema is None:
                raise _malformed("a record batch before any schema")
            batch = pa.ipc.read_record_batch(opened, self.schema)
            batch.validate()
        except (pa.ArrowException, OSError) as error:
            raise _malformed(f"a malformed Arrow message ({error})") from error
        self.batches += 1
        return int(batch.num_rows)


def _malformed(what: str) -> RapidbyteError:
    return error_from(
        ErrorInfo(
            kind=Kind.PROTOCOL,
            stage=Stage.SOURCE,
            message=f"the source connector emitted {what}",
            hint="this is a bug of the connector: report it with its name and version",
        )
    )
