from __future__ import annotations

import json
from pathlib import Path

import pytest

from rapidbyte_dagster.config import manifest

CONNECTOR_SOURCES = Path(__file__).resolve().parents[3] / "connectors"


@pytest.fixture(autouse=True)
def connectors(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first-party manifests as the build writes them, without building: loading never opens a module."""
    folder = tmp_path_factory.mktemp("connectors")
    for source in CONNECTOR_SOURCES.glob("*/manifest.json"):
        described = json.loads(source.read_text(encoding="utf-8"))
        described["sha256"] = "0" * 64
        (folder / f"{described['name']}.json").write_text(json.dumps(described), encoding="utf-8")
        (folder / f"{described['name']}.wasm").touch()
    # The build keeps its own notes in the same folder.
    (folder / "BUILD.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(manifest, "CONNECTORS", folder)
    return folder
