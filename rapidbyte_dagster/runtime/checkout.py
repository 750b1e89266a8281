"""In a checkout of this repository: whether a connector was built before its sources last changed.

An installed wheel has no sources, and nothing to be told. The build touches `BUILD` whenever it finds the modules
current, so that times decide and loading a connector stays a matter of milliseconds.
"""

from __future__ import annotations

import logging
from pathlib import Path

_LOG = logging.getLogger("rapidbyte_dagster")
_SOURCE_SUFFIXES = frozenset({".zig", ".json", ".sql"})
_NOT_SOURCES = (".", "zig-out")
_told: set[Path] = set()


def warn_if_stale(wasm_path: Path) -> None:
    """Logs a warning, once per process and module, that names a source that is newer than the build."""
    source = newer_source(wasm_path)
    if source is not None and wasm_path not in _told:
        _told.add(wasm_path)
        _LOG.warning("%s is older than %s: run `make connectors`", wasm_path.name, source)


def newer_source(wasm_path: Path) -> Path | None:
    """A source that changed after the build of `wasm_path`, relative to the checkout; None outside of one."""
    built = wasm_path.parent / "BUILD"
    checkout = wasm_path.parent.parent.parent
    sources = checkout / "connectors"
    try:
        if not (sources / "build.zig").is_file():
            return None
        built_at = built.stat().st_mtime_ns
        folders = [each for each in sources.iterdir() if each.is_dir() and not each.name.startswith(_NOT_SOURCES)]
        found = [path for each in folders for path in each.rglob("*") if path.suffix in _SOURCE_SUFFIXES]
        newest = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None or newest.stat().st_mtime_ns <= built_at:
            return None
    except OSError:
        return None
    return newest.relative_to(checkout)
