"""Captures changes with the built source connector, from a slot of a real server, as the engine does.

`Capturing` is a slot and its publication; `catch_up` reads what was committed since, and keeps all that is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from psycopg import sql

from rapidbyte_dagster.runtime import Instance
from tests.integration.source.reading import Collected, open_argument, open_source, stream_argument
from tests.postgres_server import Database, unique_name

MARKS = ["_rb_op", "_rb_lsn", "_rb_seq", "_rb_commit_ts", "_rb_unchanged"]
INSERT, UPDATE, DELETE, TRUNCATE, BEFORE = range(1, 6)
MAX_BATCH_BYTES = 16 * 1024 * 1024


def lsn_text(number: int) -> str:
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


@dataclass(frozen=True)
class Change:
    """One row of a change message."""

    stream: str
    op: int
    lsn: int
    seq: int
    commit_ts: Any
    values: dict[str, Any]
    """By column; what is not told is left out."""
    unchanged: tuple[str, ...]

    @property
    def told(self) -> tuple[int, dict[str, Any]]:
        return self.op, self.values


@dataclass
class CapturingHost(Collected):
    """A destination that has room and commits at every barrier, unless told otherwise."""

    commits: bool = True
    rooms: Iterator[bool] | None = None
    """What `room` answers, one after the other; then True."""

    def room(self, seconds: float) -> bool:
        return True if self.rooms is None else next(self.rooms, True)

    def settled(self) -> int:
        return len(self.barriers) if self.commits else 0

    @property
    def batches(self) -> list[tuple[str, pa.Schema, pa.RecordBatch]]:
        """With the stream and its schema."""
        found: list[tuple[str, pa.Schema, pa.RecordBatch]] = []
        schema = None
        for data in self.messages:
            message = pa.ipc.read_message(data)
            if message.type == "schema":
                schema = pa.ipc.read_schema(message)
            else:
                assert schema is not None
                batch = pa.ipc.read_record_batch(message, schema)
                # pyarrow's full check knows no 24:00:00.
                batch.validate(full=not any("time64" in str(kind) for kind in schema.types))
                found.append((schema.metadata[b"rapidbyte:stream"].decode(), schema, batch))
        return found

    @property
    def cursors(self) -> list[str]:
        return [payload["cursor"]["lsn"] for _, payload in self.barriers]


@dataclass(frozen=True)
class Captured:
    host: CapturingHost
    answer: dict[str, Any]

    @property
    def lsn(self) -> str:
        lsn: str = self.answer["lsn"]
        return lsn

    @property
    def changes(self) -> list[Change]:
        """Of all streams, in the order of their commits."""
        found = [change for stream, _, batch in self.host.batches for change in _changes(stream, batch)]
        return sorted(found, key=lambda change: (change.lsn, change.seq))

    def of(self, stream: str) -> list[Change]:
        return [change for change in self.changes if change.stream == stream]

    def told(self, stream: str) -> list[tuple[int, dict[str, Any]]]:
        return [change.told for change in self.of(stream)]

    def schema(self, stream: str) -> pa.Schema:
        """The last one."""
        return [schema for name, schema, _ in self.host.batches if name == stream][-1]

    def field_metadata(self, stream: str, name: str) -> dict[str, str]:
        metadata = self.schema(stream).field(name).metadata or {}
        return {key.decode(): value.decode() for key, value in metadata.items()}

    def schemas(self, stream: str) -> list[pa.Schema]:
        """Those that differ, in their order."""
        found: list[pa.Schema] = []
        for name, schema, _ in self.host.batches:
            if name == stream and (not found or not found[-1].equals(schema, check_metadata=True)):
                found.append(schema)
        return found


def _changes(stream: str, batch: pa.RecordBatch) -> Iterator[Change]:
    names = batch.schema.names[len(MARKS) :]
    for row in batch.to_pylist():
        bitmap = row["_rb_unchanged"]
        unchanged = tuple(name for i, name in enumerate(names) if bitmap is not None and bitmap[i // 8] >> (i % 8) & 1)
        values = {name: row[name] for name in names if name not in unchanged}
        yield Change(stream, row["_rb_op"], row["_rb_lsn"], row["_rb_seq"], row["_rb_commit_ts"], values, unchanged)


@dataclass
class Capturing:
    """A slot with a publication of the same name, and how far its streams have come."""

    database: Database
    slot: str
    position: str
    positions: dict[str, str] = field(default_factory=dict)
    """Of single streams, where they differ."""

    def streams(self, *streams: str | Mapping[str, Any]) -> list[dict[str, Any]]:
        described = [{"name": stream} if isinstance(stream, str) else dict(stream) for stream in streams]
        return [
            stream_argument(**{"sync_mode": "cdc", **stream})
            | {"position": self.positions.get(stream["name"], self.position)}
            for stream in described
        ]

    def argument(self, *streams: str | Mapping[str, Any], **others: Any) -> dict[str, Any]:
        how = {"target": "now"} if "seconds" not in others else {}
        return {
            "slot": self.slot,
            "publication": self.slot,
            "streams": self.streams(*streams),
            "max_batch_bytes": MAX_BATCH_BYTES,
            **how,
            **others,
        }

    @contextlib.contextmanager
    def instance(self, host: CapturingHost, **options: Any) -> Iterator[Instance]:
        with open_source(host, self.database.config, **options) as instance:
            instance.call("rb_open", open_argument(self.database.config))
            yield instance

    def catch_up(
        self,
        *streams: str | Mapping[str, Any],
        host: CapturingHost | None = None,
        confirm: bool = True,
        max_memory: int = 256 * 1024 * 1024,
        **others: Any,
    ) -> Captured:
        """One `rb_capture`; what it brought counts as applied, and is confirmed."""
        host = host or CapturingHost()
        with self.instance(host, max_memory=max_memory) as instance:
            answer = instance.call("rb_capture", self.argument(*streams, **others))
            if confirm:
                assert instance.call("rb_confirm", {"lsn": answer["lsn"]}) == {}
        captured = Captured(host, answer)
        assert [payload["final"] for _, payload in host.barriers] == [False] * (len(host.barriers) - 1) + [True]
        assert [lsn_number(cursor) for cursor in host.cursors] == sorted(map(lsn_number, host.cursors))
        assert host.cursors[-1] == answer["lsn"]
        assert sum(batch.num_rows for _, _, batch in host.batches) == answer["rows"]
        self.position = answer["lsn"]
        self.positions.clear()
        return captured

    @property
    def confirmed(self) -> str:
        """Where the server has the slot."""
        [[lsn]] = self.database.fetch(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", [self.slot]
        )
        return str(lsn)

    @property
    def is_active(self) -> bool:
        [[active]] = self.database.fetch("SELECT active FROM pg_replication_slots WHERE slot_name = %s", [self.slot])
        return bool(active)


@contextlib.contextmanager
def capturing(database: Database, tables: Sequence[str] | None = None, *, options: str = "") -> Iterator[Capturing]:
    """A slot and a publication of `tables` (SQL; None: of all), which go with it."""
    slot = unique_name("capture")
    name = sql.Identifier(slot).as_string()
    members = "ALL TABLES" if tables is None else "TABLE " + ", ".join(tables)
    database.execute(f"CREATE PUBLICATION {name} FOR {members} {options}", superuser=True)
    [[position]] = database.fetch("SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    try:
        yield Capturing(database, slot, position)
    finally:
        database.execute(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = %s AND active",
            [slot],
            superuser=True,
        )
        database.execute(f"SELECT pg_drop_replication_slot('{slot}')", superuser=True)
        database.execute(f"DROP PUBLICATION {name}", superuser=True)
