"""The build of the connectors: what makes them stale, and that the same sources give the same bytes anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import hatch_build

ROOT = Path(hatch_build.__file__).resolve().parent

# The smallest module: magic and version.
EMPTY_MODULE = b"\0asm\1\0\0\0"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A tree with two sources and modules that were built from them."""
    root = tmp_path / "a check out"
    for folder in hatch_build.CONNECTORS.values():
        (root / "connectors" / folder).mkdir(parents=True)
        (root / "connectors" / folder / "manifest.json").write_text('{"name": "x"}')
    (root / "connectors" / "build.zig").write_text("")
    target = root / "rapidbyte_dagster" / "connectors"
    target.mkdir(parents=True)
    modules = {}
    for name in hatch_build.CONNECTORS:
        (target / f"{name}.wasm").write_bytes(EMPTY_MODULE)
        (target / f"{name}.json").write_text("{}")
        modules[name] = {"sha256": hashlib.sha256(EMPTY_MODULE).hexdigest(), "bytes": len(EMPTY_MODULE)}
    record = {"sources": hatch_build.sources_digest(root), "zig": hatch_build.ZIG_VERSION, "modules": modules}
    (target / "BUILD").write_text(json.dumps(record))
    return root


def share_compiler(root: Path) -> None:
    """Lets `root` use what Zig compiled for itself in this checkout: its build tool, not the modules."""
    shared = ROOT / "connectors" / ".zig-cache" / "global"
    if shared.is_dir():
        (root / "connectors" / ".zig-cache").mkdir()
        os.symlink(shared, root / "connectors" / ".zig-cache" / "global")


def test_modules_of_these_sources_are_not_stale(checkout: Path) -> None:
    assert hatch_build.staleness(checkout) is None
    assert hatch_build.stale_message(checkout) is None
    assert hatch_build.build(checkout) is False


def _edit(root: Path) -> None:
    (root / "connectors" / "build.zig").write_text("// changed")


def _add(root: Path) -> None:
    (root / "connectors" / "source_postgres" / "query.sql").write_text("select 1")


def _rename(root: Path) -> None:
    (root / "connectors" / "build.zig").rename(root / "connectors" / "sdk.zig")
    (root / "connectors" / "build.zig").write_text("")


def _tamper(root: Path) -> None:
    (root / "rapidbyte_dagster" / "connectors" / "dest-postgres.wasm").write_bytes(EMPTY_MODULE + b"\0")


def _lose_manifest(root: Path) -> None:
    (root / "rapidbyte_dagster" / "connectors" / "dest-postgres.json").unlink()


def _break_record(root: Path) -> None:
    (root / "rapidbyte_dagster" / "connectors" / "BUILD").write_text("[]")


def _clean(root: Path) -> None:
    shutil.rmtree(root / "rapidbyte_dagster" / "connectors")


@pytest.mark.parametrize("change", [_edit, _add, _rename, _tamper, _lose_manifest, _break_record, _clean])
def test_any_change_to_sources_or_modules_makes_them_stale(checkout: Path, change: Callable[[Path], None]) -> None:
    change(checkout)
    message = hatch_build.stale_message(checkout)
    assert message is not None
    assert "run `make connectors`" in message


def test_caches_and_hidden_files_do_not_make_modules_stale(checkout: Path) -> None:
    for name in [".zig-cache", "zig-out", "sdk/zig-out"]:
        (checkout / "connectors" / name).mkdir(parents=True)
        (checkout / "connectors" / name / "x.zig").write_text("x")
    (checkout / "connectors" / ".x.zig.swp").write_text("x")
    assert hatch_build.staleness(checkout) is None


def test_a_tree_without_sources_is_never_stale(tmp_path: Path) -> None:
    assert hatch_build.staleness(tmp_path) is None


def test_sources_that_do_not_compile_are_reported_and_leave_the_modules(checkout: Path) -> None:
    share_compiler(checkout)
    (checkout / "connectors" / "build.zig").write_text("this is not zig")
    with pytest.raises(hatch_build.BuildFailed, match="expected"):
        hatch_build.build(checkout)
    assert (checkout / "rapidbyte_dagster" / "connectors" / "source-postgres.wasm").read_bytes() == EMPTY_MODULE


def test_another_compiler_than_the_pinned_one_is_refused(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "ZIG_VERSION", "0.0.1")
    with pytest.raises(hatch_build.BuildFailed, match=r"pip install ziglang==0\.0\.1"):
        hatch_build.zig(checkout, "version")


def test_the_compiler_runs_where_its_cache_cannot_lie_beside_the_sources(checkout: Path) -> None:
    # A file in the way stops root too, whom permissions do not.
    (checkout / "connectors" / ".zig-cache").write_text("")
    assert hatch_build.zig(checkout, "version") == hatch_build.ZIG_VERSION


def test_debug_sections_are_dropped_and_all_else_is_kept() -> None:
    types = b"\1\4\1\x60\0\0"
    name = b"\0\7\4name\0\0"
    debug = b"\0\x8c\0\x0b.debug_info"  # a size of two bytes: 12
    assert hatch_build.without_debug_info(EMPTY_MODULE + types + debug + name + debug) == EMPTY_MODULE + types + name


def test_the_same_sources_give_the_same_modules_in_another_folder(tmp_path: Path) -> None:
    if hatch_build.staleness(ROOT) is not None:
        pytest.skip("the connectors of this checkout are stale: make build")
    root = tmp_path / "ein anderer Ordner"
    shutil.copytree(ROOT / "connectors", root / "connectors", ignore=shutil.ignore_patterns(".*", "zig-out"))
    share_compiler(root)
    assert hatch_build.build(root) is True
    assert hatch_build.staleness(root) is None
    for name in hatch_build.CONNECTORS:
        module = (root / "rapidbyte_dagster" / "connectors" / f"{name}.wasm").read_bytes()
        assert module == (ROOT / "rapidbyte_dagster" / "connectors" / f"{name}.wasm").read_bytes()
        manifest = json.loads((root / "rapidbyte_dagster" / "connectors" / f"{name}.json").read_bytes())
        assert manifest["sha256"] == hashlib.sha256(module).hexdigest()
        source = ROOT / "connectors" / hatch_build.CONNECTORS[name] / "manifest.json"
        assert {**json.loads(source.read_bytes()), "sha256": manifest["sha256"]} == manifest
