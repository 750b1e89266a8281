"""Compiles the connectors: `connectors/` (Zig) to `rapidbyte_dagster/connectors/` (WebAssembly and manifests).

hatchling runs the hook for wheels and editable installs alike; a checkout runs `python hatch_build.py`, which
compiles only what changed. The compiler is the `ziglang` package, pinned to the one version whose standard library
the sources are written for, so the same sources give the same bytes everywhere and the wheel is `py3-none-any`.

    connectors/<folder>/**, sdk, postgres      ──zig build──▶  <name>.wasm
    connectors/<folder>/manifest.json + sha256 of the module   <name>.json
    digest of all sources                                      BUILD
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ZIG_VERSION = "0.17.1"

# Module name -> its folder in connectors/.
CONNECTORS = {
    "source-postgres": "source_postgres",
    "dest-postgres": "dest_postgres",
    "transform-mask": "transform_mask",
    "transform-validate": "transform_validate",
}

# Folders of connectors/ that Zig writes itself; whatever else lies there, hidden files aside, the modules may embed.
CACHE_FOLDERS = frozenset({"zig-out", "zig-pkg"})

# Seconds. A cold compile takes 25 to 60 on two cores; this is for machines that hang.
COMPILE_TIMEOUT = 1800


class BuildFailed(Exception):
    """The connectors could not be compiled; the message says what to do."""


def sources_digest(root: Path) -> str:
    """SHA-256 over the names and contents of the connectors' sources and the compiler's version."""
    folder = root / "connectors"
    digest = hashlib.sha256(ZIG_VERSION.encode())
    for path in sorted(_sources(folder), key=lambda path: path.relative_to(folder).as_posix()):
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(folder: Path) -> list[Path]:
    found = []
    for directory, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in CACHE_FOLDERS and not name.startswith(".")]
        found += [Path(directory, name) for name in files if not name.startswith(".")]
    return found


def staleness(root: Path) -> str | None:
    """Why the built connectors are not those of the sources in `root`; None when they are.

    Reads the sources and the modules (a few hundred KB): milliseconds, no compiler. A tree without sources, such as an
    installed wheel, is never stale.
    """
    if not (root / "connectors" / "build.zig").is_file():
        return None
    target = root / "rapidbyte_dagster" / "connectors"
    try:
        built = json.loads((target / "BUILD").read_bytes())
        recorded, modules = built["sources"], built["modules"]
        for name in CONNECTORS:
            json.loads((target / f"{name}.json").read_bytes())
            if hashlib.sha256((target / f"{name}.wasm").read_bytes()).hexdigest() != modules[name]["sha256"]:
                return f"{name}.wasm is not the module that was built"
    except FileNotFoundError:
        return "the connectors have not been built"
    except (ValueError, KeyError, TypeError):
        return "the record of the last build is broken"
    if recorded != sources_digest(root):
        return "the sources of the connectors changed"
    return None


def stale_message(root: Path) -> str | None:
    """What to tell the user of a checkout at `root`; None when the connectors are current."""
    reason = staleness(root)
    return None if reason is None else f"connectors are stale ({reason}): run `make connectors`"


def build(root: Path, *, force: bool = False) -> bool:
    """Brings `rapidbyte_dagster/connectors/` up to date; False when it already was.

    Raises BuildFailed when there is no compiler or it reports errors.
    """
    if not force and staleness(root) is None:
        # Sources that are newer, and the same: whoever goes by times shall not call these modules stale.
        with contextlib.suppress(OSError):
            (root / "rapidbyte_dagster" / "connectors" / "BUILD").touch()
        return False
    # Of the sources as they are before: an edit during the build makes it stale again.
    digest = sources_digest(root)
    target = root / "rapidbyte_dagster" / "connectors"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rapidbyte-build-") as prefix:
        zig(root, "build", "--prefix", prefix)
        modules = {name: without_debug_info(Path(prefix, "bin", f"{name}.wasm").read_bytes()) for name in CONNECTORS}
    for name, folder in CONNECTORS.items():
        manifest = json.loads((root / "connectors" / folder / "manifest.json").read_bytes())
        manifest["sha256"] = hashlib.sha256(modules[name]).hexdigest()
        _replace(target / f"{name}.wasm", modules[name])
        _replace(target / f"{name}.json", _json(manifest))
    record = {
        "sources": digest,
        "zig": ZIG_VERSION,
        "modules": {
            name: {"sha256": hashlib.sha256(module).hexdigest(), "bytes": len(module)}
            for name, module in modules.items()
        },
    }
    _replace(target / "BUILD", _json(record))
    return True


def without_debug_info(module: bytes) -> bytes:
    """The module without its `.debug_…` sections, four fifths of it. Function names stay, for the traces of traps.

    Sections: https://webassembly.github.io/spec/core/binary/modules.html#sections
    """
    kept = [module[:8]]
    position = 8
    while position < len(module):
        start, kind = position, module[position]
        size, position = _leb128(module, position + 1)
        end = position + size
        if kind == 0:
            length, position = _leb128(module, position)
            custom = module[position : position + length]
        if kind != 0 or not custom.startswith(b".debug_"):
            kept.append(module[start:end])
        position = end
    return b"".join(kept)


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """The unsigned number at `position` and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def zig(root: Path, *arguments: str) -> str:
    """Runs the pinned compiler in `root`/connectors and returns what it reported, which is nothing when all is well.

    Its caches lie there too or, where that is read-only, in a temporary folder. Raises BuildFailed.
    """
    cache = _cache_folder(root)
    command = [str(_compiler()), *arguments]
    environment = {
        **os.environ,
        # Both by environment: subcommands name the options differently.
        "ZIG_LOCAL_CACHE_DIR": str(cache),
        "ZIG_GLOBAL_CACHE_DIR": str(cache / "global"),
        # Zig compiles its own build tool on first use, optimised: a minute, for a tool that only starts compilers.
        # Unoptimised it takes seconds. The modules are not affected.
        "ZIG_DEBUG_CMD": "1",
    }
    try:
        done = subprocess.run(
            command,
            cwd=root / "connectors",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_TIMEOUT,
            check=False,
        )
    except OSError as error:
        reinstall = f"reinstall it: pip install ziglang=={ZIG_VERSION}"
        raise BuildFailed(f"cannot run {command[0]}: {error}; {reinstall}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"the compiler did not finish within {COMPILE_TIMEOUT} s") from error
    lines = (done.stdout + done.stderr).splitlines()
    report = "\n".join(line for line in lines if not line.startswith("debug: ")).strip()
    if done.returncode != 0:
        raise BuildFailed(f"zig {' '.join(arguments)} failed\n{report}")
    return report


def _compiler() -> Path:
    """The `zig` of the installed `ziglang` package."""
    install = f"install the compiler: pip install ziglang=={ZIG_VERSION}"
    try:
        found = version("ziglang")
    except PackageNotFoundError:
        raise BuildFailed(f"the connectors are compiled with ziglang, which is not installed; {install}") from None
    if found != ZIG_VERSION:
        raise BuildFailed(f"ziglang is {found}, the connectors need {ZIG_VERSION}; {install}")
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        raise BuildFailed(f"the ziglang package is broken; {install}")
    return Path(spec.submodule_search_locations[0], "zig.exe" if os.name == "nt" else "zig")


def _cache_folder(root: Path) -> Path:
    local = root / "connectors" / ".zig-cache"
    try:
        local.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=local):
            return local
    except OSError:
        # One folder per user: another user's would not be writable, nor to be trusted.
        shared = Path(tempfile.gettempdir(), f"rapidbyte-zig-cache-{getattr(os, 'getuid', lambda: 0)()}")
        shared.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and shared.stat().st_uid != os.getuid():
            raise BuildFailed(f"{shared} belongs to another user, and {local} cannot be written") from None
        return shared


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _replace(path: Path, content: bytes) -> None:
    """Writes a file that other processes see whole: the old one or the new one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class ConnectorBuildHook(BuildHookInterface[Any]):
    """hatchling's entry: a wheel, editable or not, holds modules built from the sources beside it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        build(Path(self.root))
        # Modules are for the WebAssembly host, not for a platform.
        build_data["pure_python"] = True
        build_data["tag"] = "py3-none-any"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hatch_build.py", description="Compile the connectors if they are stale.")
    parser.add_argument("--force", action="store_true", help="compile even when nothing changed")
    parser.add_argument("--check", action="store_true", help="only tell whether they are stale (exit code 1)")
    parser.add_argument(
        "--zig",
        nargs=argparse.REMAINDER,
        metavar="ARGUMENT",
        help="run the pinned compiler in connectors/ instead: --zig build test",
    )
    options = parser.parse_args(arguments)
    root = Path(__file__).resolve().parent
    start = time.monotonic()
    try:
        if options.zig:
            report = zig(root, *options.zig)
            sys.stderr.write(f"{report}\n" if report else "")
        elif options.check:
            message = stale_message(root)
            sys.stderr.write(f"{message or 'connectors are current'}\n")
            return 0 if message is None else 1
        elif build(root, force=options.force):
            sys.stderr.write(f"connectors compiled in {time.monotonic() - start:.1f} s\n")
    except BuildFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
