"""A stream's kept assets, read from the state store: a checkpoint, a schema, dead letters.

The engine writes the store while a stream runs. These IO managers keep no second copy: storing an output checks that
the store holds it and tells what it says; loading an input reads the store.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from rapidbyte_dagster.assets.binding import StreamBinding, binding_of
from rapidbyte_dagster.assets.dead_letter_metadata import dead_letter_metadata
from rapidbyte_dagster.assets.dead_letters import DeadLetters, LetterSelection, chosen_run, letters_given
from rapidbyte_dagster.assets.failure import failure_from
from rapidbyte_dagster.assets.metadata import cursor_value
from rapidbyte_dagster.assets.schema_metadata import schema_metadata
from rapidbyte_dagster.errors import RapidbyteError, StateError

if TYPE_CHECKING:
    import pyarrow as pa

    from rapidbyte_dagster.state import Checkpoint, SchemaState, StateStore


class _StateView(dg.ConfigurableIOManager):
    """What the three have in common: find the asset's stream, open its store, show errors as this package's own."""

    @abstractmethod
    def _metadata(self, state: StateStore, binding: StreamBinding, value: Any, run_id: str) -> Mapping[str, Any]:
        """What to tell of `value` in run `run_id`. Raises `StateError` when the store does not hold it."""

    @abstractmethod
    def _load(self, state: StateStore, binding: StreamBinding, context: dg.InputContext) -> Any:
        """The stream's value. Raises `StateError` when there is none."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        failure: dg.Failure | None = None
        try:
            binding = binding_of(context.definition_metadata, context.asset_key)
            with _open(binding) as state:
                context.add_output_metadata(self._metadata(state, binding, obj, context.run_id))
        except RapidbyteError as error:
            failure = failure_from(error)
        if failure is not None:
            raise failure

    def load_input(self, context: dg.InputContext) -> Any:
        failure: dg.Failure | None = None
        try:
            upstream = context.upstream_output
            binding = binding_of(upstream.definition_metadata if upstream else {}, context.asset_key)
            with _open(binding) as state:
                return self._load(state, binding, context)
        except RapidbyteError as error:
            failure = failure_from(error)
        raise failure


class CheckpointIOManager(_StateView):
    """Loads a `Checkpoint`: the last point that the destination committed."""

    def _metadata(self, state: StateStore, binding: StreamBinding, value: Checkpoint, run_id: str) -> Mapping[str, Any]:
        from rapidbyte_dagster.state import shortened

        stored = self._stored(state, binding)
        # A newer one is fine: another run of the stream committed in between.
        if stored.sequence < value.sequence:
            raise _missing(binding, f"holds checkpoint {stored.sequence}, the run committed {value.sequence}")
        return {
            "sequence": value.sequence,
            "cursor": dg.MetadataValue.json(shortened(value.cursor)),
            **cursor_value(value),
            "rows": value.rows,
            "bytes": value.bytes,
            "committed_at": dg.MetadataValue.timestamp(value.committed_at),
        }

    def _load(self, state: StateStore, binding: StreamBinding, context: dg.InputContext) -> Checkpoint:
        return self._stored(state, binding)

    def _stored(self, state: StateStore, binding: StreamBinding) -> Checkpoint:
        checkpoint = state.latest_checkpoint(binding.pipeline.name, binding.stream.name)
        if checkpoint is None:
            raise _missing(binding, "holds no checkpoint")
        return checkpoint


class SchemaIOManager(_StateView):
    """Loads a `SchemaState`: the destination table's current columns and key, those before, and what changed when."""

    def _metadata(
        self, state: StateStore, binding: StreamBinding, value: SchemaState, run_id: str
    ) -> Mapping[str, Any]:
        stored = self._stored(state, binding)
        if value.current is None or len(stored.versions) < len(value.versions):
            raise _missing(binding, "does not hold the schema that the run wrote")
        return schema_metadata(value, value.current, run_id)

    def _load(self, state: StateStore, binding: StreamBinding, context: dg.InputContext) -> SchemaState:
        return self._stored(state, binding)

    def _stored(self, state: StateStore, binding: StreamBinding) -> SchemaState:
        schema = state.schema_state(binding.pipeline.name, binding.stream.name)
        if schema.current is None:
            raise _missing(binding, "holds no schema")
        return schema


class DlqIOManager(_StateView):
    """Loads a `pyarrow.Table` of the stream's dead letters, oldest first; no rows when there are none.

    `selection` says of which: `all` is the stream's whole history, `run` what the run that loads them has left out, or
    the last run of the stream where that one moved no row. An input that names a run in its metadata, by
    `rapidbyte/run_id`, gets that one's.
    """

    selection: LetterSelection = Field(
        default="all", description="all: the whole history of the stream. run: what the run at hand has left out."
    )

    def _metadata(
        self, state: StateStore, binding: StreamBinding, value: DeadLetters, run_id: str
    ) -> Mapping[str, Any]:
        return dead_letter_metadata(state, letters_given(value, binding.stream.name), self.selection)

    def _load(self, state: StateStore, binding: StreamBinding, context: dg.InputContext) -> pa.Table:
        run_id = chosen_run(state, binding.pipeline, binding.stream, context, self.selection)
        return DeadLetters(binding.pipeline, binding.stream).table(run_id)


CHECKPOINT_IO_MANAGER = "rapidbyte_checkpoint_io_manager"
SCHEMA_IO_MANAGER = "rapidbyte_schema_io_manager"
DLQ_IO_MANAGER = "rapidbyte_dlq_io_manager"

IO_MANAGER_KEYS = {"checkpoint": CHECKPOINT_IO_MANAGER, "schema": SCHEMA_IO_MANAGER, "dlq": DLQ_IO_MANAGER}
"""By asset, the resource that keeps it."""


def _open(binding: StreamBinding) -> StateStore:
    from rapidbyte_dagster.state import open_state

    return open_state(binding.pipeline, os.environ)


def _missing(binding: StreamBinding, what: str) -> StateError:
    return StateError(
        f"the state store {what}",
        stream=binding.stream.name,
        hint="materialise the stream's table first; every machine that runs the pipeline must share one state store",
    )
