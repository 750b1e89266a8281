"""A folder of pipeline files as a code location."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from rapidbyte_dagster.assets.binding import binding_of
from rapidbyte_dagster.assets.factory import build_pipeline_assets, source_spec
from rapidbyte_dagster.assets.jobs import bounded_executor, pipeline_job, slot_job
from rapidbyte_dagster.assets.location import caller_folder, locate
from rapidbyte_dagster.assets.op_options import StepOptions
from rapidbyte_dagster.assets.reconciliation_check import reconciliation_checks
from rapidbyte_dagster.assets.replay import replay_jobs
from rapidbyte_dagster.assets.resource import default_resources
from rapidbyte_dagster.assets.slot_asset import slot_health_check
from rapidbyte_dagster.assets.slot_sensor import slot_sensor
from rapidbyte_dagster.assets.translator import RapidbyteTranslator
from rapidbyte_dagster.config import load_pipelines
from rapidbyte_dagster.errors import ConfigError


def build_definitions(
    path: str | Path,
    *,
    translator: RapidbyteTranslator | None = None,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    op_tags: Mapping[str, Any] | None = None,
    pool: str | None = None,
) -> dg.Definitions:
    """Assets, source tables, replication slots, jobs, sensors, resources and executor of one pipeline file, or of every
    one in a folder (`*.yaml`).

    A relative `path` counts from the calling file's folder, then from the working directory. `resources` are added to
    `default_resources()`, or take their place by key. `executor` replaces the one that holds each pipeline to its
    `resources.parallelism`, for instance by one that starts a container per step.
    `retry_policy` (Dagster's: it repeats the whole step, after the engine's own retries), `op_tags` and `pool` hold for
    the ops of all pipelines, before what a file says in `dagster:`; tags are added to the file's.

    Reads the files and nothing else: no connection, no connector, no environment variable. Raises `ConfigError` with
    every problem of every file.
    """
    translator = translator or RapidbyteTranslator()
    pipelines = load_pipelines(locate(path, caller_folder(1)))
    given = StepOptions(retry_policy, op_tags, pool)
    assets = {
        pipeline.name: build_pipeline_assets(
            pipeline, translator=translator, retry_policy=retry_policy, op_tags=op_tags, pool=pool
        )
        for pipeline in pipelines
    }
    made = _refuse_duplicates(asset for group in assets.values() for asset in group)
    sources = [source_spec(pipeline, stream, translator) for pipeline in pipelines for stream in pipeline.streams]
    # A table that one pipeline makes and another reads is an asset already, if the translator says so.
    upstream = {spec.key: spec for spec in sources if spec.key not in made}
    groups = [(pipeline, group) for pipeline in pipelines for group in pipeline.slot_groups]
    slots = {(pipeline.name, group.name): translator.get_slot_spec(pipeline, group) for pipeline, group in groups}
    return dg.Definitions(
        assets=[
            *(asset for group in assets.values() for asset in group),
            *upstream.values(),
            *slots.values(),
        ],
        asset_checks=[
            check
            for pipeline, group in groups
            for key in (slots[pipeline.name, group.name].key,)
            for check in (slot_health_check(pipeline, group, key), *reconciliation_checks(pipeline, group, key))
        ],
        sensors=[slot_sensor(pipeline, group, slots[pipeline.name, group.name].key) for pipeline, group in groups],
        jobs=[
            *(pipeline_job(pipeline, assets[pipeline.name]) for pipeline in pipelines),
            *(slot_job(pipeline, group, assets[pipeline.name]) for pipeline, group in groups),
            *replay_jobs(pipelines, assets, given),
        ],
        resources={**default_resources(), **(resources or {})},
        executor=executor or bounded_executor(pipelines),
    )


def _refuse_duplicates(assets: Iterable[dg.AssetsDefinition]) -> set[dg.AssetKey]:
    """The keys of `assets`. Raises `ConfigError` when two streams claim the same one."""
    owner: dict[dg.AssetKey, str] = {}
    problems: list[str] = []
    for asset in assets:
        for spec in asset.specs:
            binding = binding_of(spec.metadata, spec.key)
            where = f"{binding.pipeline.path}:{binding.stream.line}"
            first = owner.setdefault(spec.key, where)
            if first != where:
                problems.append(f"{where}: asset {spec.key.to_user_string()!r} is made by {first} as well")
    if problems:
        raise ConfigError(
            "two streams make the same asset:\n" + "\n".join(problems),
            problems=problems,
            hint="set `dagster: {key: …}` on one of them",
        )
    return set(owner)
