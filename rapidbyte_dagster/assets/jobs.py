"""Jobs and the executor that keeps each pipeline within its `resources.parallelism`."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from rapidbyte_dagster.assets.binding import binding_of
from rapidbyte_dagster.assets.names import slot_job_name, slot_tag
from rapidbyte_dagster.assets.op_options import PIPELINE_TAG, SLOT_TAG
from rapidbyte_dagster.assets.slot_names import SlotPlace
from rapidbyte_dagster.config import Pipeline, SlotGroup

STEP_MODULES = ("dagster", "rapidbyte_dagster.assets.definitions", "psycopg", "wasmtime")
"""What takes a step longest to import, whichever its stream. pyarrow is not among them: its import starts a thread, and
a process that has several is not to be forked."""


def job_name(pipeline: Pipeline) -> str:
    return f"{pipeline.name}_job"


def pipeline_job(pipeline: Pipeline, assets: Sequence[dg.AssetsDefinition]) -> Any:
    """The job that materialises all of a pipeline's assets."""
    return dg.define_asset_job(
        job_name(pipeline),
        selection=dg.AssetSelection.assets(*assets),
        description=f"Every stream of pipeline `{pipeline.name}`.",
        tags={PIPELINE_TAG: pipeline.name},
    )


def slot_job(pipeline: Pipeline, group: SlotGroup, assets: Sequence[dg.AssetsDefinition]) -> Any:
    """The job that catches up a replication slot: what its sensor starts. `assets` are the pipeline's."""
    names = {stream.name for stream in group.streams}
    captured = [each for each in assets if _stream_of(each) in names]
    return dg.define_asset_job(
        slot_job_name(pipeline.name, group.name),
        selection=dg.AssetSelection.assets(*captured),
        description=f"Reads the changes of pipeline `{pipeline.name}` that wait in {SlotPlace(pipeline, group).slot},"
        " and ends.",
        tags={PIPELINE_TAG: pipeline.name, SLOT_TAG: slot_tag(pipeline.name, group.name)},
    )


def _stream_of(assets: dg.AssetsDefinition) -> str:
    """The name of the stream whose assets come first."""
    spec = next(iter(assets.specs))
    return binding_of(spec.metadata, spec.key).stream.name


_served_environment: int | None = None
"""A hash of the environment that this process' fork server was started with, once an executor of ours started it."""


def _start_method() -> dict[str, Any]:
    """How the processes of steps are started; nothing where Dagster's own way, from nothing, is the only right one.

    A fork server lives as long as its process, and what it forks has the environment of its own start. So it is used
    for runs of that environment alone: another run in the same process may have been given other variables.
    """
    global _served_environment
    # There is none on Windows.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return {}
    environment = hash(frozenset(os.environ.items()))
    if _served_environment is None and not _is_served():
        _served_environment = environment
    if environment != _served_environment:
        return {}
    return {"start_method": {"forkserver": {"preload_modules": [*STEP_MODULES]}}}


def _is_served() -> bool:
    """Whether this process has a fork server; nothing public tells."""
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    return getattr(server, "_forkserver_pid", None) is not None


def bounded_executor(pipelines: Iterable[Pipeline]) -> dg.ExecutorDefinition:
    """Dagster's own executor, told how many streams of each pipeline may run at once.

    Its steps are forked from a process that has imported what all of them need, and nothing else: a run of many small
    streams would mostly import Dagster otherwise.

    It takes the run config of `dagster.multi_or_in_process_executor` (`multiprocess` or `in_process`); what that config
    says comes before the pipelines' own figures.
    """
    streams_at_once = {pipeline.name: pipeline.resources.streams_at_once for pipeline in pipelines}
    limits = [
        {"key": PIPELINE_TAG, "value": name, "limit": streams} for name, streams in sorted(streams_at_once.items())
    ]
    processes = max(os.cpu_count() or 1, *streams_at_once.values())

    def bounded(config: Mapping[str, Any]) -> dict[str, Any]:
        if "multiprocess" not in config:
            return dict(config)
        asked = {name: value for name, value in config["multiprocess"].items() if value is not None}
        own = {"max_concurrent": processes, "tag_concurrency_limits": limits, **_start_method()}
        return {"multiprocess": {**own, **asked}}

    return dg.multi_or_in_process_executor.configured(
        bounded, config_schema=dg.multi_or_in_process_executor.config_schema.as_field(), name="rapidbyte_executor"
    )
