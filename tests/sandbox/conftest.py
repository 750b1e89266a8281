"""Compiles the scripted guest once per session, with a compile cache of the session's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidbyte_dagster.runtime import Connector
from tests.sandbox.connectors import Scripted, write_manifest

GUESTS = Path(__file__).parent / "guests"
COMPILE_SECONDS = 120
"""Of one guest; about 4 s on an idle machine with an empty cache of Zig's."""


@pytest.fixture(scope="session")
def scripted_wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wasm = tmp_path_factory.mktemp("guests") / "scripted.wasm"
    command = [sys.executable, "-m", "ziglang", "build-exe", str(GUESTS / "scripted.zig")]
    options = ["-target", "wasm32-freestanding", "-fno-entry", "-rdynamic", "-O", "ReleaseSmall"]
    subprocess.run(
        [*command, *options, f"-femit-bin={wasm}", "--cache-dir", str(wasm.parent / "cache")],
        check=True,
        timeout=COMPILE_SECONDS,
        cwd=wasm.parent,
    )
    return wasm


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("compile-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAPIDBYTE_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def scripted(scripted_wasm: Path, compile_cache: Path) -> Scripted:
    return Scripted(Connector.load(write_manifest(scripted_wasm)))
