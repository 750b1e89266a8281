"""Which part of which stream an asset is, carried by the asset's own metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from rapidbyte_dagster.config import Pipeline, Stream
from rapidbyte_dagster.errors import UsageError

AssetPart = Literal["source", "table", "checkpoint", "schema", "dlq"]
"""`table`, `checkpoint`, `schema` and `dlq` are what a stream's op makes; `source` is the table it reads."""

BINDING_KEY = "rapidbyte/pipeline_file"


@dataclass(frozen=True, eq=False)
class StreamBinding(os.PathLike[str]):
    """Ties an asset to its stream inside the process; Dagster stores and shows it as the pipeline file's path."""

    pipeline: Pipeline
    stream: Stream
    part: AssetPart
    slot: dg.AssetKey | None = None
    """The asset of the replication slot that the stream's changes come from."""

    def __fspath__(self) -> str:
        return str(self.pipeline.path)


def binding_of(metadata: Mapping[str, Any], key: dg.AssetKey) -> StreamBinding:
    """The binding in an asset's definition metadata. Raises `UsageError` when `key` is not a stream's asset."""
    binding = metadata.get(BINDING_KEY)
    if not isinstance(binding, StreamBinding):
        raise UsageError(
            f"asset {key.to_user_string()!r} does not belong to a pipeline",
            hint="rapidbyte's resource and IO managers serve the assets of build_definitions, build_pipeline_assets"
            " and @rapidbyte_stream_asset",
        )
    return binding
