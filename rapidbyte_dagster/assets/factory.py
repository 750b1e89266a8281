"""From a pipeline to its assets: one op per stream, which makes the stream's table and what is kept beside it."""

# No postponed annotations here: Dagster reads those of an op's function, and takes no text for a type.

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from rapidbyte_dagster.assets.binding import BINDING_KEY, AssetPart, StreamBinding
from rapidbyte_dagster.assets.dead_letter_check import dead_letter_check_spec
from rapidbyte_dagster.assets.drift_check import drift_check_spec
from rapidbyte_dagster.assets.io_managers import IO_MANAGER_KEYS
from rapidbyte_dagster.assets.location import caller_folder, locate
from rapidbyte_dagster.assets.names import op_name
from rapidbyte_dagster.assets.op_options import STREAM_TAG, StepOptions
from rapidbyte_dagster.assets.resource import RapidbyteResource
from rapidbyte_dagster.assets.run_config import OP_CONFIG, has_own_config
from rapidbyte_dagster.assets.translator import RapidbyteTranslator, StreamTranslatorData
from rapidbyte_dagster.config import OnDataError, Pipeline, Stream, load_pipeline
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
    """The assets of every stream of `pipeline`. They need the resources of `default_resources()`.

    `retry_policy` (Dagster's: it repeats the whole step, after the engine's own retries), `op_tags` and `pool` hold for
    all of the streams' ops, before what the file says in `dagster:`; tags are added to the file's. Raises
    `ConfigError`.
    """
    translator = translator or RapidbyteTranslator()
    given = StepOptions(retry_policy, op_tags, pool)
    return [_stream_assets(pipeline, stream, translator, given)(_run_stream) for stream in pipeline.streams]


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
    then from the working directory. `name` names the op (`shop__users`). A body may take a `config` of its own; fields
    `full_refresh` and `reset` in it do what the run config of other streams does.
    `retry_policy` (Dagster's: it repeats the whole step, after the engine's own retries), `op_tags` and `pool` come
    before what the file says in `dagster:`; tags are added to the file's. Raises `ConfigError`.
    """
    loaded = pipeline if isinstance(pipeline, Pipeline) else load_pipeline(locate(pipeline, caller_folder(1)))
    return _stream_assets(
        loaded,
        _stream_of(loaded, stream),
        translator or RapidbyteTranslator(),
        StepOptions(retry_policy, op_tags, pool),
        name=name,
    )


def _stream_assets(
    pipeline: Pipeline,
    stream: Stream,
    translator: RapidbyteTranslator,
    given: StepOptions,
    *,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    data = StreamTranslatorData(pipeline, stream)
    op = given.op_arguments(pipeline, pipeline.op_options(stream))

    def assets_of(body: Callable[..., Any]) -> dg.AssetsDefinition:
        specs = {part: _bound_spec(data if part == data.asset else data.of(part), translator) for part in _PARTS}
        return dg.multi_asset(
            name=name or op_name(pipeline.name, stream.name),
            specs=list(specs.values()),
            check_specs=_check_specs(data, specs["table"].key),
            # `--select shop/users` runs the stream for its table alone; outputs are then all optional, so that a step
            # that fails half-way keeps what it did.
            can_subset=True,
            config_schema=None if has_own_config(body) else dict(OP_CONFIG),
            pool=op.pool,
            op_tags={**op.tags, STREAM_TAG: stream.name},
            retry_policy=op.retry_policy,
            description=f"Copies stream `{stream.name}` of pipeline `{pipeline.name}`.",
        )(body)

    return assets_of


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
    metadata = {**spec.metadata, BINDING_KEY: StreamBinding(data.pipeline, data.stream, data.asset)}
    if data.asset in IO_MANAGER_KEYS:
        metadata.setdefault(_IO_MANAGER_METADATA, IO_MANAGER_KEYS[data.asset])
    return spec.replace_attributes(metadata=metadata)


def _run_stream(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
    yield from rapidbyte.run(context)
