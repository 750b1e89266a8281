"""What is no connector is refused before any of its code runs, and says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rapidbyte_dagster.config.manifest import Manifest
from rapidbyte_dagster.errors import ConfigError, Kind, Stage
from rapidbyte_dagster.runtime import Connector, Instance, NoData
from tests.sandbox.connectors import (
    EXPORTS_OF_A_SOURCE,
    OPEN_SANDBOX,
    Scripted,
    perform,
    write_manifest,
    write_module,
)


def refusal(manifest: Manifest) -> str:
    with pytest.raises(ConfigError) as caught:
        Connector.load(manifest)
    assert caught.value.kind is Kind.CONNECTOR
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_module_with_all_exports_is_loaded(tmp_path: Path) -> None:
    manifest = write_module(tmp_path, EXPORTS_OF_A_SOURCE)
    assert Connector.load(manifest).manifest is manifest


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    manifest = write_module(tmp_path, EXPORTS_OF_A_SOURCE)
    manifest.wasm_path.unlink()
    assert "No such file" in refusal(manifest)


def test_a_file_that_is_not_webassembly_is_refused(tmp_path: Path) -> None:
    wasm = tmp_path / "text.wasm"
    wasm.write_text("#!/bin/sh\n")
    assert "is not a WebAssembly module" in refusal(write_manifest(wasm))


def test_a_truncated_module_is_refused(tmp_path: Path, scripted_wasm: Path) -> None:
    wasm = tmp_path / "short.wasm"
    wasm.write_bytes(scripted_wasm.read_bytes()[:5_000])
    assert "is not a WebAssembly module" in refusal(write_manifest(wasm))


def test_a_module_that_was_changed_after_its_manifest_is_refused(tmp_path: Path, scripted_wasm: Path) -> None:
    wasm = tmp_path / "changed.wasm"
    wasm.write_bytes(scripted_wasm.read_bytes())
    manifest = write_manifest(wasm)
    content = bytearray(wasm.read_bytes())
    content[-1] ^= 1
    wasm.write_bytes(content)
    text = refusal(manifest)
    assert "does not match its manifest" in text
    assert str(manifest.sha256) in text


@pytest.mark.parametrize(
    ("imported", "named"),
    [
        ('(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))', "fd_write"),
        ('(import "env" "memory" (memory 1))', "env.memory"),
        ('(import "rapidbyte" "exec" (func (param i32 i32) (result i32)))', "rapidbyte.exec"),
        ('(import "rapidbyte" "state_put" (func (param i32 i32) (result i32)))', "rapidbyte.state_put"),
        ('(import "rapidbyte" "emit" (global i32))', "rapidbyte.emit"),
        ('(import "rapidbyte" "emit" (func (param i64) (result i32)))', "(i64) -> (i32)"),
    ],
)
def test_an_import_that_the_abi_does_not_have_is_refused(tmp_path: Path, imported: str, named: str) -> None:
    exports = EXPORTS_OF_A_SOURCE
    if "env" in imported:
        exports = exports.replace('(memory (export "memory") 2)', '(export "memory" (memory 0))')
    assert named in refusal(write_module(tmp_path, imported + exports))


@pytest.mark.parametrize("name", re.findall(r'\(export "(rb_\w+)"\)', EXPORTS_OF_A_SOURCE))
def test_a_missing_export_is_refused(tmp_path: Path, name: str) -> None:
    text = EXPORTS_OF_A_SOURCE.replace(f'"{name}"', '"something_else"')
    assert f"does not export '{name}'" in refusal(write_module(tmp_path, text))


def test_an_optional_verb_may_be_missing_and_is_told_when_it_is_there(tmp_path: Path) -> None:
    assert not Connector.load(write_module(tmp_path, EXPORTS_OF_A_SOURCE)).offers("rb_split")
    split = '(func (export "rb_split") (param i32 i32) (result i64) i64.const 0)'
    connector = Connector.load(write_module(tmp_path, EXPORTS_OF_A_SOURCE + split))
    assert connector.offers("rb_split")
    assert connector.offers("rb_read")
    assert not connector.offers("rb_stage")
    text = EXPORTS_OF_A_SOURCE + split.replace("(result i64) i64.const 0", "")
    assert "exports 'rb_split' as (i32, i32) -> ()" in refusal(write_module(tmp_path, text))


def test_a_source_that_calls_itself_a_destination_is_refused(tmp_path: Path) -> None:
    text = refusal(write_module(tmp_path, EXPORTS_OF_A_SOURCE, role="destination"))
    assert "does not export 'rb_write'" in text


def test_an_export_of_another_type_is_refused(tmp_path: Path) -> None:
    text = EXPORTS_OF_A_SOURCE.replace(
        '(func (export "rb_free") (param i32 i32))', '(func (export "rb_free") (param i32))'
    )
    assert "exports 'rb_free' as (i32) -> (), the ABI has (i32, i32) -> ()" in refusal(write_module(tmp_path, text))


@pytest.mark.parametrize(
    "memory", ['(memory 2) (global (export "memory") i32 (i32.const 0))', '(memory (export "memory") i64 2)']
)
def test_a_memory_that_the_host_cannot_address_is_refused(tmp_path: Path, memory: str) -> None:
    text = EXPORTS_OF_A_SOURCE.replace('(memory (export "memory") 2)', memory)
    assert "does not export a 32-bit linear `memory`" in refusal(write_module(tmp_path, text))


def test_another_abi_version_is_refused_when_it_starts(tmp_path: Path) -> None:
    text = EXPORTS_OF_A_SOURCE.replace("i32.const 1)", "i32.const 2)", 1)
    connector = Connector.load(write_module(tmp_path, text))
    with (
        pytest.raises(ConfigError, match="implements ABI version 2, this host has 1") as caught,
        Instance(connector, host=NoData(), sandbox=OPEN_SANDBOX, stage=Stage.SOURCE),
    ):
        pass
    assert caught.value.kind is Kind.CONNECTOR


def test_a_loaded_connector_does_not_look_at_its_file_again(scripted: Scripted, scripted_wasm: Path) -> None:
    hidden = scripted_wasm.rename(scripted_wasm.with_suffix(".hidden"))
    try:
        with scripted.instance() as instance:
            assert perform(instance).statuses == []
    finally:
        hidden.rename(scripted_wasm)
