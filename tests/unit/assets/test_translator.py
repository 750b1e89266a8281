from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster import RapidbyteTranslator, StreamTranslatorData, build_pipeline_assets
from tests.pipelines import make_pipeline

SOURCE = {"host": "${SHOP_HOST}", "user": "etl", "password": "${SHOP_PASSWORD}", "database": "shop"}
DESTINATION = {**SOURCE, "database": "warehouse", "schema": "raw"}


def specs_of(
    folder: Path,
    stream: str | Mapping[str, Any] = "users",
    *,
    translator: RapidbyteTranslator | None = None,
    source: Mapping[str, Any] = SOURCE,
    destination: Mapping[str, Any] = DESTINATION,
    **options: Any,
) -> dict[str, dg.AssetSpec]:
    """The four specs of a one-stream pipeline, by the part that each is."""
    pipeline = make_pipeline(folder, source, destination, [stream], **options)
    (asset,) = build_pipeline_assets(pipeline, translator=translator)
    return dict(zip(("table", "checkpoint", "schema", "dlq"), asset.specs, strict=True))


def test_a_stream_makes_its_table_and_what_is_kept_beside_it(tmp_path: Path) -> None:
    assert [spec.key.to_user_string() for spec in specs_of(tmp_path).values()] == [
        "shop/users",
        "shop/users/checkpoint",
        "shop/users/schema",
        "shop/users/dlq",
    ]


def test_a_table_depends_on_its_source_table_and_what_is_kept_on_the_table(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, {"name": "users", "schema": "crm"})
    assert [dep.asset_key for dep in specs["table"].deps] == [dg.AssetKey(["shop", "source", "crm", "users"])]
    for part in ("checkpoint", "schema", "dlq"):
        assert [dep.asset_key for dep in specs[part].deps] == [specs["table"].key]


def test_a_table_tells_where_it_is_and_how_it_is_written(tmp_path: Path) -> None:
    stream = {"name": "users", "schema": "crm", "table": "app_users"}
    table = specs_of(tmp_path, stream, write_mode="replace")["table"]
    assert table.metadata["dagster/table_name"] == "warehouse.raw.app_users"
    assert table.metadata["dagster/storage_kind"] == "postgres"
    assert (table.metadata["sync_mode"], table.metadata["write_mode"]) == ("full_refresh", "replace")
    assert table.description == "`warehouse.raw.app_users`, copied from `shop.crm.users`: full_refresh, replace."
    assert table.kinds == {"postgres", "rapidbyte"}
    assert table.group_name == "shop"


def test_a_name_that_comes_from_the_environment_is_left_out(tmp_path: Path) -> None:
    config = {**SOURCE, "database": "${DATABASE}", "schema": "${SCHEMA:-public}"}
    specs = specs_of(tmp_path, source=config, destination=config)
    assert specs["table"].metadata["dagster/table_name"] == "users"
    assert [dep.asset_key for dep in specs["table"].deps] == [dg.AssetKey(["shop", "source", "users"])]


def test_the_dagster_options_of_a_stream_apply_to_all_of_its_assets(tmp_path: Path) -> None:
    options = {
        "key": ["raw", "users"],
        "group": "crm",
        "owners": ["team:data", "ada@example.com"],
        "tags": {"tier": "gold"},
        "kinds": ["table", "gold"],
    }
    specs = specs_of(tmp_path, {"name": "users", "dagster": options})
    assert specs["table"].key == dg.AssetKey(["raw", "users"])
    assert specs["dlq"].key == dg.AssetKey(["raw", "users", "dlq"])
    assert specs["table"].kinds == {"table", "gold"}
    for spec in specs.values():
        assert spec.group_name == "crm"
        assert list(spec.owners) == ["team:data", "ada@example.com"]
        assert spec.tags["tier"] == "gold"


def test_code_references_lead_to_the_streams_line_in_the_pipeline_file(tmp_path: Path) -> None:
    for spec in specs_of(tmp_path, "users").values():
        (reference,) = spec.metadata["dagster/code_references"].code_references
        assert Path(reference.file_path) == tmp_path / "shop.yaml"
        line = (tmp_path / "shop.yaml").read_text().splitlines()[reference.line_number - 1]
        assert line.strip() == "- name: users"


@pytest.mark.parametrize(
    ("change", "changes"),
    [
        ({"stream": {"name": "users", "filter": "id > 1"}}, True),
        ({"stream": {"name": "users", "columns": ["id"]}}, True),
        ({"stream": {"name": "users", "table": "people"}}, True),
        ({"write_mode": "replace"}, True),
        ({"source": {**SOURCE, "host": "elsewhere"}}, True),
        ({"source": {**SOURCE, "password": "other"}}, False),
        ({"stream": {"name": "users", "dagster": {"group": "other"}}}, False),
        ({"resources": {"parallelism": 3}}, False),
        ({"destination_section": {"on_data_error": "skip"}}, True),
    ],
    ids=str,
)
def test_the_code_version_changes_exactly_when_the_file_asks_for_other_data(
    tmp_path: Path, change: dict[str, Any], changes: bool
) -> None:
    before = specs_of(tmp_path)["table"].code_version
    after = specs_of(tmp_path, change.pop("stream", "users"), **change)["table"].code_version
    assert before is not None
    assert after is not None
    assert (before != after) is changes


def test_the_code_version_of_one_stream_does_not_follow_another(tmp_path: Path) -> None:
    alone = specs_of(tmp_path)["table"].code_version
    pipeline = make_pipeline(tmp_path, SOURCE, DESTINATION, ["users", {"name": "orders", "filter": "id > 1"}])
    assert next(iter(build_pipeline_assets(pipeline)[0].specs)).code_version == alone


class Prefixed(RapidbyteTranslator):
    def get_asset_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(key=spec.key.with_prefix("eu"))


def test_dependencies_follow_the_keys_of_a_translator(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, translator=Prefixed())
    assert specs["table"].key == dg.AssetKey(["eu", "shop", "users"])
    assert [dep.asset_key for dep in specs["table"].deps] == [dg.AssetKey(["eu", "shop", "source", "public", "users"])]
    assert [dep.asset_key for dep in specs["dlq"].deps] == [specs["table"].key]


class FromScratch(RapidbyteTranslator):
    def get_asset_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        return dg.AssetSpec(["mine", data.asset])


def test_a_spec_that_a_translator_made_from_scratch_still_belongs_to_its_stream(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, translator=FromScratch())
    assert specs["schema"].metadata["dagster/io_manager_key"] == "rapidbyte_schema_io_manager"
    assert all("rapidbyte/pipeline_file" in spec.metadata for spec in specs.values())
    assert "dagster/io_manager_key" not in specs["table"].metadata


class OwnIOManager(RapidbyteTranslator):
    def get_asset_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        spec = super().get_asset_spec(data)
        return spec.with_io_manager_key("mine") if data.asset == "dlq" else spec


def test_a_translator_may_choose_another_io_manager(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, translator=OwnIOManager())
    assert specs["dlq"].metadata["dagster/io_manager_key"] == "mine"
    assert specs["schema"].metadata["dagster/io_manager_key"] == "rapidbyte_schema_io_manager"


def test_limits_of_dead_letters_ask_for_no_other_data(tmp_path: Path) -> None:
    skip = {"on_data_error": "skip"}
    versions = {
        specs_of(tmp_path, {"name": "users", **own}, destination_section={**skip, **limits})["table"].code_version
        for own, limits in (
            ({}, {}),
            ({}, {"dead_letters": {"fail_above": "1%"}}),
            ({"dead_letters": {"fail_above": 5}}, {}),
        )
    }
    assert len(versions) == 1
