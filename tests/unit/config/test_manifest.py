"""Which connectors there are, and what their manifests must hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Manifest, Role, find_manifest, first_party_manifests
from rapidbyte_dagster.errors import ConfigError, Kind
from tests.unit.config.pipeline_files import changed, load_text, only_problem

MANIFEST: dict[str, Any] = {
    "name": "source-mine",
    "version": "1.2.3",
    "role": "source",
    "protocol": 1,
    "description": "Mine.",
    "config_schema": {"type": "object", "properties": {"host": {"type": "string", "x-rapidbyte": "host"}}},
    "permissions": {"network": {"allowed_hosts": ["*.x"]}},
    "limits": {"max_memory": 33554432, "timeout_seconds": None},
    "sha256": "ab" * 32,
}


def written(folder: Path, **changes: Any) -> Path:
    """A module (never opened here) with its manifest beside it."""
    module = folder / "mine.wasm"
    module.write_bytes(b"\0asm")
    content = {key: value for key, value in {**MANIFEST, **changes}.items() if value is not ...}
    module.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")
    return module


def test_the_first_party_connectors_are_found_by_name_and_short_name(tmp_path: Path) -> None:
    found = first_party_manifests()
    transforms = {"transform-mask", "transform-sql", "transform-validate"}
    assert set(found) == {"source-postgres", "dest-postgres"} | transforms
    assert [name for name in found if found[name].runs_in_host] == ["transform-sql"]
    assert find_manifest("mask", Role.TRANSFORM, tmp_path).name == "transform-mask"
    for role, name in ((Role.SOURCE, "source-postgres"), (Role.DESTINATION, "dest-postgres")):
        manifest = find_manifest("postgres", role, tmp_path)
        assert manifest.name == find_manifest(name, role, tmp_path).name == name
        assert manifest.role is role
        assert manifest.wasm_path == manifest.path.with_suffix(".wasm")
        assert manifest.permissions.network.allowed_hosts == ("*",)
        properties = manifest.config_schema["properties"]
        assert properties["password"]["writeOnly"] is True
        assert properties["host"]["x-rapidbyte"] == "host"
        assert [key for key, part in properties.items() if part.get("x-rapidbyte") == "file"] == [
            "sslrootcert",
            "sslcert",
            "sslkey",
        ]


def test_a_module_is_found_by_its_path_from_the_pipelines_folder(tmp_path: Path) -> None:
    module = written(tmp_path)
    for use in ("mine.wasm", "./mine.wasm", str(module)):
        manifest = find_manifest(use, Role.SOURCE, tmp_path)
        assert isinstance(manifest, Manifest)
        assert (manifest.name, manifest.version, manifest.sha256) == ("source-mine", "1.2.3", "ab" * 32)
        assert (manifest.limits.max_memory, manifest.limits.timeout_seconds) == (33554432, None)


def test_a_pipeline_uses_a_module_by_its_path(tmp_path: Path) -> None:
    module = written(tmp_path)
    pipeline = load_text(tmp_path, changed(("use: postgres", "use: ./mine.wasm")))
    assert pipeline.source.use == str(module)
    assert find_manifest(pipeline.source.use, Role.SOURCE, Path("/elsewhere")).name == "source-mine"


def test_a_module_without_a_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.wasm").write_bytes(b"")
    problem = only_problem(tmp_path, changed(("use: postgres", "use: mine.wasm")))
    assert "has no manifest; its manifest must be beside it as mine.json" in problem


def test_a_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("use: postgres", "use: connectors/mine.wasm")))
    assert problem == "shop.yaml:4: source.use: there is no connector module connectors/mine.wasm"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ...}, "name: Field required"),
        ({"name": "Mine!"}, "name: "),
        ({"role": "sink"}, "role: allowed: source, destination, transform"),
        ({"protocol": 2}, "it speaks protocol 2; this version of Rapidbyte speaks 1"),
        ({"sha256": "abc"}, "sha256: "),
        ({"sha256": ...}, "sha256: Field required"),
        ({"config_schema": []}, "config_schema: "),
        ({"permissions": {"network": {"allowed_hosts": ["a:1"]}}}, "permissions.network.allowed_hosts[0]: "),
        ({"limits": {"max_memory": 1}}, "limits.max_memory: "),
        ({"licence": "MIT"}, "licence: "),
    ],
)
def test_a_broken_manifest_is_refused_as_no_connector(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    written(tmp_path, **changes)
    with pytest.raises(ConfigError) as caught:
        find_manifest("./mine.wasm", Role.SOURCE, tmp_path)
    assert caught.value.kind is Kind.CONNECTOR
    assert "mine.json is no connector manifest" in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"x" * 2_000_000])
def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    written(tmp_path).with_suffix(".json").write_bytes(content)
    with pytest.raises(ConfigError, match="no connector manifest") as caught:
        find_manifest("./mine.wasm", Role.SOURCE, tmp_path)
    assert caught.value.kind is Kind.CONNECTOR


def test_a_config_schema_that_is_no_schema_is_refused(tmp_path: Path) -> None:
    written(tmp_path, config_schema={"type": "nonsense"})
    with pytest.raises(ConfigError, match="no valid JSON Schema"):
        load_text(tmp_path, changed(("use: postgres", "use: ./mine.wasm")))


def test_a_config_schema_cannot_make_loading_open_a_connection(tmp_path: Path) -> None:
    written(tmp_path, config_schema={"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(ConfigError, match="refers to a schema outside itself"):
        load_text(tmp_path, changed(("use: postgres", "use: ./mine.wasm")))


def test_a_manifest_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = written(tmp_path).with_suffix(".json")
    assert find_manifest("./mine.wasm", Role.SOURCE, tmp_path).version == "1.2.3"
    written(tmp_path, version="1.2.4")
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))
    assert find_manifest("./mine.wasm", Role.SOURCE, tmp_path).version == "1.2.4"


def test_values_of_nested_config_are_converted_and_hidden_as_the_schema_says(tmp_path: Path) -> None:
    written(
        tmp_path,
        config_schema={
            "type": "object",
            "properties": {
                "login": {"type": "object", "properties": {"token": {"type": "string", "writeOnly": True}}},
                "ratios": {"type": "array", "items": {"type": "number"}},
                "fast": {"type": "boolean"},
            },
        },
    )
    text = changed(
        ("use: postgres", "use: ./mine.wasm"),
        ("database: shop", "login: {token: literal-token}\n    ratios: ['${RATIO}', 2]\n    fast: ${FAST}"),
    )
    resolved = load_text(tmp_path, text).source.config.resolve(
        {"RATIO": "0.5", "FAST": "yes", "SHOP_HOST": "h", "SHOP_PASSWORD": "p"}
    )
    assert resolved.values["ratios"] == [0.5, 2]
    assert resolved.values["fast"] is True
    assert "literal-token" in resolved.secrets
