"""Changes of tables as a source captures them, and dest-postgres at applying them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa

from rapidbyte_dagster.runtime import Barrier, End, Item, Message
from tests.integration.destination.feed import PIPELINE, Destination, Feed, Hook, batch_item, schema_item

OPS = {"insert": 1, "update": 2, "delete": 3, "truncate": 4, "old": 5}
FIRST_COMMIT = 1_700_000_000_000_000
"""Microseconds since 1970 of the commit with LSN 0; each LSN is a second later."""

META: list[pa.Field[Any]] = [
    pa.field("_rb_op", pa.int16(), nullable=False),
    pa.field("_rb_lsn", pa.int64(), nullable=False),
    pa.field("_rb_seq", pa.int64(), nullable=False),
    pa.field("_rb_commit_ts", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("_rb_unchanged", pa.binary()),
]


@dataclass(frozen=True)
class Change:
    """What happened to one row; `values` in the order of the columns, those behind the last one NULL."""

    op: str
    values: tuple[Any, ...] = ()
    unchanged: tuple[str, ...] = ()
    """Columns that an update does not tell."""


def insert(*values: Any) -> Change:
    return Change("insert", values)


def update(*values: Any, unchanged: Sequence[str] = ()) -> Change:
    return Change("update", values, tuple(unchanged))


def old(*values: Any) -> Change:
    """The key, or all, of the row that the update behind it changes."""
    return Change("old", values)


def delete(*values: Any) -> Change:
    return Change("delete", values)


def truncate() -> Change:
    return Change("truncate")


@dataclass(frozen=True)
class Table:
    """A source table, as its changes tell of it."""

    name: str
    columns: Sequence[pa.Field[Any]]
    """As `feed.column` makes them; NOT NULL is told by `nullable=False`."""
    key: Sequence[str] = ("id",)
    replica_identity: str = "default"
    identity: Sequence[str] | None = field(default=None)
    """The columns that a change is told by; those of the key unless said otherwise."""

    @property
    def schema(self) -> pa.Schema:
        fields: list[pa.Field[Any]] = [
            f.with_nullable(True).with_metadata(
                cast("Any", {**(f.metadata or {}), b"rapidbyte:not_null": b"false" if f.nullable else b"true"})
            )
            for f in self.columns
        ]
        identity = list(self.key) or None if self.identity is None else list(self.identity)
        if self.replica_identity in {"full", "nothing"}:
            identity = None
        metadata = {
            "rapidbyte:stream": self.name,
            "rapidbyte:primary_key": json.dumps(list(self.key)),
            "rapidbyte:replica_identity": self.replica_identity,
            "rapidbyte:identity": json.dumps(identity),
        }
        return pa.schema([*META, *fields], metadata=cast("Any", metadata))

    def batch(self, lsn: int, changes: Sequence[Change], *, seq: int = 1) -> pa.RecordBatch:
        """Changes of one transaction, numbered from `seq`."""
        return self.batch_of([(lsn, seq + i, change) for i, change in enumerate(changes)])

    def batch_of(self, changes: Sequence[tuple[int, int, Change]]) -> pa.RecordBatch:
        """Changes by LSN and number."""
        names = [f.name for f in self.columns]

        def bits(change: Change) -> bytes | None:
            if not change.unchanged:
                return None
            number = sum(1 << names.index(name) for name in change.unchanged)
            return number.to_bytes((len(names) + 7) // 8, "little")

        arrays: list[pa.Array[Any]] = [
            pa.array([OPS[change.op] for *_, change in changes], pa.int16()),
            pa.array([lsn for lsn, *_ in changes], pa.int64()),
            pa.array([seq for _, seq, _ in changes], pa.int64()),
            pa.array([FIRST_COMMIT + lsn * 1_000_000 for lsn, *_ in changes], pa.timestamp("us", tz="UTC")),
            pa.array([bits(change) for *_, change in changes], pa.binary()),
        ]
        for i, column in enumerate(self.columns):
            values = [change.values[i] if i < len(change.values) else None for *_, change in changes]
            arrays.append(pa.array(values, column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def messages(self, lsn: int, *changes: Change, seq: int = 1) -> list[Message]:
        """Schema and batch of changes of one transaction."""
        return [schema_item(self.schema), batch_item(self.batch(lsn, changes, seq=seq))]


def position(number: int, *streams: str, final: bool = False, lsn: int = 0) -> Barrier:
    """A barrier behind which all these streams are at `lsn`."""
    cursor = {"lsn": f"0/{lsn:X}", "commit_ts": None}
    marks = {stream: {"sequence": number, "cursor": cursor} for stream in streams}
    return Barrier(json.dumps({"sequence": number, "final": final, "streams": marks}).encode())


@dataclass(frozen=True)
class Applied:
    opened: dict[str, Any]
    result: dict[str, Any]
    feed: Feed

    @property
    def prepared(self) -> list[dict[str, Any]]:
        """What the destination said before each commit."""
        return [payload for what, payload in self.feed.said if what == "prepare"]

    @property
    def stopped(self) -> dict[str, Any]:
        """Streams that could not go on, and why."""
        return cast("dict[str, Any]", self.prepared[-1]["stopped"])


def described(stream: str | Mapping[str, Any]) -> dict[str, Any]:
    """A STREAM as rb_apply takes it: an upsert into the table of the same name unless said otherwise."""
    given = {"name": stream} if isinstance(stream, str) else dict(stream)
    return {
        "schema": None,
        "table": given["name"],
        "write_mode": "upsert",
        "primary_key": None,
        "schema_evolution": None,
        "known_columns": None,
        "on_data_error": "fail",
        "deletes": "hard" if given.get("write_mode", "upsert") == "upsert" else None,
        "truncate": "apply",
        "target": "must_exist",
        **given,
    }


def apply(
    destination: Destination,
    items: Iterable[Item],
    *streams: str | Mapping[str, Any],
    on_prepare: Hook | None = None,
    run_id: str = "run",
) -> Applied:
    """One capture's changes, from `rb_open` to `rb_close`. `items` end with a barrier."""
    told = [described(stream) for stream in streams]
    feed = Feed([*items, End()], on_prepare=on_prepare)
    with destination.instance(feed) as instance:
        argument = {
            "config": {**destination.database.config, **destination.config},
            "pipeline": PIPELINE,
            "stream": None,
            "streams": [stream["name"] for stream in told],
            "run_id": run_id,
        }
        opened = instance.call("rb_open", argument)
        result = instance.call("rb_apply", {"streams": told})
    return Applied(opened, result, feed)


def apply_changes(destination: Destination, table: Table, *changes: Change, lsn: int = 100, **stream: Any) -> Applied:
    """One transaction of changes of one table."""
    items: list[Item] = [*table.messages(lsn, *changes), position(1, table.name, final=True, lsn=lsn + 8)]
    return apply(destination, items, {"name": table.name, **stream})
