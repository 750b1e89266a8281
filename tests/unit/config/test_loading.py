"""From a file to a Pipeline."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from rapidbyte_dagster.config import Pipeline, StateBackend, SyncMode, WriteMode, load_pipeline, load_pipelines
from rapidbyte_dagster.errors import ConfigError
from tests.unit.config.pipeline_files import VALID, changed, load_text, problems_in

MEGABYTE = 1024 * 1024


def test_a_valid_file_becomes_a_typed_pipeline(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, VALID)
    assert (pipeline.version, pipeline.name, pipeline.schedule) == ("1.0", "shop", None)
    assert pipeline.path == (tmp_path / "shop.yaml").resolve()
    assert (pipeline.source.use, pipeline.destination.use) == ("source-postgres", "dest-postgres")
    users, orders = pipeline.streams
    assert pipeline.stream("orders") is orders
    assert (users.sync_mode, users.columns, users.filter) == (SyncMode.FULL_REFRESH, ("id", "email"), None)
    assert (users.schema_, orders.schema_) == (None, "sales")
    assert [pipeline.destination_table(stream) for stream in pipeline.streams] == ["users", "sold"]
    assert [pipeline.write_mode(stream) for stream in pipeline.streams] == [WriteMode.APPEND, WriteMode.REPLACE]
    assert [pipeline.primary_key(stream) for stream in pipeline.streams] == [None, ("id",)]


def test_a_stream_knows_its_file_and_line(tmp_path: Path) -> None:
    users, orders = load_text(tmp_path, VALID).streams
    assert (users.line, orders.line) == (12, 14)
    assert users.location == (str(tmp_path / "shop.yaml"), 12)


def test_an_unknown_stream_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="nobody"):
        load_text(tmp_path, VALID).stream("nobody")


def test_the_destinations_primary_key_counts_for_streams_without_their_own(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, changed(after="  primary_key: [email]\n"))
    assert [pipeline.primary_key(stream) for stream in pipeline.streams] == [("email",), ("id",)]


def test_what_is_left_out_has_the_documented_defaults(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, VALID)
    resources = pipeline.resources
    assert resources.parallelism == "auto"
    assert resources.streams_at_once == max(1, min(os.cpu_count() or 1, 16))
    assert (resources.max_memory, resources.max_batch_bytes) == (256 * MEGABYTE, 16 * MEGABYTE)
    assert (resources.max_inflight_bytes, resources.checkpoint_interval_bytes) == (64 * MEGABYTE, 64 * MEGABYTE)
    assert (resources.checkpoint_interval_rows, resources.checkpoint_interval_seconds) == (0, 0)
    assert resources.max_retries == 3
    assert (pipeline.state.backend, pipeline.state.path) == (StateBackend.SQLITE, None)
    assert pipeline.source.permissions.network.allowed_hosts is None
    assert (pipeline.source.limits.max_memory, pipeline.source.limits.timeout_seconds) == (None, None)


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [
        ("64mb", 64 * MEGABYTE),
        ("64MB", 64 * MEGABYTE),
        ("2gb", 2048 * MEGABYTE),
        ("2048kb", 2 * MEGABYTE),
        ("'8 mb'", 8 * MEGABYTE),
        ("1048576", MEGABYTE),
        ("1048576b", MEGABYTE),
    ],
)
def test_sizes_are_binary_units_or_bytes(tmp_path: Path, written: str, bytes_: int) -> None:
    assert load_text(tmp_path, changed(after=f"resources: {{max_memory: {written}}}\n")).resources.max_memory == bytes_


def test_every_supported_key_is_read(tmp_path: Path) -> None:
    text = changed(
        (
            "  streams:\n",
            "  permissions: {network: {allowed_hosts: [db.internal, '*.aws.internal', 10.0.0.1, '::1', /run/pg]}}\n"
            "  limits: {max_memory: 512mb, timeout_seconds: 3600}\n  streams:\n",
        ),
        (
            "      columns: [id, email]\n",
            "      columns: [id, email]\n      filter: deleted_at is null\n"
            "      dagster:\n        {key: [raw, users], group: crm, owners: ['team:data', a@b.io], "
            "tags: {tier: '1'}, kinds: [x]}\n",
        ),
        after="state: {backend: sqlite, path: state.db}\n"
        "resources:\n  parallelism: 3\n  max_inflight_bytes: 1mb\n  max_batch_bytes: 1mb\n"
        "  checkpoint_interval_bytes: 0\n  checkpoint_interval_rows: 10\n"
        "  checkpoint_interval_seconds: 5\n  max_retries: 0\n",
    )
    pipeline = load_text(tmp_path, text)
    hosts = ("db.internal", "*.aws.internal", "10.0.0.1", "::1", "/run/pg")
    assert pipeline.source.permissions.network.allowed_hosts == hosts
    assert (pipeline.source.limits.max_memory, pipeline.source.limits.timeout_seconds) == (512 * MEGABYTE, 3600)
    users = pipeline.stream("users")
    assert users.filter == "deleted_at is null"
    assert (users.dagster.key, users.dagster.group) == (("raw", "users"), "crm")
    assert (users.dagster.owners, users.dagster.kinds) == (("team:data", "a@b.io"), ("x",))
    assert users.dagster.tags == {"tier": "1"}
    assert pipeline.state.path == "state.db"
    resources = pipeline.resources
    assert (resources.parallelism, resources.streams_at_once, resources.max_retries) == (3, 3, 0)
    assert (resources.checkpoint_interval_rows, resources.checkpoint_interval_seconds) == (10, 5)


def test_an_empty_host_list_is_kept_apart_from_none_given(tmp_path: Path) -> None:
    text = changed(("  streams:\n", "  permissions: {network: {allowed_hosts: []}}\n  streams:\n"))
    assert load_text(tmp_path, text).source.permissions.network.allowed_hosts == ()


def test_an_asset_key_may_be_one_text(tmp_path: Path) -> None:
    text = changed(("      columns", "      dagster: {key: raw/users}\n      columns"))
    assert load_text(tmp_path, text).stream("users").dagster.key == ("raw", "users")


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = changed(
        ("    - name: users\n", "    - &base\n      name: users\n      filter: x > 0\n"),
        ("    - name: orders\n", "    - <<: *base\n      name: orders\n"),
    )
    pipeline = load_text(tmp_path, text)
    assert pipeline.stream("orders").filter == "x > 0"
    assert pipeline.stream("orders").columns == ("id", "email")


def test_an_unquoted_date_is_a_text(tmp_path: Path) -> None:
    text = changed(("table: sold", "table: 2024-01-31"))
    assert load_text(tmp_path, text).stream("orders").table == "2024-01-31"


def test_a_pipeline_cannot_be_changed(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, VALID)
    with pytest.raises(ValidationError, match="frozen"):
        pipeline.name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        pipeline.source.config.host = "other"  # type: ignore[attr-defined]


def test_a_pipeline_can_cross_processes(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, VALID)
    copy = pickle.loads(pickle.dumps(pipeline))
    assert copy == pipeline
    assert copy.path == pipeline.path
    assert copy.stream("orders").line == 14


def test_loading_needs_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_HOST", raising=False)
    assert load_text(tmp_path, VALID).source.config.get_static("host") is None


def test_a_folder_gives_its_pipelines_by_file_name(tmp_path: Path) -> None:
    for file, name in (("b.yml", "second"), ("a.yaml", "first"), ("c.txt", "ignored"), (".d.yaml", "hidden")):
        (tmp_path / file).write_text(VALID.replace("pipeline: shop", f"pipeline: {name}"), encoding="utf-8")
    assert [pipeline.name for pipeline in load_pipelines(tmp_path)] == ["first", "second"]
    assert [pipeline.name for pipeline in load_pipelines(tmp_path / "b.yml")] == ["second"]


def test_the_errors_of_all_files_of_a_folder_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(VALID.replace("write_mode: append", "write_mode: apend"), encoding="utf-8")
    (tmp_path / "b.yaml").write_text(VALID.replace("name: users", "nam: users"), encoding="utf-8")
    (tmp_path / "c.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_pipelines(tmp_path)
    files = {Path(problem.split(":")[0]).name for problem in caught.value.problems}
    assert files == {"a.yaml", "b.yaml", "c.yaml"}


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path) -> None:
    for file in ("a.yaml", "b.yaml"):
        (tmp_path / file).write_text(VALID, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_pipelines(tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/b.yaml:2: pipeline: ")
    assert "'shop' is already defined in" in problem
    assert "a.yaml" in problem


def test_a_folder_without_pipelines_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pipeline file"):
        load_pipelines(tmp_path)


def test_a_hundred_pipelines_load_in_well_under_a_second(tmp_path: Path) -> None:
    for number in range(100):
        text = VALID.replace("pipeline: shop", f"pipeline: shop_{number}")
        (tmp_path / f"{number:03}.yaml").write_text(text, encoding="utf-8")
    started = time.process_time()
    assert len(load_pipelines(tmp_path)) == 100
    # About 0.1 s on two shared cores; the margin is for a machine that is busy with other tests.
    assert time.process_time() - started < 1.0


def test_importing_the_package_leaves_the_schema_validator_unloaded() -> None:
    code = "import sys, rapidbyte_dagster.config; sys.exit('jsonschema' in sys.modules or 'dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reprs_show_no_value_of_a_connectors_config(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, changed(("${SHOP_PASSWORD}", "hunter2-hunter2")))
    for text in (repr(pipeline), str(pipeline), pipeline.model_dump_json(), str(pipeline.model_dump())):
        assert "hunter2" not in text
    assert repr(pipeline.source.config) == "ConnectorConfig(host, port, user, password, database)"


def test_problems_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    problems = problems_in(
        tmp_path,
        changed(("pipeline: shop", "pipeline: Shop"), ("name: users", "nam: users"), ("append", "apend")),
    )
    assert [problem.split(":")[1] for problem in problems] == ["2", "12", "12", "22"]


def test_load_pipeline_takes_a_text_as_path(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(VALID, encoding="utf-8")
    assert isinstance(load_pipeline(str(tmp_path / "shop.yaml")), Pipeline)
