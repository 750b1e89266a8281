"""Imports point one way: `cli, assets -> engine -> {transforms -> runtime, state} -> config -> errors`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rapidbyte_dagster

PACKAGE = Path(rapidbyte_dagster.__file__).parent
NAME = "rapidbyte_dagster"

MAY_IMPORT = {
    "cli": {"engine", "transforms", "runtime", "state", "config", "errors"},
    "assets": {"engine", "runtime", "state", "config", "errors"},
    "engine": {"transforms", "runtime", "state", "config", "errors"},
    "transforms": {"runtime", "config", "errors"},
    "runtime": {"config", "errors"},
    "state": {"config", "errors"},
    "config": {"errors"},
    "errors": set[str](),
    # The public names: everything that a user needs, loaded on first use.
    "__init__": {"assets", "state", "config", "errors"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: Path) -> str:
    """The sub-package a module belongs to; a top-level module is its own."""
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_names(module: Path) -> Iterator[str]:
    """Every module that `module` names in an import, wherever in the file; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_part_of_the_package_has_its_place_in_the_order() -> None:
    assert {part_of(module) for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(module: Path) -> None:
    part = part_of(module)
    for name in imported_names(module):
        if not name.startswith(f"{NAME}."):
            continue
        target = name.split(".")[1]
        # `from rapidbyte_dagster import __version__` and the like name no part of the package.
        if (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").is_file():
            assert target == part or target in MAY_IMPORT[part], f"{part} must not import {name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_only_assets_imports_dagster_and_only_its_public_names(module: Path) -> None:
    for name in imported_names(module):
        parts = name.split(".")
        if not parts[0].startswith("dagster"):
            continue
        assert part_of(module) == "assets", f"{name} is imported outside assets/"
        assert not any(part.startswith("_") for part in parts), f"{name} is private to Dagster"
        assert parts[0] == "dagster", f"{name} is not Dagster's public package"


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(ran.stdout.split())


def test_importing_the_package_loads_neither_dagster_nor_the_engine() -> None:
    loaded = modules_loaded_by("import rapidbyte_dagster")
    assert not loaded & {"dagster", "wasmtime", "pyarrow", "psycopg", "pydantic"}


def test_the_command_line_starts_without_dagster() -> None:
    assert "dagster" not in modules_loaded_by("import rapidbyte_dagster.cli")


def test_the_assets_load_without_the_engine_and_its_libraries() -> None:
    loaded = modules_loaded_by(f"from {NAME} import build_definitions, RapidbyteResource, DlqIOManager")
    assert "dagster" in loaded
    assert not loaded & {"wasmtime", "pyarrow", "psycopg", "duckdb", f"{NAME}.engine", f"{NAME}.runtime"}
    assert "duckdb" not in modules_loaded_by(f"import {NAME}.engine")


def test_every_public_name_can_be_imported() -> None:
    for name in rapidbyte_dagster.__all__:
        assert getattr(rapidbyte_dagster, name) is not None
    assert set(rapidbyte_dagster.__all__) <= set(dir(rapidbyte_dagster))


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'build_definition'"):
        rapidbyte_dagster.build_definition  # noqa: B018
