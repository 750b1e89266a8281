"""Drives the verbs of change data capture in the built source connector, one instance for each question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rapidbyte_dagster.runtime import Instance, NoData
from tests.integration.source.reading import (
    MAX_BATCH_BYTES,
    Collected,
    open_argument,
    open_source,
    stream_argument,
)


def cdc_stream(name: str, **others: Any) -> dict[str, Any]:
    """A stream that mirrors its table, unless `others` say more."""
    return stream_argument(name, **{"sync_mode": "cdc", "write_mode": "upsert", "deletes": "hard", **others})


@dataclass(frozen=True)
class Slot:
    """A slot and its publication, both called `name`, as the verbs see them."""

    config: Mapping[str, Any]
    name: str
    publication: str | None = None

    def call(self, action: str, *streams: Mapping[str, Any], **others: Any) -> dict[str, Any]:
        asked = {"action": action, "slot": self.name, "publication": self.publication or self.name, **others}
        with opened(self.config) as instance:
            answer: dict[str, Any] = instance.call("rb_slot", {**asked, "streams": list(streams)})
            return answer

    def set_up(self, *streams: Mapping[str, Any], began: Sequence[str] = ()) -> dict[str, Any]:
        return self.call("setup", *streams, began=list(began))

    def status(self, *streams: Mapping[str, Any]) -> dict[str, Any]:
        return self.call("status", *streams)

    def tear_down(self, *, slot: bool = True, publication: bool = True) -> dict[str, Any]:
        return self.call("teardown", drop={"slot": slot, "publication": publication})


@contextmanager
def opened(config: Mapping[str, Any], host: NoData | None = None) -> Iterator[Instance]:
    with open_source(host or NoData(), config) as instance:
        instance.call("rb_open", open_argument(config))
        yield instance


@contextmanager
def snapshot(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What `rb_snapshot` answers, held as long as this is entered."""
    with opened(config) as instance:
        yield instance.call("rb_snapshot", {})


def read_snapshot(
    config: Mapping[str, Any], stream: Mapping[str, Any], taken: Mapping[str, Any], shard: Any = None
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The rows of `stream` in that snapshot, and the barriers that were marked."""
    host = Collected()
    with opened(config, host) as instance:
        argument = {"stream": {**stream, "snapshot": dict(taken)}, "cursor": None, "shard": shard}
        instance.call("rb_read", {**argument, "max_batch_bytes": MAX_BATCH_BYTES})
    with pa.ipc.open_stream(pa.BufferReader(b"".join(host.messages))) as reader:
        return reader.read_all(), [payload for _, payload in host.barriers]
