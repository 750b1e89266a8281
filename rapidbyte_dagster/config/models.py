"""The pipeline file as frozen, typed models: an attribute per key, sizes in bytes, durations in seconds.

Nothing here touches the environment: `${NAME}` stays as written in connector configs, `allowed_hosts`, `filter` and
`state` until `Pipeline.resolve`. Rules between keys live in `rules.py`, what is not built yet in `unsupported.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PrivateAttr

from rapidbyte_dagster.config.capabilities import Limits, Permissions, Section
from rapidbyte_dagster.config.connector_config import ConnectorConfig, missing_variables
from rapidbyte_dagster.config.dead_letter_limits import DEFAULT_LIMITS, DeadLetterLimits
from rapidbyte_dagster.config.op_options import OpOptions
from rapidbyte_dagster.config.problems import Origin, raise_problems
from rapidbyte_dagster.config.replication import CaptureOptions, SlotGroup, Truncates, slot_groups
from rapidbyte_dagster.config.resolved import ResolvedPipeline, resolve
from rapidbyte_dagster.config.state_connection import StateConnection, resolve_connection
from rapidbyte_dagster.config.substitution import expand
from rapidbyte_dagster.config.values import (
    AS_TUPLE,
    DISTINCT,
    NOT_EMPTY,
    AssetKeyParts,
    ColumnNames,
    CronSchedule,
    DestinationTable,
    Duration,
    GroupName,
    Identifier,
    Kinds,
    LetterTable,
    MemorySize,
    Owners,
    Parallelism,
    PipelineName,
    PositiveSize,
    Shards,
    Size,
    SlotName,
    TagKey,
    TagValue,
    Text,
    choice,
    refuse,
)

FORMAT_VERSION = "1.0"
PARALLELISM_AUTO_LIMIT = 16
"""`parallelism: auto` is the CPU count, and no more than this many streams at once."""
RETRY_LIMIT = 100
ROW_LIMIT = 2**53
INTERVAL_LIMIT_SECONDS = 24 * 3600
MEGABYTE = 1024 * 1024


class SyncMode(str, Enum):
    __str__ = str.__str__

    FULL_REFRESH = "full_refresh"
    INCREMENTAL = "incremental"
    CDC = "cdc"


class WriteMode(str, Enum):
    __str__ = str.__str__

    APPEND = "append"
    REPLACE = "replace"
    UPSERT = "upsert"


class OnDataError(str, Enum):
    __str__ = str.__str__

    FAIL = "fail"
    SKIP = "skip"
    DLQ = "dlq"


class Deletes(str, Enum):
    __str__ = str.__str__

    HARD = "hard"
    SOFT = "soft"


class NewColumn(str, Enum):
    __str__ = str.__str__

    ADD = "add"
    IGNORE = "ignore"
    FAIL = "fail"


class RemovedColumn(str, Enum):
    __str__ = str.__str__

    IGNORE = "ignore"
    ADD = "add"
    FAIL = "fail"


class TypeChange(str, Enum):
    __str__ = str.__str__

    FAIL = "fail"
    COERCE = "coerce"
    NULL = "null"


class NullabilityChange(str, Enum):
    __str__ = str.__str__

    ALLOW = "allow"
    FAIL = "fail"


class StateBackend(str, Enum):
    __str__ = str.__str__

    SQLITE = "sqlite"
    POSTGRES = "postgres"


def _version(value: object) -> object:
    if value != FORMAT_VERSION or not isinstance(value, str):
        refuse(f'"{FORMAT_VERSION}" (a text, so in quotes)')
    return value


class AssetOptions(Section):
    """How the stream's assets look in Dagster; what is left out is the translator's to choose."""

    key: AssetKeyParts | None = Field(
        None, description='The asset key: a list of parts, or one text such as "raw/users".'
    )
    group: GroupName | None = Field(None, description="The asset group.")
    owners: Owners = Field((), description="E-mail addresses and team:NAME.")
    tags: Mapping[TagKey, TagValue] = Field(default_factory=dict, description="Tags of the asset.")
    kinds: Kinds = Field((), description="At most ten kinds, shown as badges.")


class DagsterOptions(OpOptions, AssetOptions):
    """How the stream's assets look in Dagster, and how their step runs."""


class Stream(Section):
    """One table's way from source to destination."""

    name: Identifier = Field(description="The source table.")
    schema_: Identifier | None = Field(
        None, alias="schema", description="The source table's schema. Default: `schema` of the source's config."
    )
    sync_mode: Annotated[SyncMode, choice(SyncMode)] = Field(
        SyncMode.FULL_REFRESH, description="How the table is read."
    )
    cursor_field: Identifier | None = Field(
        None, description="incremental: the column whose values grow with every change; the last one is remembered."
    )
    tie_breaker_field: Identifier | None = Field(
        None, description="incremental: tells rows of equal cursor apart. Default: the primary key."
    )
    cursor_lag: Duration | None = Field(
        None, description="incremental with upsert: read again this much before the stored cursor."
    )
    shards: Shards = Field(
        "auto",
        description="full_refresh, cdc: parts of the table read at once; auto (by its size), or a number, 1 for none.",
    )
    partition_key: Identifier | None = Field(
        None, description="full_refresh, cdc: the column to split the read by. Default: where the rows lie (ctid)."
    )
    columns: ColumnNames | None = Field(None, description="The columns to copy, in this order. Default: all.")
    filter: Text | None = Field(None, description="An SQL predicate that the source database evaluates.")
    table: DestinationTable | None = Field(None, description="The destination table. Default: the stream's name.")
    write_mode: Annotated[WriteMode, choice(WriteMode)] | None = Field(
        None, description="Overrides the destination's write_mode."
    )
    primary_key: ColumnNames | None = Field(
        None,
        description="Overrides the destination's primary_key. Default: the source table's own key; none for append.",
    )
    replication_slot: SlotName | None = Field(
        None, description="cdc: a slot of the stream's own, and so a step of its own."
    )
    deletes: Annotated[Deletes, choice(Deletes)] | None = Field(
        None,
        description="cdc with upsert: hard (the row goes) or soft (it stays, and _rb_deleted_at tells when).",
    )
    truncate: Annotated[Truncates, choice(Truncates)] | None = Field(
        None, description="cdc: what a TRUNCATE of the source table does: apply, ignore or fail. Default: apply."
    )
    dead_letters: DeadLetterLimits = Field(
        DeadLetterLimits(),
        description="on_data_error skip or dlq: overrides the destination's dead_letters, key by key.",
    )
    dagster: DagsterOptions = Field(
        DagsterOptions(), description="How the assets look in Dagster, and how their step runs."
    )

    _location: tuple[str, int] = PrivateAttr(("", 0))

    @property
    def location(self) -> tuple[str, int]:
        """The file and the line (from 1) where the stream is declared."""
        return self._location

    @property
    def line(self) -> int:
        return self._location[1]


Streams = Annotated[tuple[Stream, ...], AS_TUPLE, NOT_EMPTY]


class Source(Section):
    use: Text = Field(description="A source connector's name, or a path to a .wasm beside its manifest.")
    config: ConnectorConfig = Field(description="The connector's own config.")
    permissions: Permissions = Field(Permissions(), description="What the connector may reach.")
    limits: Limits = Field(Limits(), description="What the connector may use up.")
    streams: Streams = Field(description="The tables to copy.", json_schema_extra={"minItems": 1})


class Transform(Section):
    use: Text = Field(description="A transform connector's name, or a path to a .wasm beside its manifest.")
    streams: Annotated[tuple[Identifier, ...], AS_TUPLE, NOT_EMPTY, DISTINCT] | None = Field(
        None, description="The streams it applies to. Default: every stream."
    )
    config: ConnectorConfig = Field(ConnectorConfig({}), description="The connector's own config.")
    permissions: Permissions = Field(Permissions(), description="What the connector may reach.")
    limits: Limits = Field(Limits(), description="What the connector may use up.")


class SchemaEvolution(Section):
    """What happens when a stream's columns differ from those of its destination table."""

    new_column: Annotated[NewColumn, choice(NewColumn)] = Field(
        NewColumn.ADD,
        description="A column that the table lacks: add it, ignore it (it is not written), or fail.",
    )
    removed_column: Annotated[RemovedColumn, choice(RemovedColumn)] = Field(
        RemovedColumn.IGNORE,
        description="A column that the stream no longer has: keep it and write NULL (ignore, add), or fail.",
    )
    type_change: Annotated[TypeChange, choice(TypeChange)] = Field(
        TypeChange.FAIL,
        description="Another type: fail; coerce (widen the column where that loses nothing, else cast the values);"
        " or null (NULL for values that do not fit).",
    )
    nullability_change: Annotated[NullabilityChange, choice(NullabilityChange)] = Field(
        NullabilityChange.ALLOW,
        description="A column that may hold NULL now, or may not any longer: allow (the table follows), or fail.",
    )


class Destination(Section):
    use: Text = Field(description="A destination connector's name, or a path to a .wasm beside its manifest.")
    config: ConnectorConfig = Field(description="The connector's own config.")
    permissions: Permissions = Field(Permissions(), description="What the connector may reach.")
    limits: Limits = Field(Limits(), description="What the connector may use up.")
    write_mode: Annotated[WriteMode, choice(WriteMode)] = Field(description="How rows are written.")
    primary_key: ColumnNames | None = Field(
        None, description="The key of upserts and of created tables. Default: the source table's own; none for append."
    )
    on_data_error: Annotated[OnDataError, choice(OnDataError)] = Field(
        OnDataError.FAIL,
        description="A row that fails on its data: fail the stream, skip the row (and count it), or keep it as a dead"
        " letter (dlq).",
    )
    dlq_table: LetterTable | None = Field(
        None,
        description="on_data_error dlq: the table of the state store where refused rows go. Default: _rapidbyte_dlq.",
    )
    dead_letters: DeadLetterLimits = Field(
        DeadLetterLimits(),
        description="on_data_error skip or dlq: of how many rows that a run leaves out the asset check dead_letters"
        " warns, and of how many it fails.",
    )
    schema_evolution: SchemaEvolution = Field(
        SchemaEvolution(), description="What happens when the source table's columns change."
    )


class StateConfig(Section):
    """Where checkpoints are kept."""

    backend: Annotated[StateBackend, choice(StateBackend)] = Field(
        StateBackend.SQLITE, description="The kind of store."
    )
    path: Text | None = Field(None, description="sqlite: the file. May hold ${NAME}.")
    connection: Text | None = Field(None, repr=False, description="postgres: the connection string. May hold ${NAME}.")

    _origin: Origin = PrivateAttr(Origin("", {}))

    def resolve_path(self, environ: Mapping[str, str]) -> str | None:
        """`path` with its variables. Raises ConfigError that names the missing ones."""
        if self.path is None:
            return None
        raise_problems(self._origin.file, missing_variables(self._origin, [(("state", "path"), self.path)], environ))
        return expand(self.path, environ)

    def resolve_connection(self, environ: Mapping[str, str]) -> StateConnection:
        """`connection` with its variables. Raises ConfigError that names the missing ones, or what does not fit."""
        assert self.connection is not None, "the loader requires it for backend: postgres"
        return resolve_connection(self._origin, self.connection, environ)


class Resources(Section):
    parallelism: Parallelism = Field("auto", description="Streams at once: auto (CPU count, at most 16) or a number.")
    max_memory: MemorySize = Field(256 * MEGABYTE, description="Linear memory of one connector instance.")
    max_batch_bytes: PositiveSize = Field(16 * MEGABYTE, description="The largest batch, unless one row is larger.")
    max_inflight_bytes: PositiveSize = Field(64 * MEGABYTE, description="What waits between two stages at most.")
    checkpoint_interval_bytes: Size = Field(64 * MEGABYTE, description="Commit after this many bytes; 0 is off.")
    checkpoint_interval_rows: Annotated[int, Field(ge=0, le=ROW_LIMIT)] = Field(
        0, description="Commit after this many rows; 0 is off."
    )
    checkpoint_interval_seconds: Annotated[int, Field(ge=0, le=INTERVAL_LIMIT_SECONDS)] = Field(
        0, description="Commit after this many seconds; 0 is off."
    )
    max_retries: Annotated[int, Field(ge=0, le=RETRY_LIMIT)] = Field(
        3, description="How often a stream is tried again after a transient error."
    )

    @property
    def streams_at_once(self) -> int:
        """`parallelism` as a number: `auto` is the CPU count of this machine, at most 16."""
        if self.parallelism == "auto":
            return max(1, min(os.cpu_count() or 1, PARALLELISM_AUTO_LIMIT))
        return self.parallelism


class Pipeline(Section):
    version: Annotated[Literal["1.0"], BeforeValidator(_version)] = Field(description="The format of this file.")
    name: PipelineName = Field(alias="pipeline", description="Names the jobs, the slots and the state.")
    schedule: CronSchedule | None = Field(None, description="Cron of the batch streams. Not supported yet.")
    source: Source = Field(description="Where the rows come from.")
    transforms: Annotated[tuple[Transform, ...], AS_TUPLE] = Field(
        (), description="What rows go through on their way, in this order; one chain per stream."
    )
    destination: Destination = Field(description="Where the rows go.")
    state: StateConfig = Field(default_factory=StateConfig, description="Where checkpoints are kept.")
    resources: Resources = Field(Resources(), description="How much of the machine a run may use.")
    dagster: OpOptions = Field(OpOptions(), description="How Dagster runs the steps of streams that say nothing else.")
    cdc: CaptureOptions = Field(CaptureOptions(), description="Sensors and health of the pipeline's replication slots.")

    _path: Path = PrivateAttr(Path())
    _origin: Origin = PrivateAttr(Origin("", {}))

    def bind(self, path: Path, origin: Origin) -> None:
        """Told once, by the loader: the file it came from and the lines of its keys."""
        self._path, self._origin, self.state._origin = path, origin, origin
        for index, stream in enumerate(self.source.streams):
            stream._location = (origin.file, origin.line(("source", "streams", index)) or 1)

    @property
    def path(self) -> Path:
        """The absolute path of the file."""
        return self._path

    @property
    def origin(self) -> Origin:
        """The lines of the keys that a run resolves, for errors found then."""
        return self._origin

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self.source.streams

    def stream(self, name: str) -> Stream:
        """The stream of that name. Raises KeyError."""
        for stream in self.source.streams:
            if stream.name == name:
                return stream
        raise KeyError(name)

    def destination_table(self, stream: Stream) -> str:
        """The table's name, without its schema."""
        return stream.table or stream.name

    def write_mode(self, stream: Stream) -> WriteMode:
        return stream.write_mode or self.destination.write_mode

    def op_options(self, stream: Stream) -> OpOptions:
        """How Dagster runs the stream's step: what the stream says, before what the pipeline says."""
        return stream.dagster.over(self.dagster)

    def primary_key(self, stream: Stream) -> tuple[str, ...] | None:
        """The key columns that the file names for the stream; None leaves it to the source table's own key."""
        return stream.primary_key or self.destination.primary_key

    def transforms_of(self, stream: Stream) -> tuple[tuple[int, Transform], ...]:
        """The stream's chain, in order: each with its place in the file, from 0."""
        return tuple(
            (index, transform)
            for index, transform in enumerate(self.transforms)
            if transform.streams is None or stream.name in transform.streams
        )

    @property
    def slot_groups(self) -> tuple[SlotGroup, ...]:
        """The streams of sync_mode cdc, by the replication slot that they share."""
        return slot_groups(self)

    def slot_group(self, name: str) -> SlotGroup:
        """The group of that name. Raises KeyError."""
        for group in self.slot_groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def dead_letter_limits(self, stream: Stream) -> DeadLetterLimits:
        """What a run of the stream may leave out: its own limits, then the destination's, then the defaults."""
        return stream.dead_letters.over(self.destination.dead_letters).over(DEFAULT_LIMITS)

    def resolve(self, environ: Mapping[str, str], *, stream: Stream | None = None) -> ResolvedPipeline:
        """Everything that depends on the environment, with it: see `ResolvedPipeline`.

        `stream` limits it to what that stream needs. Raises ConfigError that names every missing variable with
        its key and line, or else every value that does not fit.
        """
        return resolve(self, self._origin, environ, stream)
