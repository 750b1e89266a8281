"""WebAssembly compiled to machine code, and kept on disk between processes.

An entry of the cache is one file, `<key>.cwasm`:

    "RBCWASM1" | SHA-256 of the rest (32 bytes) | wasmtime's serialised module

The key names everything that the machine code depends on: the module's SHA-256, wasmtime's version, the platform and
the engine's settings. wasmtime runs what it deserialises without verifying it, so an entry must be ours: the folder
belongs to this user and nobody else may write to it, the file too, and a checksum finds truncated or damaged entries.
Whatever does not pass is compiled again; a cache that cannot be used costs time, never correctness.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import secrets
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from weakref import WeakValueDictionary

import wasmtime

_LOG = logging.getLogger(__name__)

_MAGIC = b"RBCWASM1"
_HEADER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_SUFFIX = ".cwasm"

_ENGINE_SETTINGS = "epoch+static-memory"
"""Names the settings of `new_engine` in cache keys."""

MAX_ENTRY_BYTES = 512 * 1024 * 1024
"""An entry larger than this is not read; 1 MB of WebAssembly gives about 3 MB."""

KEPT_ENTRIES = 32
"""Entries beyond this many, oldest first, are deleted when one is added: each connector build leaves one behind."""

STALE_TEMPORARY_SECONDS = 3600.0
"""A temporary file this old was left by a process that died."""


def new_engine() -> wasmtime.Engine:
    """An engine of its own for each instance: incrementing its epoch stops that instance and no other."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    # The whole 4 GB that 32-bit addresses reach are reserved (not used): memory grows in place, see memory.py.
    config.memory_may_move = False
    return wasmtime.Engine(config)


@dataclass(frozen=True)
class CompiledModule:
    """Machine code that any number of engines can load."""

    serialized: bytes = field(repr=False)

    def load(self, engine: wasmtime.Engine) -> wasmtime.Module:
        return wasmtime.Module.deserialize(engine, self.serialized)


_IN_USE: WeakValueDictionary[str, CompiledModule] = WeakValueDictionary()
"""What somebody in this process still has: streams that run side by side share one copy of megabytes."""

_IN_USE_LOCK = threading.Lock()


def compile_module(wasm: bytes, sha256: str) -> CompiledModule:
    """The machine code of `wasm`, from the cache if it is there. Raises `wasmtime.WasmtimeError` if it is no module."""
    name = f"{sha256}-{_platform_tag()}{_SUFFIX}"
    # Held while it is compiled: whoever wants the same module meanwhile gets this one.
    with _IN_USE_LOCK:
        module = _IN_USE.get(name)
        if module is None:
            module = _IN_USE[name] = _from_cache(wasm, name)
    return module


def _from_cache(wasm: bytes, name: str) -> CompiledModule:
    with _trusted_folder() as folder:
        if folder is not None:
            found = _read_entry(folder, name)
            if found is not None:
                return CompiledModule(found)
        serialized = bytes(wasmtime.Module(new_engine(), wasm).serialize())
        if folder is not None:
            _write_entry(folder, name, serialized)
    return CompiledModule(serialized)


def cache_folders() -> tuple[Path, ...]:
    """Where the cache may be, in the order of preference."""
    explicit = os.environ.get("RAPIDBYTE_CACHE_DIR")
    fallback = Path(tempfile.gettempdir()) / f"rapidbyte-cache-{os.getuid()}"
    if explicit:
        return Path(explicit), fallback
    # The XDG specification says that a relative path is to be ignored.
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(xdg) if os.path.isabs(xdg) else Path(os.path.expanduser("~")) / ".cache"
    # A user without a home, as in some containers, has no `~` that could be expanded.
    return (base / "rapidbyte", fallback) if base.is_absolute() else (fallback,)


def _platform_tag() -> str:
    return f"wasmtime{metadata.version('wasmtime')}-{sys.platform}-{platform.machine()}-{_ENGINE_SETTINGS}"


@contextlib.contextmanager
def _trusted_folder() -> Iterator[int | None]:
    """A file descriptor of the first usable folder. Its entries are opened relative to it, so nobody can swap it."""
    for path in cache_folders():
        descriptor = _open_folder(path)
        if descriptor is not None:
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
    yield None


def _open_folder(path: Path) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        # O_NOFOLLOW: in a shared temporary folder, somebody else's link must not lead us elsewhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        _LOG.debug("compile cache %s cannot be used: %s", path, error)
        return None
    if not _is_ours(os.fstat(descriptor)):
        _LOG.warning(
            "compile cache %s is not used: it must belong to this user, who alone may write to it (chmod 700)", path
        )
    elif os.access(path, os.W_OK | os.X_OK):
        return descriptor
    os.close(descriptor)
    return None


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read_entry(folder: int, name: str) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not _is_ours(found) or found.st_size > MAX_ENTRY_BYTES:
            _LOG.warning("entry %s of the compile cache is not trusted", name)
            return None
        header, serialized = file.read(_HEADER_BYTES), file.read()
    if header != _header(serialized) or not _fits_this_machine(serialized):
        _LOG.info("entry %s of the compile cache is damaged or outdated; compiling again", name)
        return None
    return serialized


def _header(serialized: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(serialized).digest()


def _fits_this_machine(serialized: bytes) -> bool:
    """wasmtime compares its version, the settings and the CPU's features: a home may be shared between machines."""
    try:
        wasmtime.Module.deserialize(new_engine(), serialized)
    except wasmtime.WasmtimeError:
        return False
    return True


def _write_entry(folder: int, name: str, serialized: bytes) -> None:
    """Add an entry in one step: a reader sees all of it or nothing, and the last of several writers wins."""
    temporary = f".{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(_header(serialized))
                file.write(serialized)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        _tidy(folder)
    except OSError as error:
        _LOG.warning("the compile cache could not be written: %s", error)


def _tidy(folder: int) -> None:
    now = time.time()
    entries: list[tuple[float, str]] = []
    for name in os.listdir(folder):
        # Another process may be tidying too.
        with contextlib.suppress(FileNotFoundError):
            modified = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
            if name.endswith(_SUFFIX):
                entries.append((modified, name))
            elif name.endswith(".tmp") and now - modified > STALE_TEMPORARY_SECONDS:
                os.unlink(name, dir_fd=folder)
    entries.sort(reverse=True)
    for _, name in entries[KEPT_ENTRIES:]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
