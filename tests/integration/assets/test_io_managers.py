"""The kept assets without a database: a real state store, real Dagster runs over what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from rapidbyte_dagster import Checkpoint, Pipeline, SchemaState, build_pipeline_assets, default_resources
from rapidbyte_dagster.state import SchemaChange, SchemaColumn, SchemaVersion, open_state
from tests.pipelines import make_pipeline
from tests.unit.state.samples import a_change, a_letter

# Nothing listens there: a run that reached for the database would fail.
NOWHERE = {"host": "127.0.0.1", "port": 1, "user": "nobody", "database": "nothing"}
KEPT = ["shop/users/checkpoint", "shop/users/schema", "shop/users/dlq"]


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return make_pipeline(tmp_path, NOWHERE, NOWHERE, ["users"])


def remember(pipeline: Pipeline, sequence: int, *changes: SchemaChange) -> Checkpoint:
    """A checkpoint and a schema in the pipeline's state store, as a run would leave them."""
    committed_at = datetime(2024, 1, 1, tzinfo=timezone.utc)
    checkpoint = Checkpoint(
        pipeline="shop",
        stream="users",
        sequence=sequence,
        cursor={"id": sequence},
        rows=10,
        bytes=100,
        run_id="r",
        committed_at=committed_at,
        schema_changes=changes,
    )
    columns = (
        SchemaColumn(name="id", type="bigint", nullable=False),
        SchemaColumn(name=f"extra_{sequence}", type="text"),
    )
    version = SchemaVersion(table="raw.users", columns=columns, run_id="r", recorded_at=committed_at)
    with open_state(pipeline, {}) as state:
        state.prepare(checkpoint)
        state.finalise("shop", "users", sequence)
        state.record_schema("shop", "users", version)
    return checkpoint


def materialize(pipeline: Pipeline, selection: list[str], *more: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [*build_pipeline_assets(pipeline), *more],
        selection=selection,
        resources=default_resources(),
        raise_on_error=False,
    )


def metadata_of(result: dg.ExecuteInProcessResult, key: str) -> Mapping[str, Any]:
    (event,) = [
        event
        for event in result.get_asset_materialization_events()
        if event.materialization.asset_key == dg.AssetKey.from_user_string(key)
    ]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult) -> dg.Failure:
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return dg.Failure(description=data.description, metadata=data.metadata)


def test_kept_assets_alone_show_the_state_store_and_move_no_rows(pipeline: Pipeline) -> None:
    remember(pipeline, 1)
    remember(pipeline, 2)
    result = materialize(pipeline, KEPT)
    assert result.success
    checkpoint = metadata_of(result, "shop/users/checkpoint")
    assert (checkpoint["sequence"], checkpoint["cursor"], checkpoint["rows"]) == (2, {"id": 2}, 10)
    assert isinstance(checkpoint["committed_at"], float)
    schema = metadata_of(result, "shop/users/schema")
    assert (schema["version"], schema["columns"]) == (2, 2)
    assert [column.name for column in schema["dagster/column_schema"].columns] == ["id", "extra_2"]
    told = metadata_of(result, "shop/users/dlq")
    assert [told[name] for name in ("dead_letters", "new_dead_letters", "waiting_dead_letters")] == [0, 0, 0]


def test_dead_letters_are_counted_in_all_and_shown_by_the_newest(pipeline: Pipeline) -> None:
    with open_state(pipeline, {}) as state:
        state.add_dead_letters("shop", "users", [a_letter(f"no {n}") for n in range(12)], run_id="r", sequence=1)
    remember(pipeline, 1)
    told = metadata_of(materialize(pipeline, KEPT), "shop/users/dlq")
    assert [told[name] for name in ("dead_letters", "new_dead_letters", "waiting_dead_letters")] == [12, 0, 12]
    assert "no 11" in told["newest"]
    assert "no 1 |" not in told["newest"]


def test_the_schema_asset_shows_and_loads_every_change(pipeline: Pipeline) -> None:
    added, other = a_change("extra_1", ddl="alter table raw.users add column extra_1 text"), a_change("extra_2")
    remember(pipeline, 1, added)
    remember(pipeline, 2, other)
    loaded: list[SchemaState] = []

    @dg.asset(ins={"schema": dg.AssetIn(dg.AssetKey(["shop", "users", "schema"]))})
    def report(schema: SchemaState) -> None:
        loaded.append(schema)

    result = materialize(pipeline, [*KEPT, "report"], report)
    schema = metadata_of(result, "shop/users/schema")
    assert (schema["changes"], schema["new_changes"]) == (2, 0)
    newest, oldest = schema["history"].splitlines()[2:]
    assert "`extra_2`" in newest
    assert "`extra_1`" in oldest
    assert "`alter table raw.users add column extra_1 text`" in oldest
    assert [event.changes for event in loaded[0].history] == [(added,), (other,)]


@pytest.mark.parametrize("key", KEPT[:2])
def test_a_kept_asset_of_a_stream_that_never_ran_fails_and_says_what_to_do(pipeline: Pipeline, key: str) -> None:
    failure = failure_of(materialize(pipeline, [key]))
    assert failure.description is not None
    assert "it never ran here" in failure.description
    assert failure.metadata["hint"].value == "materialise the stream's table first"


def test_a_downstream_asset_loads_the_newest_of_each_kept_asset(pipeline: Pipeline) -> None:
    loaded: dict[str, Any] = {}

    @dg.asset(
        ins={
            "checkpoint": dg.AssetIn(dg.AssetKey(["shop", "users", "checkpoint"])),
            "schema": dg.AssetIn(dg.AssetKey(["shop", "users", "schema"])),
            "dead_letters": dg.AssetIn(dg.AssetKey(["shop", "users", "dlq"])),
        }
    )
    def report(checkpoint: Any, schema: Any, dead_letters: Any) -> None:
        loaded.update(checkpoint=checkpoint, schema=schema, dead_letters=dead_letters)

    remember(pipeline, 1)
    assert materialize(pipeline, KEPT).success
    newest = remember(pipeline, 2)
    assert materialize(pipeline, ["report"], report).success
    checkpoint = loaded["checkpoint"]
    assert isinstance(checkpoint, Checkpoint)
    assert (checkpoint.sequence, checkpoint.cursor) == (newest.sequence, newest.cursor)
    assert isinstance(loaded["schema"], SchemaState)
    assert [len(version.columns) for version in loaded["schema"].versions] == [2, 2]
    assert isinstance(loaded["dead_letters"], pa.Table)
    assert loaded["dead_letters"].num_rows == 0


def test_an_input_that_the_store_does_not_hold_fails_its_step_with_a_hint(pipeline: Pipeline) -> None:
    @dg.asset(ins={"checkpoint": dg.AssetIn(dg.AssetKey(["shop", "users", "checkpoint"]))})
    def report(checkpoint: Any) -> None:
        raise AssertionError(checkpoint)

    failure = failure_of(materialize(pipeline, ["report"], report))
    assert failure.description is not None
    assert "holds no checkpoint" in failure.description
    assert failure.metadata["kind"].value == "state"


def test_an_output_that_the_store_does_not_hold_fails_its_step(pipeline: Pipeline) -> None:
    remember(pipeline, 1)
    stream = build_pipeline_assets(pipeline)[0]
    ahead = remember(pipeline, 2).model_copy(update={"sequence": 9})
    spec = next(spec for spec in stream.specs if spec.key.path[-1] == "checkpoint")

    @dg.multi_asset(specs=[spec.replace_attributes(deps=[])])
    def forged() -> Any:
        yield dg.MaterializeResult(asset_key=spec.key, value=ahead)

    result = dg.materialize([forged], resources=default_resources(), raise_on_error=False)
    failure = failure_of(result)
    assert failure.description is not None
    assert "holds checkpoint 2, the run committed 9" in failure.description


def test_an_asset_of_no_pipeline_cannot_use_the_io_managers(pipeline: Pipeline) -> None:
    @dg.multi_asset(specs=[dg.AssetSpec("stray").with_io_manager_key("rapidbyte_dlq_io_manager")])
    def stray() -> Any:
        yield dg.MaterializeResult(asset_key="stray", value=None)

    failure = failure_of(dg.materialize([stray], resources=default_resources(), raise_on_error=False))
    assert failure.description is not None
    assert "asset 'stray' does not belong to a pipeline" in failure.description
