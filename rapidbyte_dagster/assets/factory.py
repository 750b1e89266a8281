"""From a pipeline to its assets: one op per stream, or per replication slot, which makes tables and what is kept beside
them."""

# No postponed annotations here: Dagster reads those of an op's function, and takes no text for a type.

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from rapidbyte_dagster.assets.binding import BINDING_KEY, AssetPart, StreamBinding
from rapidbyte_dagster.assets.dead_letter_check import dead_letter_check_spec
from rapidbyte_dagster.assets.drift_check import drift_check_spec
from rapidbyte_dagster.assets.io_managers import IO_MANAGER_KEYS
from rapidbyte_dagster.assets.location import caller_folder, locate
from rapidbyte_dagster.assets.names import op_name, slot_tag
from rapidbyte_dagster.assets.op_options import SLOT_TAG, STREAM_TAG, StepOptions
from rapidbyte_dagster.assets.resource import RapidbyteResource
from rapidbyte_dagster.assets.run_config import OP_CONFIG, SLOT_CONFIG, has_own_config
from rapidbyte_dagster.assets.slot_names import slot_group_of
from rapidbyte_dagster.assets.translator import RapidbyteTranslator, StreamTranslatorData
from rapidbyte_dagster.config import OnDataError, Pipeline, SlotGroup, Stream, SyncMode, load_pipeline
from rapidbyte_dagster.errors import ConfigError

_PARTS: tuple[AssetPart, ...] = ("table", "checkpoint", "schema", "dlq")
_IO_MANAGER_METADATA = "dagster/io_manager_key"


def build_pipeline_assets(
    pipeline: Pipeline,
    *,
    translator: RapidbyteTranslator | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    op_tags: Mapping[str, Any] | None = None,
    pool: str | None = None,
) -> list[dg.AssetsDefinition]:
    """The assets of every stream of `pipeline`; streams that share a replication slot are one definition. They need
    the resources of `default_resources()`.

    `retry_policy` (Dagster's: it repeats the whole step, after the engine's own retries), `op_tags` and `pool` hold for
    all of the streams' ops, before what the file says in `dagster:`; tags are added to the file's. Raises
    `ConfigError`.
    """
    translator = translator or RapidbyteTranslator()
    given = StepOptions(retry_policy, op_tags, pool)
    return [
        _step_assets(pipeline, group or stream, translator, given)(_run_stream) for stream, group in _steps(pipeline)
    ]


def _steps(pipeline: Pipeline) -> Iterator[tuple[Stream, SlotGroup | None]]:
    """One for each op, in the order of the file: a stream, and the group where it is the first of one."""
    groups = {group.streams[0].name: group for group in pipeline.slot_groups}
    for stream in pipeline.streams:
        if stream.sync_mode is not SyncMode.CDC or stream.name in groups:
            yield stream, groups.get(stream.name)


def rapidbyte_stream_asset(
    *,
    pipeline: Pipeline | str | Path,
    stream: str,
    translator: RapidbyteTranslator | None = None,
    name: str | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    op_tags: Mapping[str, Any] | None = None,
    pool: str | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorates the op body of one stream's assets, for whoever wants code before or after the move:

        @rapidbyte_stream_asset(pipeline="shop.yaml", stream="users")
        def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource):
            yield from rapidbyte.run(context)

    `pipeline` is a file or what `load_pipeline` made of it. A relative path counts from the calling file's folder,
    then from the working directory. A stream that shares its replication slot with others is no op of its own, and
    refused. `name` names the op (`shop__users`). A body may take a `config` of its own; fields
    `full_refresh` and `reset` in it do what the run config of other streams does.
    `retry_policy` (Dagster's: it repeats the whole step, after the engine's own retries), `op_tags` and `pool` come
    before what the file says in `dagster:`; tags are added to the file's. Raises `ConfigError`.
    """
    loaded = pipeline if isinstance(pipeline, Pipeline) else load_pipeline(locate(pipeline, caller_folder(1)))
    chosen = _stream_of(loaded, stream)
    return _step_assets(
        loaded,
        _alone(loaded, chosen),
        translator or RapidbyteTranslator(),
        StepOptions(retry_policy, op_tags, pool),
        name=name,
    )


def _step_assets(
    pipeline: Pipeline,
    moved: Stream | SlotGroup,
    translator: RapidbyteTranslator,
    given: StepOptions,
    *,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """The outputs of one op: the assets of one stream, or of all that share a replication slot."""
    if isinstance(moved, SlotGroup):
        streams, config, tags = moved.streams, SLOT_CONFIG, {SLOT_TAG: slot_tag(pipeline.name, moved.name)}
        description = f"Captures the changes of {', '.join(f'`{stream.name}`' for stream in streams)}"
    else:
        streams, config, tags = (moved,), OP_CONFIG, {STREAM_TAG: moved.name}
        description = f"Copies stream `{moved.name}`"
    # Of several streams none decides how their step runs: the file says it at its top level.
    written = pipeline.op_options(streams[0]) if len(streams) == 1 else pipeline.dagster
    arguments = given.op_arguments(pipeline, written)

    def assets_of(body: Callable[..., Any]) -> dg.AssetsDefinition:
        specs: list[dg.AssetSpec] = []
        checks: list[dg.AssetCheckSpec] = []
        for stream in streams:
            data = StreamTranslatorData(pipeline, stream)
            parts = {part: _bound_spec(data if part == data.asset else data.of(part), translator) for part in _PARTS}
            specs += parts.values()
            checks += _check_specs(data, parts["table"].key)
        return dg.multi_asset(
            name=name or op_name(pipeline.name, moved.name),
            specs=specs,
            check_specs=checks,
            # `--select shop/users` runs the stream for its table alone; outputs are then all optional, so that a step
            # that fails half-way keeps what it did.
            can_subset=True,
            config_schema=None if has_own_config(body) else dict(config),
            pool=arguments.pool,
            op_tags={**arguments.tags, **tags},
            retry_policy=arguments.retry_policy,
            description=f"{description} of pipeline `{pipeline.name}`.",
        )(body)

    return assets_of


def _alone(pipeline: Pipeline, stream: Stream) -> Stream | SlotGroup:
    """What an op of the stream's own moves. Raises `ConfigError` for a stream whose op is that of others as well."""
    group = slot_group_of(pipeline, stream)
    if group is None:
        return stream
    if len(group.streams) > 1:
        others = ", ".join(repr(each.name) for each in group.streams if each is not stream)
        raise ConfigError(
            f"stream {stream.name!r} shares its replication slot, and so its op, with {others}",
            hint="give it a replication_slot of its own, or take the op that build_pipeline_assets makes of them",
        )
    return group


def _check_specs(data: StreamTranslatorData, table: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    pipeline, stream = data.pipeline, data.stream
    checks = [drift_check_spec(table)]
    if pipeline.destination.on_data_error is not OnDataError.FAIL:
        checks.append(dead_letter_check_spec(table, pipeline.dead_letter_limits(stream)))
    return checks


def _stream_of(pipeline: Pipeline, name: str) -> Stream:
    try:
        return pipeline.stream(name)
    except KeyError:
        names = ", ".join(stream.name for stream in pipeline.streams)
        raise ConfigError(
            f"pipeline {pipeline.name!r} has no stream {name!r}", hint=f"its streams in {pipeline.path}: {names}"
        ) from None


def source_spec(pipeline: Pipeline, stream: Stream, translator: RapidbyteTranslator) -> dg.AssetSpec:
    """The table that `stream` reads, as an external asset."""
    return translator.get_asset_spec(StreamTranslatorData(pipeline, stream, "source"))


def _bound_spec(data: StreamTranslatorData, translator: RapidbyteTranslator) -> dg.AssetSpec:
    """The translator's spec, tied to its stream and to the IO manager that keeps it, whatever the translator made."""
    spec = translator.get_asset_spec(data)
    slot = translator.get_slot_spec(data.pipeline, data.slot_group).key if data.slot_group else None
    metadata = {**spec.metadata, BINDING_KEY: StreamBinding(data.pipeline, data.stream, data.asset, slot)}
    if data.asset in IO_MANAGER_KEYS:
        metadata.setdefault(_IO_MANAGER_METADATA, IO_MANAGER_KEYS[data.asset])
    return spec.replace_attributes(metadata=metadata)


def _run_stream(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
    yield from rapidbyte.run(context)
