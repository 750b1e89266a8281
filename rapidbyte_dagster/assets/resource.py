"""The `rapidbyte` resource: what an op uses to run its stream, and to look at a pipeline's state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from rapidbyte_dagster.assets.io_managers import (
    CHECKPOINT_IO_MANAGER,
    DLQ_IO_MANAGER,
    SCHEMA_IO_MANAGER,
    CheckpointIOManager,
    DlqIOManager,
    SchemaIOManager,
)
from rapidbyte_dagster.assets.step import run_step
from rapidbyte_dagster.assets.stream_report import StepResult
from rapidbyte_dagster.config import Pipeline

if TYPE_CHECKING:
    from rapidbyte_dagster.state import StateStore

RESOURCE_KEY = "rapidbyte"


class RapidbyteResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Runs streams. It holds no connection and no secret: both belong to the pipeline file and its environment."""

    log_interval_seconds: float = Field(
        default=5.0, gt=0, description="Seconds between two lines about progress in a run's log."
    )

    def run(self, context: dg.AssetExecutionContext) -> Iterator[StepResult]:
        """Moves the stream whose assets `context` executes, then yields one result per selected asset.

        The table's result carries those of its checks, `schema_drift` and `dead_letters`. A check's comes alone where
        the table is not selected, and before the failure of a run that has something to say of it.

            @rapidbyte_stream_asset(pipeline="shop.yaml", stream="users")
            def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource):
                yield from rapidbyte.run(context)

        Raises `dagster.Failure` with kind, stage and hint as metadata.
        """
        return run_step(context, log_interval_seconds=self.log_interval_seconds)

    def state(self, pipeline: Pipeline) -> StateStore:
        """The pipeline's state store, opened; use it in a `with` statement. Raises `StateError`."""
        from rapidbyte_dagster.state import open_state

        return open_state(pipeline, os.environ)


@cache
def default_resources() -> Mapping[str, Any]:
    """What the assets of a pipeline need, for a `Definitions` of one's own.

    Always the same objects, so that definitions which were built apart can be merged.
    """
    return MappingProxyType(
        {
            RESOURCE_KEY: RapidbyteResource(),
            CHECKPOINT_IO_MANAGER: CheckpointIOManager(),
            SCHEMA_IO_MANAGER: SchemaIOManager(),
            DLQ_IO_MANAGER: DlqIOManager(),
        }
    )
