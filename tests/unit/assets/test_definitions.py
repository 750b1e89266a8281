from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster import (
    ConfigError,
    RapidbyteResource,
    RapidbyteTranslator,
    StreamTranslatorData,
    build_definitions,
    build_pipeline_assets,
    default_resources,
    load_pipeline,
    rapidbyte_stream_asset,
)
from rapidbyte_dagster.assets.jobs import STEP_MODULES
from rapidbyte_dagster.assets.op_options import PIPELINE_TAG, STREAM_TAG
from tests.pipelines import write_pipeline

CONFIG = {
    "host": "${NOT_SET_HOST}",
    "user": "${NOT_SET_USER}",
    "password": "${NOT_SET_PASSWORD}",
    "database": "${NOT_SET_DATABASE}",
}


def write(folder: Path, name: str = "shop", *streams: str, **options: object) -> Path:
    return write_pipeline(folder, CONFIG, CONFIG, list(streams) or ["users"], name=name, **options)


def keys_of(definitions: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_all_asset_keys()}


def test_a_folder_of_pipelines_becomes_assets_jobs_and_source_tables(tmp_path: Path) -> None:
    write(tmp_path, "shop", "users", "orders")
    write(tmp_path, "crm", "leads")
    (tmp_path / "notes.txt").write_text("not a pipeline")
    definitions = build_definitions(tmp_path)
    dg.Definitions.validate_loadable(definitions)
    tables = {"shop/users", "shop/orders", "crm/leads"}
    assert keys_of(definitions) == {
        *tables,
        *(f"{table}/{part}" for table in tables for part in ("checkpoint", "schema", "dlq")),
        "shop/source/public/users",
        "shop/source/public/orders",
        "crm/source/public/leads",
    }
    job = definitions.resolve_job_def("shop_job")
    assert {node.name for node in job.nodes} == {"shop__users", "shop__orders"}
    assert job.tags[PIPELINE_TAG] == "shop"


def test_one_file_is_enough(tmp_path: Path) -> None:
    write(tmp_path, "crm")
    assert "shop/users" in keys_of(build_definitions(write(tmp_path)))


def test_each_stream_is_an_op_of_its_own_with_its_pipelines_pool_and_tags(tmp_path: Path) -> None:
    assets = build_pipeline_assets(load_pipeline(write(tmp_path, "shop", "users", "orders")))
    assert [asset.op.name for asset in assets] == ["shop__users", "shop__orders"]
    for asset, stream in zip(assets, ("users", "orders"), strict=True):
        assert asset.op.pool == "rapidbyte_shop"
        assert asset.op.tags[PIPELINE_TAG] == "shop"
        assert asset.op.tags[STREAM_TAG] == stream


def op_of(definitions: dg.Definitions, job: str, name: str) -> dg.OpDefinition:
    (found,) = [node.definition for node in definitions.resolve_job_def(job).nodes if node.name == name]
    assert isinstance(found, dg.OpDefinition)
    return found


def own_body(context, rapidbyte: RapidbyteResource):  # type: ignore[no-untyped-def]
    yield from rapidbyte.run(context)


RETRIES = {"max_retries": 4, "delay": 2, "backoff": "linear", "jitter": "full"}


def test_a_files_options_of_ops_reach_dagster(tmp_path: Path) -> None:
    streams: list[str | dict[str, object]] = [
        {"name": "users", "dagster": {"retry_policy": {"max_retries": 0}, "op_tags": {"tier": "gold"}}},
        {"name": "orders", "dagster": {"pool": "slow"}},
    ]
    options = {"retry_policy": RETRIES, "op_tags": {"tier": "tin", "dagster-k8s/config": {"a": [1]}}, "pool": "dw"}
    aside = {"on_data_error": "dlq"}
    path = write_pipeline(tmp_path, CONFIG, CONFIG, streams, dagster=options, destination_section=aside)
    definitions = build_definitions(path)
    users, orders = (op_of(definitions, "shop_job", f"shop__{name}") for name in ("users", "orders"))
    assert (users.retry_policy, users.pool) == (None, "dw")
    policy = dg.RetryPolicy(max_retries=4, delay=2, backoff=dg.Backoff.LINEAR, jitter=dg.Jitter.FULL)
    assert (orders.retry_policy, orders.pool) == (policy, "slow")
    k8s = {"dagster-k8s/config": '{"a": [1]}'}
    assert users.tags == {"tier": "gold", **k8s, PIPELINE_TAG: "shop", STREAM_TAG: "users"}
    assert orders.tags == {"tier": "tin", **k8s, PIPELINE_TAG: "shop", STREAM_TAG: "orders"}
    # Dead letters are replayed by a step of the pipeline's as well.
    replay = op_of(definitions, "shop_replay_dead_letters", "shop_replay_dead_letters_op")
    assert (replay.retry_policy, replay.pool) == (policy, "dw")
    assert replay.tags == {"tier": "tin", **k8s, PIPELINE_TAG: "shop"}


def test_what_is_given_in_python_comes_before_the_file(tmp_path: Path) -> None:
    options = {"retry_policy": RETRIES, "op_tags": {"tier": "tin", "team": "crm"}, "pool": "dw"}
    path = write_pipeline(tmp_path, CONFIG, CONFIG, ["users", "orders"], dagster=options)
    policy = dg.RetryPolicy(max_retries=1)
    pipeline = load_pipeline(path)

    given: dict[str, Any] = {"retry_policy": policy, "op_tags": {"tier": "gold"}, "pool": "own"}
    decorated = rapidbyte_stream_asset(pipeline=pipeline, stream="users", **given)(own_body)
    (made, _) = build_pipeline_assets(pipeline, **given)
    in_job = op_of(build_definitions(path, **given), "shop_job", "shop__users")
    for op in (decorated.op, made.op, in_job):
        assert (op.retry_policy, op.pool) == (policy, "own")
        assert op.tags == {"tier": "gold", "team": "crm", PIPELINE_TAG: "shop", STREAM_TAG: "users"}
    (switched_off, _) = build_pipeline_assets(pipeline, retry_policy=dg.RetryPolicy(max_retries=0))
    assert switched_off.op.retry_policy is None


def test_the_tags_by_which_streams_are_counted_are_not_for_others_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"op_tags: '{PIPELINE_TAG}' is not for others to set"):
        build_definitions(write(tmp_path), op_tags={PIPELINE_TAG: "other"})


def test_each_stream_has_a_check_of_its_tables_columns_that_blocks_nothing(tmp_path: Path) -> None:
    assets = build_pipeline_assets(load_pipeline(write(tmp_path, "shop", "users", "orders")))
    for asset, stream in zip(assets, ("users", "orders"), strict=True):
        (check,) = asset.check_specs
        assert check.key == dg.AssetCheckKey(dg.AssetKey(["shop", stream]), "schema_drift")
        assert check.description
        assert not check.blocking


def test_a_stream_that_may_leave_rows_out_has_a_check_of_how_many(tmp_path: Path) -> None:
    section = {"on_data_error": "skip", "dead_letters": {"fail_above": "1%"}}
    streams: list[str | dict[str, object]] = ["users", {"name": "orders", "dead_letters": {"fail_above": 5}}]
    pipeline = load_pipeline(write_pipeline(tmp_path, CONFIG, CONFIG, streams, destination_section=section))
    told = []
    for asset in build_pipeline_assets(pipeline):
        drift, check = asset.check_specs
        assert (drift.name, check.name, check.blocking) == ("schema_drift", "dead_letters", False)
        told.append(check.description)
    assert told == [
        "Counts the rows that a run leaves out. Warns above 0, fails above 1% of the run's rows.",
        "Counts the rows that a run leaves out. Warns above 0, fails above 5.",
    ]


def test_a_relative_path_counts_from_the_calling_files_folder_then_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, working = tmp_path / "project", tmp_path / "elsewhere"
    for folder, table in ((beside, "from_file"), (working, "from_cwd")):
        (folder / "pipelines").mkdir(parents=True)
        write(folder / "pipelines", "shop", table)
    monkeypatch.chdir(working)
    caller = "from rapidbyte_dagster import build_definitions\ndefs = build_definitions('pipelines')\n"
    found: dict[str, object] = {"__file__": str(beside / "definitions.py")}
    exec(caller, found)
    definitions = found["defs"]
    assert isinstance(definitions, dg.Definitions)
    assert "shop/from_file" in keys_of(definitions)

    without_file: dict[str, object] = {}
    exec(caller, without_file)
    definitions = without_file["defs"]
    assert isinstance(definitions, dg.Definitions)
    assert "shop/from_cwd" in keys_of(definitions)


def test_a_path_that_is_nowhere_is_a_configuration_error_that_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file or folder 'no_such_folder'") as caught:
        build_definitions("no_such_folder")
    assert str(Path(__file__).parent / "no_such_folder") in str(caught.value)
    with pytest.raises(ConfigError, match="no pipeline file"):
        build_definitions(tmp_path)


def test_the_problems_of_all_files_are_told_together(tmp_path: Path) -> None:
    write(tmp_path, "good")
    write(tmp_path, "first", write_mode="repalce")
    write(tmp_path, "second", extra_key=1)
    with pytest.raises(ConfigError) as caught:
        build_definitions(tmp_path)
    text = "\n".join(caught.value.problems)
    assert "first.yaml" in text
    assert "repalce" in text
    assert "second.yaml" in text
    assert "extra_key" in text


def test_two_streams_that_claim_one_asset_are_a_configuration_error_with_both_places(tmp_path: Path) -> None:
    for name in ("shop", "crm"):
        path = write_pipeline(tmp_path, CONFIG, CONFIG, [{"name": "users", "dagster": {"key": "raw/users"}}], name=name)
        assert path.exists()
    with pytest.raises(ConfigError) as caught:
        build_definitions(tmp_path)
    text = str(caught.value)
    assert "asset 'raw/users' is made by" in text
    assert f"{tmp_path / 'shop.yaml'}:" in text
    assert f"{tmp_path / 'crm.yaml'}:" in text


class Chained(RapidbyteTranslator):
    """What pipeline `first` makes is what pipeline `second` reads."""

    def get_asset_spec(self, data: StreamTranslatorData) -> dg.AssetSpec:
        spec = super().get_asset_spec(data)
        if data.pipeline.name == "second" and data.asset == "source":
            return spec.replace_attributes(key=["first", data.stream.name])
        return spec


def test_a_table_that_one_pipeline_makes_can_be_the_source_of_another(tmp_path: Path) -> None:
    write(tmp_path, "first")
    write(tmp_path, "second")
    definitions = build_definitions(tmp_path, translator=Chained())
    graph = definitions.resolve_asset_graph()
    assert graph.get(dg.AssetKey(["second", "users"])).parent_keys == {dg.AssetKey(["first", "users"])}


def test_own_resources_take_the_place_of_the_default_ones(tmp_path: Path) -> None:
    own = RapidbyteResource(log_interval_seconds=1)
    definitions = build_definitions(write(tmp_path), resources={"rapidbyte": own, "other": 1})
    assert definitions.resources is not None
    assert definitions.resources["rapidbyte"] is own
    assert definitions.resources["other"] == 1
    assert set(default_resources()) <= set(definitions.resources)


def test_definitions_that_were_built_apart_can_be_merged_with_one_executor(tmp_path: Path) -> None:
    executor = dg.in_process_executor
    parts = [build_definitions(write(tmp_path, name), executor=executor) for name in ("shop", "crm")]
    merged = dg.Definitions.merge(*parts)
    dg.Definitions.validate_loadable(merged)
    assert {"shop/users", "crm/users"} <= keys_of(merged)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells of threads")
def test_what_the_processes_of_steps_are_forked_from_has_one_thread() -> None:
    """Beside another thread, which may hold a lock, it could not be forked."""
    program = "import importlib, os, sys; [importlib.import_module(name) for name in sys.argv[1:]];"
    count = "print(len(os.listdir('/proc/self/task')))"
    done = subprocess.run([sys.executable, "-c", program + count, *STEP_MODULES], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr


def test_a_decorated_body_names_a_stream_that_exists(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no stream 'user'") as caught:
        rapidbyte_stream_asset(pipeline=write(tmp_path, "shop", "users", "orders"), stream="user")
    assert "users, orders" in str(caught.value)


def test_loading_opens_nothing_and_needs_no_environment(tmp_path: Path) -> None:
    for number in range(100):
        write(tmp_path, f"p{number}", "users", "orders", "products")
    code = (
        "import sys, time\n"
        "import dagster\n"
        "before = set(sys.modules)\n"
        "def forbid(event, arguments):\n"
        "    if event.startswith(('socket.', 'sqlite3.connect', 'subprocess.', 'os.exec')):\n"
        "        raise AssertionError(event)\n"
        "sys.addaudithook(forbid)\n"
        "start = time.perf_counter()\n"
        "from rapidbyte_dagster import build_definitions\n"
        f"definitions = build_definitions({str(tmp_path)!r})\n"
        "print(time.perf_counter() - start)\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    started = time.monotonic()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("NOT_SET")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environ)
    assert ran.returncode == 0, ran.stderr
    seconds, modules = ran.stdout.splitlines()
    assert not {"wasmtime", "pyarrow", "psycopg"} & set(modules.split())
    # The goal is one second; this only catches a change of its order, on machines that are busy with other tests.
    assert float(seconds) < 5, f"100 pipelines took {seconds} s ({time.monotonic() - started:.1f} s with Dagster)"


def test_dagster_shows_a_bad_pipeline_file_as_one_readable_error(tmp_path: Path) -> None:
    write(tmp_path, "shop", write_mode="repalce")
    (tmp_path / "definitions.py").write_text(
        f"from rapidbyte_dagster import build_definitions\ndefs = build_definitions({str(tmp_path)!r})\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-f", str(tmp_path / "definitions.py")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "DAGSTER_HOME": ""},
    )
    assert ran.returncode != 0
    shown = ran.stdout + ran.stderr
    assert "shop.yaml:" in shown
    assert "destination.write_mode" in shown
    assert "'repalce'" in shown
    assert "did you mean 'replace'" in shown
