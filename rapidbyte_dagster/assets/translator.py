"""How a stream becomes asset specs: the one place a user overrides to change keys, groups, owners or metadata."""

from __future__ import annotations

import hashlib
import json
import warnings
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dagster as dg

from rapidbyte_dagster.assets.binding import AssetPart
from rapidbyte_dagster.assets.names import key_part
from rapidbyte_dagster.assets.slot_names import SlotPlace, slot_group_of
from rapidbyte_dagster.config import Pipeline, SlotGroup, Stream

# Raised by hand when the engine starts to move the same configuration differently.
_MOVE_VERSION = 1

_KEPT_DESCRIPTIONS = {
    "checkpoint": "How far `{stream}` is committed at the destination, and since when.",
    "schema": "The destination table's columns and key as `{stream}` last wrote them, and their history.",
    "dlq": "Rows of `{stream}` that could not be written, with the reason; empty when all went well.",
}


@dataclass(frozen=True)
class StreamTranslatorData:
    """What a translator knows of an asset: the stream, and which of its assets is asked for."""

    pipeline: Pipeline
    stream: Stream
    asset: AssetPart = "table"

    def of(self, asset: AssetPart) -> StreamTranslatorData:
        """The same stream's other asset."""
        other = copy(self)  # with what is known already: a code location may hold thousands of streams
        object.__setattr__(other, "asset", asset)
        return other

    @cached_property
    def slot_group(self) -> SlotGroup | None:
        """The streams that this one shares its replication slot with, itself included; None without sync_mode cdc."""
        return slot_group_of(self.pipeline, self.stream)

    @cached_property
    def source_kind(self) -> str:
        """The technology read from: `postgres` for `source-postgres`."""
        return _kind(self.pipeline.source.use, "source-")

    @cached_property
    def destination_kind(self) -> str:
        return _kind(self.pipeline.destination.use, "dest-")

    @cached_property
    def source_schema(self) -> str | None:
        """The schema read from; None when it comes from the environment."""
        return self.stream.schema_ or _static_text(self.pipeline.source.config.get_static("schema"))

    @cached_property
    def source_table(self) -> str:
        """As far as the file tells without its environment: `database.schema.table`."""
        database = _static_text(self.pipeline.source.config.get_static("database"))
        return ".".join(part for part in (database, self.source_schema, self.stream.name) if part)

    @cached_property
    def destination_table(self) -> str:
        config = self.pipeline.destination.config
        schema, database = _static_text(config.get_static("schema")), _static_text(config.get_static("database"))
        table = self.pipeline.destination_table(self.stream)
        return ".".join(part for part in (database, schema, table) if part)

    @cached_property
    def code_version(self) -> str:
        """Changes exactly when the file asks for other data: 16 hexadecimal digits, no secret takes part in them."""
        pipeline, stream = self.pipeline, self.stream
        source, destination = pipeline.source, pipeline.destination
        asked: list[Any] = [
            _MOVE_VERSION,
            [source.use, source.config.fingerprint()],
            [destination.use, destination.config.fingerprint()],
            _asked_of(stream),
            destination.model_dump(mode="json", exclude={"config", "permissions", "limits", "dead_letters"}),
        ]
        # Only where there are any: what a stream without them asks for is what it always was.
        if transforms := pipeline.transforms_of(stream):
            asked.append([[transform.use, transform.config.fingerprint()] for _, transform in transforms])
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


class RapidbyteTranslator:
    """Override `get_asset_spec` to name and describe assets differently:

        class Prefixed(RapidbyteTranslator):
            def get_asset_spec(self, data):
                spec = super().get_asset_spec(data)
                return spec.replace_attributes(key=spec.key.with_prefix("warehouse"))

    It is asked for each of a stream's assets (`data.asset`), and for the table that the stream reads (`"source"`).
    Dependencies between them follow the keys that it gives.
    """

    def get_asset_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        if data.asset == "source":
            return self._source_spec(data)
        if data.asset == "table":
            return self._table_spec(data)
        return self._kept_spec(data)

    def get_slot_spec(self, pipeline: Pipeline, group: SlotGroup) -> dg.AssetSpec:
        """The replication slot that the streams of `group` read from, as an external asset upstream of their tables."""
        place = SlotPlace(pipeline, group)
        kind = StreamTranslatorData(pipeline, group.streams[0]).source_kind
        return dg.AssetSpec(
            key=dg.AssetKey([pipeline.name, group.name, "slot"]),
            description=f"Where changes of pipeline `{pipeline.name}` come from. Observed by its sensor and its runs.",
            group_name=pipeline.name,
            kinds={kind},
            metadata={"replication_slot": place.name} if place.name else {},
        )

    def _source_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        parts = [data.pipeline.name, "source", data.source_schema, data.stream.name]
        return dg.AssetSpec(
            key=dg.AssetKey([key_part(part) for part in parts if part]),
            description=f"The table `{data.source_table}` that pipeline `{data.pipeline.name}` reads.",
            group_name=data.stream.dagster.group or data.pipeline.name,
            kinds={data.source_kind},
            metadata={"dagster/table_name": data.source_table, "dagster/storage_kind": data.source_kind},
        )

    def _table_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        pipeline, stream = data.pipeline, data.stream
        mode = pipeline.write_mode(stream)
        return dg.AssetSpec(
            key=_table_key(data),
            deps=[self.get_asset_spec(data.of("source")).key, *self._slots(data)],
            description=f"`{data.destination_table}`, copied from `{data.source_table}`: {stream.sync_mode}, {mode}.",
            kinds=set(stream.dagster.kinds or (data.destination_kind, "rapidbyte")),
            metadata={
                "dagster/table_name": data.destination_table,
                "dagster/storage_kind": data.destination_kind,
                "sync_mode": str(stream.sync_mode),
                "write_mode": str(mode),
                **_transforms(data),
                **_code_references(data),
            },
            **_shared_options(data),
        )

    def _slots(self, data: StreamTranslatorData) -> list[dg.AssetKey]:
        group = data.slot_group
        return [] if group is None else [self.get_slot_spec(data.pipeline, group).key]

    def _kept_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        return dg.AssetSpec(
            key=dg.AssetKey([*_table_key(data).path, data.asset]),
            deps=[self.get_asset_spec(data.of("table")).key],
            description=_KEPT_DESCRIPTIONS[data.asset].format(stream=data.stream.name),
            kinds={"rapidbyte"},
            metadata=_code_references(data),
            **_shared_options(data),
        )


def _asked_of(stream: Stream) -> dict[str, Any]:
    asked = stream.model_dump(mode="json", exclude={"dagster", "dead_letters", "line"})
    # Younger than the others: where it is not given, a stream asks for what it always did.
    if asked["truncate"] is None:
        del asked["truncate"]
    return asked


def _table_key(data: StreamTranslatorData) -> dg.AssetKey:
    return dg.AssetKey(data.stream.dagster.key or [data.pipeline.name, key_part(data.stream.name)])


def _shared_options(data: StreamTranslatorData) -> dict[str, Any]:
    """What holds for all assets of a stream: its `dagster:` options and its code version."""
    options = data.stream.dagster
    return {
        "group_name": options.group or data.pipeline.name,
        "owners": list(options.owners or ()),
        "tags": dict(options.tags or {}),
        "code_version": data.code_version,
    }


def _transforms(data: StreamTranslatorData) -> dict[str, str]:
    names = [_name(transform.use) for _, transform in data.pipeline.transforms_of(data.stream)]
    return {"transforms": ", ".join(names)} if names else {}


def _code_references(data: StreamTranslatorData) -> dict[str, Any]:
    file, line = str(data.pipeline.path), data.stream.line
    with warnings.catch_warnings():
        # Dagster's two classes are public but in beta, and would say so once per asset.
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=file, line_number=line, label=f"stream {data.stream.name}")
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def _kind(use: str, role: str) -> str:
    """A kind tag of the connector's technology, from its name or its module's file name."""
    return key_part(_name(use).removeprefix(role))[:63] or "rapidbyte"


def _name(use: str) -> str:
    """The connector's name, or that of its module's file."""
    return use.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".wasm")


def _static_text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
