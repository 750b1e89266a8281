"""The messages of a capture: record batches of several streams in one channel, each behind a schema message that names
its stream."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from rapidbyte_dagster.engine.arrow_stream import ArrowStream
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage

STREAM: Final = b"rapidbyte:stream"
"""In a schema's metadata: whose changes follow."""

NOT_NULL: Final = b"rapidbyte:not_null"
"""In a field's metadata, `true`: the source's column is NOT NULL. The field itself is nullable: a delete has its key
alone."""

CHANGE_COLUMNS: Final = 5
"""`_rb_op`, `_rb_lsn`, `_rb_seq`, `_rb_commit_ts`, `_rb_unchanged`: the stream's own come behind them."""


class ChangeStreams:
    """Follows the messages of all `streams`."""

    def __init__(self, streams: list[str]) -> None:
        self._followed = {stream: ArrowStream() for stream in streams}
        self._messages = ArrowStream()
        self._current: str | None = None

    def accept(self, message: bytes | bytearray) -> tuple[str, int]:
        """The stream of `message`, and its number of rows (0 for a schema). Raises when it is not what it should be."""
        before = self._messages.schema
        rows = self._messages.accept(message)
        schema = self._messages.schema
        if schema is not before:
            self._current = self._stream_of(schema)
            self._followed[self._current].schema = schema
        assert self._current is not None, "a batch comes behind a schema"
        if schema is before:
            self._followed[self._current].batches += 1
        return self._current, rows

    def schema(self, stream: str) -> pa.Schema | None:
        """The stream's own columns, as they were last; None where no change of it came."""
        schema = self._followed[stream].schema
        if schema is None:
            return None
        fields = [field.with_nullable((field.metadata or {}).get(NOT_NULL) != b"true") for field in schema]
        return pa.schema(fields[CHANGE_COLUMNS:]).with_metadata(schema.metadata)

    def batches(self, stream: str) -> int:
        return self._followed[stream].batches

    def _stream_of(self, schema: pa.Schema | None) -> str:
        assert schema is not None
        name = (schema.metadata or {}).get(STREAM, b"").decode(errors="replace")
        if name not in self._followed:
            raise violation(Stage.SOURCE, "emitted changes of a stream that it was not asked for")
        # A table may have no columns any more: that stops its stream, and is for the destination to say.
        if len(schema.names) < CHANGE_COLUMNS:
            raise violation(Stage.SOURCE, f"emitted changes of {name!r} that do not say what they are")
        return name
