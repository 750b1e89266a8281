"""Which runs a slot's sensor finds in a real instance."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster import build_definitions
from rapidbyte_dagster.assets.op_options import SLOT_TAG
from rapidbyte_dagster.assets.slot_runs import CHANGES_TAG, past_runs, running_run
from tests.pipelines import write_pipeline

TAG = "shop__cdc"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("instance"))) as instance:
        yield instance


@pytest.fixture
def instance(storage: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """Without runs."""
    yield storage
    storage.wipe()


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    captured = [{"name": name, "sync_mode": "cdc"} for name in ("users", "orders")]
    streams: list[Any] = [*captured, {"name": "clicks", "sync_mode": "cdc", "replication_slot": "own"}, "products"]
    config = {"host": "db", "user": "etl", "database": "shop"}
    path = write_pipeline(tmp_path_factory.mktemp("pipeline"), config, config, streams, write_mode="append")
    return build_definitions(path)


def a_run(
    instance: dg.DagsterInstance, definitions: dg.Definitions, job: str, status: dg.DagsterRunStatus, **options: Any
) -> str:
    """The id of a run that nobody executes."""
    job_def = definitions.resolve_job_def(job)
    run = instance.create_run_for_job(job_def=job_def, status=status, **options)
    return run.run_id


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
def test_a_run_of_the_slots_job_that_has_not_ended_is_found(
    instance: dg.DagsterInstance, definitions: dg.Definitions, status: str
) -> None:
    run_id = a_run(instance, definitions, "shop__cdc_job", dg.DagsterRunStatus(status))
    found = running_run(instance, TAG)
    assert found is not None
    assert (found.run_id, found.status) == (run_id, status)
    assert abs(found.created_at - time.time()) < 60
    assert running_run(instance, "shop__own") is None


def test_a_run_of_another_job_is_found_where_it_has_a_step_over_the_slot(
    instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    a_run(instance, definitions, "shop__own_job", dg.DagsterRunStatus.STARTED)
    assert running_run(instance, TAG) is None
    run_id = a_run(instance, definitions, "shop_job", dg.DagsterRunStatus.STARTED)
    found = running_run(instance, TAG)
    assert found is not None
    assert found.run_id == run_id


def test_a_run_of_assets_of_the_same_pipeline_that_leaves_the_slots_out_is_not_the_slots(
    instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    job = definitions.resolve_implicit_global_asset_job_def()
    for key, is_found in (("shop/products", False), ("shop/orders", True)):
        chosen = {dg.AssetKey.from_user_string(key)}
        run = instance.create_run_for_job(
            job_def=job.get_subset(asset_selection=chosen),
            asset_selection=frozenset(chosen),
            status=dg.DagsterRunStatus.STARTED,
        )
        found = running_run(instance, TAG)
        assert (found is not None and found.run_id == run.run_id) is is_found


def test_a_run_that_has_ended_or_that_nobody_has_launched_goes_on_no_more(
    instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    for status in ("SUCCESS", "FAILURE", "CANCELED", "NOT_STARTED"):
        a_run(instance, definitions, "shop__cdc_job", dg.DagsterRunStatus(status))
    assert running_run(instance, TAG) is None


def test_past_runs_are_those_of_the_slots_job_that_have_ended_newest_first(
    instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    own = {SLOT_TAG: TAG}
    made = [
        a_run(instance, definitions, "shop__cdc_job", dg.DagsterRunStatus(status), tags={**own, **more})
        for status, more in (
            ("SUCCESS", {CHANGES_TAG: "a"}),
            ("FAILURE", {CHANGES_TAG: "b"}),
            ("CANCELED", {}),
            ("STARTED", {}),
        )
    ]
    a_run(instance, definitions, "shop__own_job", dg.DagsterRunStatus.SUCCESS, tags={SLOT_TAG: "shop__own"})
    found = past_runs(instance, TAG)
    assert [run.run_id for run in found] == made[2::-1]
    assert [(run.status, run.changes) for run in found] == [("canceled", None), ("failed", "b"), ("ok", "a")]
    for run in found:
        assert abs(run.created_at - time.time()) < 60
        assert abs(run.ended_at - time.time()) < 60
