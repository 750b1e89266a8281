from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from rapidbyte_dagster.runtime.checkout import newer_source, warn_if_stale

BUILT_AT = 1_700_000_000


def set_time(path: Path, seconds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (seconds, seconds))


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A connector's module in a checkout whose sources are older."""
    for source in ("build.zig", "sdk/root.zig", "source_postgres/sql/tables.sql"):
        set_time(tmp_path / "connectors" / source, BUILT_AT - 10)
    set_time(tmp_path / "rapidbyte_dagster/connectors/BUILD", BUILT_AT)
    return tmp_path / "rapidbyte_dagster/connectors/source-postgres.wasm"


def test_a_module_of_older_sources_is_current(module: Path) -> None:
    assert newer_source(module) is None


@pytest.mark.parametrize("source", ["sdk/root.zig", "source_postgres/sql/tables.sql", "dest_postgres/manifest.json"])
def test_a_source_that_changed_after_the_build_is_named(tmp_path: Path, module: Path, source: str) -> None:
    set_time(tmp_path / "connectors" / source, BUILT_AT + 1)
    assert newer_source(module) == Path("connectors", source)


@pytest.mark.parametrize("made", [".zig-cache/o/x.zig", "zig-out/bin/x.json", "sdk/notes.txt"])
def test_what_a_build_makes_is_no_source(tmp_path: Path, module: Path, made: str) -> None:
    set_time(tmp_path / "connectors" / made, BUILT_AT + 1)
    assert newer_source(module) is None


def test_an_installed_wheel_has_no_sources_to_be_older_than(tmp_path: Path) -> None:
    set_time(tmp_path / "rapidbyte_dagster/connectors/BUILD", BUILT_AT)
    assert newer_source(tmp_path / "rapidbyte_dagster/connectors/source-postgres.wasm") is None


def test_the_warning_comes_once_and_says_what_to_run(
    tmp_path: Path, module: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_time(tmp_path / "connectors/sdk/root.zig", BUILT_AT + 1)
    with caplog.at_level(logging.WARNING):
        warn_if_stale(module)
        warn_if_stale(module)
    assert [record.getMessage() for record in caplog.records] == [
        "source-postgres.wasm is older than connectors/sdk/root.zig: run `make connectors`"
    ]
