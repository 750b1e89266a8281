"""The JSON Schema that editors use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rapidbyte_dagster.config import first_party_manifests, json_schema
from tests.unit.config.pipeline_files import VALID

DOCS = Path(__file__).resolve().parents[3] / "docs"

EVERY_KEY = """\
version: "1.0"
pipeline: shop
schedule: "0 * * * *"
source:
  use: source-postgres
  config:
    host: ${SHOP_HOST}
    port: 5432
    user: ${SHOP_USER}
    password: ${SHOP_PASSWORD}
    database: shop
    schema: public
    sslmode: prefer
    sslrootcert: ca.pem
    replication_slot: rapidbyte_shop
    publication: rapidbyte_shop
  permissions: { network: { allowed_hosts: ["db.internal", "*.aws.internal"] } }
  limits: { max_memory: 512mb, timeout_seconds: 3600 }
  streams:
    - name: users
      schema: crm
      sync_mode: incremental
      cursor_field: updated_at
      tie_breaker_field: id
      cursor_lag: 5m
      columns: [id, email, updated_at]
      filter: "deleted_at is null"
      table: app_users
      write_mode: upsert
      primary_key: [id]
      replication_slot: own
      deletes: hard
      dead_letters: {fail_above: 100}
      dagster:
        key: [raw, users]
        group: crm
        owners: [team:data]
        tags: {tier: gold}
        kinds: [postgres]
        retry_policy: { max_retries: 0 }
        op_tags: { dagster/priority: 3 }
transforms:
  - use: transform-validate
    streams: [users]
    config: { rules: [ { assert_not_null: email } ] }
destination:
  use: dest-postgres
  config: { host: dw, port: "${DW_PORT}", user: etl, password: "${DW_PASSWORD}", database: dw, load_method: copy }
  write_mode: upsert
  primary_key: [id]
  on_data_error: dlq
  dlq_table: _rapidbyte_dlq
  dead_letters: { warn_above: 0, fail_above: 0.1% }
  schema_evolution:
    new_column: add
    removed_column: ignore
    type_change: fail
    nullability_change: allow
state: { backend: sqlite }
resources:
  parallelism: auto
  max_memory: 256mb
  max_batch_bytes: 16mb
  max_inflight_bytes: 64mb
  checkpoint_interval_bytes: 64mb
  checkpoint_interval_rows: 0
  checkpoint_interval_seconds: 0
  max_retries: 3
dagster:
  retry_policy: { max_retries: 2, delay: 1.5, backoff: exponential, jitter: full }
  op_tags: { dagster-k8s/config: { container_config: { resources: { limits: { memory: 2Gi } } } } }
  pool: warehouse
"""


def problems(value: Any) -> list[str]:
    schema = json.loads((DOCS / "pipeline.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def test_the_schema_in_the_docs_is_fresh() -> None:
    written = (DOCS / "pipeline.schema.json").read_text(encoding="utf-8")
    assert written == json_schema.schema_text(first_party_manifests()), (
        "run: python -m rapidbyte_dagster.config.json_schema docs/pipeline.schema.json"
    )


def test_the_command_writes_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json_schema.main([str(tmp_path / "schema.json")]) == 0
    assert json_schema.main([]) == 0
    assert capsys.readouterr().out == (tmp_path / "schema.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [EVERY_KEY, VALID])
def test_the_schema_accepts_files_with_every_key(text: str) -> None:
    assert problems(yaml.safe_load(text)) == []


def _rename(path: tuple[Any, ...], name: str) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        value[name] = value.pop(path[-1])

    return change


def _set(path: tuple[Any, ...], new: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = new

    return change


@pytest.mark.parametrize(
    "change",
    [
        _rename(("pipeline",), "pipline"),
        _rename(("source", "streams", 0, "columns"), "colums"),
        _rename(("source", "config", "password"), "pasword"),
        _rename(("destination", "config", "load_method"), "loadmethod"),
        _rename(("destination", "schema_evolution", "new_column"), "new_columns"),
        _rename(("resources", "max_retries"), "retries"),
        _set(("version",), 1.0),
        _set(("source", "streams", 0, "sync_mode"), "full"),
        _set(("source", "streams"), []),
        _set(("source", "streams", 0, "columns"), []),
        _set(("source", "config", "port"), "5432"),
        _set(("source", "config", "sslmode"), "off"),
        _set(("source", "permissions", "network", "allowed_hosts"), None),
        _set(("destination", "write_mode"), "insert"),
        _set(("resources", "max_memory"), "256mib"),
        _set(("resources", "parallelism"), 0),
        _set(("destination", "dead_letters", "fail_above"), "101%"),
        _set(("destination", "dead_letters", "warn_above"), -1),
        _rename(("source", "streams", 0, "dead_letters", "fail_above"), "fail_over"),
        _rename(("dagster", "retry_policy", "max_retries"), "retries"),
        _set(("dagster", "retry_policy", "delay"), 0),
        _set(("dagster", "retry_policy", "jitter"), "some"),
        _set(("dagster", "op_tags", "tier"), None),
        _set(("dagster", "pool"), "a b"),
        _set(("dagster", "group"), "crm"),
    ],
)
def test_the_schema_rejects_typos(change: Callable[[Any], None]) -> None:
    value = yaml.safe_load(EVERY_KEY)
    change(value)
    assert problems(value)


def test_every_key_of_the_models_is_in_the_schema_with_a_description() -> None:
    schema = json.loads((DOCS / "pipeline.schema.json").read_text(encoding="utf-8"))
    for name in (
        "Stream",
        "Source",
        "Destination",
        "SchemaEvolution",
        "Resources",
        "StateConfig",
        "DagsterOptions",
        "OpOptions",
        "RetryPolicyOptions",
        "DeadLetterLimits",
    ):
        for key, part in schema["$defs"][name]["properties"].items():
            assert part.get("description"), f"{name}.{key}"
