"""A stream ready to run: connectors found, variables filled in, sandboxes drawn, arguments written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rapidbyte_dagster.config import (
    Deletes,
    Destination,
    Manifest,
    OnDataError,
    Permissions,
    Pipeline,
    Redactor,
    ResolvedConfig,
    Role,
    SlotGroup,
    SlotNames,
    Source,
    Stream,
    SyncMode,
    Transform,
    WriteMode,
    find_manifest,
)
from rapidbyte_dagster.engine.start import Start
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Host, Runnable, Sandbox, Worker, sandbox_for
from rapidbyte_dagster.state import SchemaColumn, SchemaState
from rapidbyte_dagster.transforms import load_connector


@dataclass(frozen=True)
class ConnectorPlan:
    """One connector of a run: which module, in which sandbox, with which config."""

    stage: Stage
    connector: Runnable
    sandbox: Sandbox
    config: Mapping[str, Any]

    def worker(self, host: Host) -> Worker:
        return self.connector.worker(host, self.sandbox, self.stage)

    def __repr__(self) -> str:
        return f"ConnectorPlan({self.stage}, {self.connector.manifest.name})"


@dataclass(frozen=True)
class PipelinePlan:
    """Both sides of a pipeline and what is between them, and what hides their secrets."""

    pipeline: Pipeline
    source: ConnectorPlan
    transforms: Mapping[int, ConnectorPlan]
    """Those that are needed, by their place in the file, from 0."""
    destination: ConnectorPlan
    filters: Mapping[str, str | None] = field(repr=False)
    """Each stream's SQL predicate, with its variables filled in."""
    redactor: Redactor = field(repr=False)

    def open_argument(
        self, stage: Stage, *, stream: Stream | None = None, run_id: str | None = None, shard: int | None = None
    ) -> dict[str, object]:
        """What `rb_open` of one side takes; without a stream for `rb_check` and `rb_discover`."""
        side = self.source if stage is Stage.SOURCE else self.destination
        return self.open_argument_of(side, stream, run_id=run_id, shard=shard)

    def open_argument_of(
        self, side: ConnectorPlan, stream: Stream | None = None, *, run_id: str | None = None, shard: int | None = None
    ) -> dict[str, object]:
        return {
            "config": dict(side.config),
            "pipeline": self.pipeline.name,
            "stream": stream.name if stream is not None else None,
            "run_id": run_id,
            "shard": shard,
        }

    def transforms_of(self, stream: Stream) -> tuple[ConnectorPlan, ...]:
        """The stream's chain, in order."""
        return tuple(self.transforms[index] for index, _ in self.pipeline.transforms_of(stream))

    def transform_argument(
        self, stream: Stream, *, on_data_error: OnDataError | None = None, replay: bool = False
    ) -> dict[str, Any]:
        """What `rb_transform` takes. In a replay, rows come in the text forms that dead letters have."""
        key = self.pipeline.primary_key(stream)
        return {
            "stream": {
                "name": stream.name,
                "primary_key": list(key) if key is not None else None,
                "write_mode": str(self.pipeline.write_mode(stream)),
                "on_data_error": str(on_data_error or self.pipeline.destination.on_data_error),
            },
            "replay": replay,
            "max_batch_bytes": self.pipeline.resources.max_batch_bytes,
        }

    def slot_names(self, group: SlotGroup) -> SlotNames:
        """The slot that the group's streams share, and its publication."""
        return group.names(self.pipeline, self.source.config)

    def source_argument(self, stream: Stream, snapshot: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The stream as the ABI's `rb_read`, `rb_split` and `rb_check` describe it to a source; `snapshot` is one of
        `rb_snapshot`, where it is to be read as of that."""
        argument = self._batch_argument(stream)
        if stream.sync_mode is not SyncMode.CDC:
            return argument
        [group] = [group for group in self.pipeline.slot_groups if stream in group.streams]
        names = self.slot_names(group)
        upserts = self.pipeline.write_mode(stream) is WriteMode.UPSERT
        return {
            **argument,
            "deletes": str(stream.deletes or Deletes.HARD) if upserts else None,
            "replication_slot": names.slot,
            "publication": names.publication,
            "snapshot": snapshot,
        }

    def _batch_argument(self, stream: Stream) -> dict[str, Any]:
        key = self.pipeline.primary_key(stream)
        return {
            "name": stream.name,
            "schema": stream.schema_,
            "sync_mode": str(stream.sync_mode),
            "columns": list(stream.columns) if stream.columns is not None else None,
            "filter": self.filters.get(stream.name),
            "cursor_field": stream.cursor_field,
            "tie_breaker_field": stream.tie_breaker_field,
            "cursor_lag": stream.cursor_lag,
            "write_mode": str(self.pipeline.write_mode(stream)),
            "primary_key": list(key) if key is not None else None,
            "shards": None if stream.shards == "auto" else stream.shards,
            "partition_key": stream.partition_key,
            "on_data_error": str(self.pipeline.destination.on_data_error),
        }

    def read_argument(
        self,
        stream: Stream,
        *,
        cursor: Any = None,
        snapshot: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """What `rb_read` takes."""
        resources = self.pipeline.resources
        # A checkpoint lies behind a batch: where they are to be close, batches have to be small.
        close = stream.sync_mode is SyncMode.INCREMENTAL
        return {
            "stream": self.source_argument(stream, snapshot),
            "cursor": cursor,
            "shard": None,
            "max_batch_bytes": min(
                resources.max_batch_bytes, (close and resources.checkpoint_interval_bytes) or resources.max_batch_bytes
            ),
            "max_batch_rows": (close and resources.checkpoint_interval_rows) or None,
        }

    def shards_at_most(self, stream: Stream, write_mode: WriteMode) -> tuple[int, str]:
        """How many pairs of connectors may move a full refresh of `stream` at once, and what does not let it be more.

        Streams of one pipeline run side by side, and those that nobody divided by hand share what is allowed. Nobody
        but the user divides an append: its staged rows are written twice.
        """
        on_data_error = self.pipeline.destination.on_data_error
        if on_data_error is not OnDataError.FAIL:
            # What a shard commits is no checkpoint, and what it left out would belong to none.
            return 1, f"rows can only be left out of a table in one piece, and on_data_error is {on_data_error}"
        if self.transforms_of(stream):
            return 1, "a stream with transforms is moved in one piece"
        if not (self.source.connector.offers("rb_split") and self.destination.connector.offers("rb_stage")):
            return 1, "the connectors move it in one piece"
        allowed = self.pipeline.resources.streams_at_once
        if stream.shards != "auto":
            return min(stream.shards, allowed), f"resources.parallelism allows {allowed}"
        if write_mode is WriteMode.APPEND:
            return 1, "an append is only divided into a number of `shards` that the file names"
        if stream.sync_mode is SyncMode.CDC:
            # The streams of a slot are loaded one after the other.
            return allowed, f"resources.parallelism allows {allowed}"
        shared = allowed // min(len(self.pipeline.streams), allowed)
        return shared, f"resources.parallelism, which the pipeline's streams share, allows {shared} each"

    def loads_in_pieces(self, stream: Stream) -> bool:
        """Whether the first load of `stream` can be taken up by a later run where it was interrupted. Its changes are
        not, nor are rows that a history would have twice."""
        return (
            stream.sync_mode is SyncMode.CDC
            and self.pipeline.write_mode(stream) is WriteMode.UPSERT
            and self.pipeline.destination.on_data_error is OnDataError.FAIL
            and not self.transforms_of(stream)
            and self.source.connector.offers("rb_split")
            and self.destination.connector.offers("rb_stage")
        )

    def destination_argument(
        self, stream: Stream, start: Start = Start.RESUME, *, known: Sequence[SchemaColumn] | None = None
    ) -> dict[str, Any]:
        """The stream as the ABI's `rb_write`, `rb_stage`, `rb_check` and `rb_compare` describe it to a destination.

        `known` are the columns that it ever brought to its table; None where it never ran, or nobody looked.
        """
        key = self.pipeline.primary_key(stream)
        return {
            "name": stream.name,
            "schema": None,
            "table": self.pipeline.destination_table(stream),
            "write_mode": str(start.write_mode(self.pipeline.write_mode(stream))),
            "primary_key": list(key) if key is not None else None,
            "schema_evolution": self.pipeline.destination.schema_evolution.model_dump(mode="json"),
            "known_columns": None
            if known is None
            else [
                {"name": column.name, "nullable": column.nullable, "stream_nullable": column.stream_nullable}
                for column in known
            ],
            "on_data_error": str(self.pipeline.destination.on_data_error),
        }

    def known_columns(self, stream: Stream, schema: SchemaState) -> tuple[SchemaColumn, ...] | None:
        """The columns that `stream` ever brought to its table, by what is written down; None when it never ran."""
        # Written down as it may be shown.
        return schema.columns_brought_to(self.redactor.redact(self.pipeline.destination_table(stream)))


def plan_pipeline(pipeline: Pipeline, environ: Mapping[str, str], stream: Stream | None = None) -> PipelinePlan:
    """Fills in the variables (those that `stream` needs, where one is named) and draws the sandboxes.

    Raises `ConfigError` for a missing variable, a bad value or a module that is not a connector.
    """
    resolved = pipeline.resolve(environ, stream=stream)

    def planned(
        stage: Stage,
        used: Source | Transform | Destination,
        config: ResolvedConfig,
        permissions: Permissions,
        section: str,
    ) -> ConnectorPlan:
        manifest = find_manifest(used.use, _ROLES[stage], pipeline.path.parent)
        sandbox = sandbox_for(manifest, config.values, permissions, used.limits, pipeline.resources.max_memory, section)
        return ConnectorPlan(stage, load_connector(manifest), sandbox, config.values)

    return PipelinePlan(
        pipeline,
        planned(Stage.SOURCE, pipeline.source, resolved.source, resolved.source_permissions, "source"),
        {
            index: planned(
                Stage.TRANSFORM, pipeline.transforms[index], each.config, each.permissions, f"transforms[{index}]"
            )
            for index, each in resolved.transforms.items()
        },
        planned(
            Stage.DESTINATION,
            pipeline.destination,
            resolved.destination,
            resolved.destination_permissions,
            "destination",
        ),
        resolved.filters,
        Redactor(resolved.secrets),
    )


_ROLES = {Stage.SOURCE: Role.SOURCE, Stage.TRANSFORM: Role.TRANSFORM, Stage.DESTINATION: Role.DESTINATION}


def manifests_of(pipeline: Pipeline) -> list[Manifest]:
    """The manifests of the connectors that `pipeline` uses, each once, in the order of the data."""
    base = pipeline.path.parent
    transforms = dict.fromkeys(transform.use for transform in pipeline.transforms)
    return [
        find_manifest(pipeline.source.use, Role.SOURCE, base),
        *(find_manifest(use, Role.TRANSFORM, base) for use in transforms),
        find_manifest(pipeline.destination.use, Role.DESTINATION, base),
    ]
