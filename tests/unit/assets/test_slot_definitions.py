"""What the streams of a replication slot become in a code location."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster import (
    ConfigError,
    RapidbyteResource,
    RapidbyteTranslator,
    SlotGroup,
    build_definitions,
    build_pipeline_assets,
    load_pipeline,
    rapidbyte_stream_asset,
)
from rapidbyte_dagster.assets.op_options import PIPELINE_TAG, SLOT_TAG
from rapidbyte_dagster.assets.slot_names import SlotPlace
from rapidbyte_dagster.config import Pipeline
from tests.pipelines import write_pipeline

CONFIG = {"host": "${NOT_SET_HOST}", "user": "etl", "password": "${NOT_SET_PASSWORD}", "database": "shop"}


def cdc(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "sync_mode": "cdc", **options}


def write(folder: Path, *streams: Any, **options: Any) -> Path:
    options = {"write_mode": "upsert", **options}
    return write_pipeline(folder, CONFIG, CONFIG, streams or [cdc("users"), cdc("orders")], **options)


def own_body(context, rapidbyte: RapidbyteResource):  # type: ignore[no-untyped-def]
    yield from rapidbyte.run(context)


def test_the_streams_of_a_slot_share_one_op_and_a_stream_with_its_own_slot_has_its_own(tmp_path: Path) -> None:
    own = cdc("clicks", replication_slot="shop_clicks")
    path = write(tmp_path, cdc("users"), "products", own, cdc("orders"))
    assets = build_pipeline_assets(load_pipeline(path))
    assert [asset.op.name for asset in assets] == ["shop__cdc", "shop__products", "shop__shop_clicks"]
    shared, products, clicks = assets
    tables = {"shop/users", "shop/orders"}
    parts = {f"{table}/{part}" for table in tables for part in ("checkpoint", "schema", "dlq")}
    assert {key.to_user_string() for key in shared.keys} == tables | parts
    assert (shared.op.tags[SLOT_TAG], clicks.op.tags[SLOT_TAG]) == ("shop__cdc", "shop__shop_clicks")
    assert SLOT_TAG not in products.op.tags
    assert all(asset.op.tags[PIPELINE_TAG] == "shop" for asset in assets)
    assert all(asset.can_subset for asset in assets)


def test_each_slot_has_a_job_a_sensor_and_an_asset_upstream_of_its_tables(tmp_path: Path) -> None:
    definitions = build_definitions(write(tmp_path, cdc("users"), cdc("clicks", replication_slot="own"), "products"))
    dg.Definitions.validate_loadable(definitions)
    assert {job.name for job in definitions.resolve_all_job_defs()} >= {"shop_job", "shop__cdc_job", "shop__own_job"}
    job = definitions.resolve_job_def("shop__cdc_job")
    assert [node.name for node in job.nodes] == ["shop__cdc"]
    assert (job.tags[PIPELINE_TAG], job.tags[SLOT_TAG]) == ("shop", "shop__cdc")
    graph = definitions.resolve_asset_graph()
    for table, slot in (("users", "cdc"), ("clicks", "own")):
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(["shop", table])).parent_keys}
        assert parents == {f"shop/source/public/{table}", f"shop/{slot}/slot"}
        assert not graph.get(dg.AssetKey(["shop", slot, "slot"])).is_executable
    checks = {(check.asset_key.to_user_string(), check.name) for check in graph.asset_check_keys}
    assert {("shop/cdc/slot", "slot_health"), ("shop/own/slot", "slot_health")} <= checks
    assert {sensor.name for sensor in definitions.sensors or ()} == {"shop__cdc_sensor", "shop__own_sensor"}


def test_mirrored_tables_are_reconciled_on_demand_alone(tmp_path: Path) -> None:
    definitions = build_definitions(write(tmp_path, cdc("users"), cdc("orders", write_mode="append")))
    key = dg.AssetCheckKey(dg.AssetKey(["shop", "cdc", "slot"]), "reconciliation_users")
    graph = definitions.resolve_asset_graph()
    assert {check for check in graph.asset_check_keys if "reconciliation" in check.name} == {key}
    # What Dagster's UI materialises with a table is all that is checked of it.
    assert {check.name for check in graph.get_check_keys_for_assets({dg.AssetKey(["shop", "users"])})} == {
        "schema_drift"
    }
    for name in ("shop_job", "shop__cdc_job"):
        selected = definitions.resolve_job_def(name).asset_layer.asset_graph.asset_check_keys
        assert {check.name for check in selected} == {"schema_drift"}
        assert len(selected) == 2


def test_a_pipeline_of_mirrors_alone_has_no_job_that_replays_dead_letters(tmp_path: Path) -> None:
    aside = {"on_data_error": "dlq"}
    for streams, is_there in (([cdc("users")], False), ([cdc("users"), cdc("orders", write_mode="append")], True)):
        definitions = build_definitions(write(tmp_path, *streams, destination_section=aside))
        jobs = {job.name for job in definitions.resolve_all_job_defs()}
        assert ("shop_replay_dead_letters" in jobs) is is_there


@pytest.mark.parametrize("status", [None, "running", "stopped"])
def test_the_file_says_how_often_a_slot_is_looked_at_and_whether_at_once(tmp_path: Path, status: str | None) -> None:
    section = {"interval": "5s", **({"sensor": status} if status else {})}
    (sensor,) = build_definitions(write(tmp_path, cdc=section)).sensors or ()
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.minimum_interval_seconds == 5
    expected = dg.DefaultSensorStatus.RUNNING if status == "running" else dg.DefaultSensorStatus.STOPPED
    assert sensor.default_status is expected
    assert sensor.job_name == "shop__cdc_job"


def test_how_a_shared_step_runs_is_said_for_the_whole_pipeline(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(write(tmp_path, cdc("users", dagster={"pool": "slow"}), cdc("orders")))
    assert "dagster.pool" in str(caught.value)
    assert "shares its replication slot" in str(caught.value)
    alone = write(tmp_path, cdc("users", dagster={"pool": "slow", "group": "crm"}), dagster={"pool": "dw"})
    (asset,) = build_pipeline_assets(load_pipeline(alone))
    assert asset.op.pool == "slow"
    shared = write(tmp_path, cdc("users", dagster={"group": "crm"}), cdc("orders"), dagster={"pool": "dw"})
    (asset,) = build_pipeline_assets(load_pipeline(shared))
    assert asset.op.pool == "dw"


def test_a_stream_that_shares_its_slot_is_no_op_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, cdc("users"), cdc("orders"), cdc("clicks", replication_slot="own"))
    with pytest.raises(ConfigError, match="shares its replication slot, and so its op, with 'orders'"):
        rapidbyte_stream_asset(pipeline=path, stream="users")
    decorated = rapidbyte_stream_asset(pipeline=path, stream="clicks")(own_body)
    assert decorated.op.tags[SLOT_TAG] == "shop__own"


class Renamed(RapidbyteTranslator):
    def get_slot_spec(self, pipeline: Pipeline, group: SlotGroup) -> dg.AssetSpec:
        return (
            super().get_slot_spec(pipeline, group).replace_attributes(key=dg.AssetKey(["replication", pipeline.name]))
        )


def test_a_translator_names_the_slot_for_its_tables_its_check_and_its_sensor(tmp_path: Path) -> None:
    definitions = build_definitions(write(tmp_path), translator=Renamed())
    graph = definitions.resolve_asset_graph()
    slot = dg.AssetKey(["replication", "shop"])
    assert slot in graph.get(dg.AssetKey(["shop", "users"])).parent_keys
    assert dg.AssetCheckKey(slot, "slot_health") in graph.asset_check_keys


def test_a_slots_name_is_shown_unless_it_comes_from_the_environment(tmp_path: Path) -> None:
    def shown(config: dict[str, Any], *streams: Any) -> str:
        path = write_pipeline(tmp_path, {**CONFIG, **config}, CONFIG, streams or [cdc("users")], write_mode="upsert")
        pipeline = load_pipeline(path)
        return SlotPlace(pipeline, pipeline.slot_groups[0]).slot

    assert shown({}) == "replication slot 'rapidbyte_shop'"
    assert shown({"replication_slot": "mine"}) == "replication slot 'mine'"
    assert shown({"replication_slot": "${NOT_SET_SLOT}"}) == "the replication slot of 'shop'"
    own = cdc("users", replication_slot="own")
    assert shown({"replication_slot": "${NOT_SET_SLOT}"}, own) == "replication slot 'own'"


def test_long_names_of_slots_fit_into_a_tag_and_stay_apart(tmp_path: Path) -> None:
    name = "a" * 40
    streams = [cdc(stream, replication_slot=f"{'b' * 50}_{stream}") for stream in ("users", "orders")]
    assets = build_pipeline_assets(load_pipeline(write(tmp_path, *streams, name=name)))
    tags = {asset.op.tags[SLOT_TAG] for asset in assets}
    assert len(tags) == 2
    assert all(len(tag) <= 63 for tag in tags)
