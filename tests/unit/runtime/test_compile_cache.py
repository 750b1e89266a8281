"""The compile cache: fast when it can be trusted, ignored when it cannot, never wrong."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import subprocess
import sys
import tempfile
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wasmtime

from rapidbyte_dagster.runtime import compiled
from rapidbyte_dagster.runtime.compiled import CompiledModule, cache_folders, compile_module, new_engine

WRITERS = 4


def module_answering(number: int) -> bytes:
    return bytes(wasmtime.wat2wasm(f'(module (func (export "answer") (result i32) i32.const {number}))'))


def compile_it(wasm: bytes) -> CompiledModule:
    return compile_module(wasm, hashlib.sha256(wasm).hexdigest())


def answer_of(module: CompiledModule) -> object:
    engine = new_engine()
    store = wasmtime.Store(engine)
    store.set_epoch_deadline(1)
    function = wasmtime.Instance(store, module.load(engine), []).exports(store)["answer"]
    assert isinstance(function, wasmtime.Func)
    return function(store)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in use; it does not exist yet. A folder to fall back to lies beside it."""
    monkeypatch.setenv("RAPIDBYTE_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "cache"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every module that is compiled from here on; what comes from the cache is not among them."""
    seen: list[bytes] = []
    original = wasmtime.Module

    class Counting(original):  # type: ignore[misc, valid-type]
        def __init__(self, engine: wasmtime.Engine, wasm: bytes) -> None:
            seen.append(wasm)
            super().__init__(engine, wasm)

    monkeypatch.setattr(wasmtime, "Module", Counting)
    return seen


def test_a_module_is_compiled_once(cache: Path, compilations: list[bytes]) -> None:
    wasm = module_answering(42)
    assert [answer_of(compile_it(wasm)) for _ in range(3)] == [42, 42, 42]
    assert compilations == [wasm]
    assert len(entries(cache)) == 1


def test_streams_side_by_side_share_one_copy_and_compile_it_once(cache: Path, compilations: list[bytes]) -> None:
    wasm = module_answering(7)
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(lambda _: compile_it(wasm), range(4)))
    assert all(module is shared[0] for module in shared)
    assert compilations == [wasm]
    last = weakref.ref(shared[0])
    shared.clear()
    assert last() is None, "nobody has it any more"


def test_folder_and_entries_are_the_users_alone(cache: Path) -> None:
    compile_it(module_answering(1))
    (entry,) = entries(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600


def test_an_entry_names_what_it_depends_on(cache: Path) -> None:
    wasm = module_answering(1)
    compile_it(wasm)
    (entry,) = entries(cache)
    assert hashlib.sha256(wasm).hexdigest() in entry.name
    assert "wasmtime" in entry.name
    assert sys.platform in entry.name


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:-100] + bytes(100),
        lambda content: b"\x7fELF" + content,
        lambda content: bytes(len(content)),
    ],
)
def test_a_damaged_entry_is_compiled_again(cache: Path, compilations: list[bytes], damage: object) -> None:
    wasm = module_answering(7)
    compile_it(wasm)
    (entry,) = entries(cache)
    assert callable(damage)
    entry.write_bytes(damage(entry.read_bytes()))
    assert answer_of(compile_it(wasm)) == 7
    assert answer_of(compile_it(wasm)) == 7
    assert len(compilations) == 2, "and mended"


def test_an_entry_of_another_wasmtime_is_compiled_again(cache: Path, compilations: list[bytes]) -> None:
    wasm = module_answering(7)
    compile_it(wasm)
    (entry,) = entries(cache)
    # An intact entry, as far as the checksum tells, of something that wasmtime does not take.
    foreign = b"\x7fELF of another version"
    entry.write_bytes(compiled._MAGIC + hashlib.sha256(foreign).digest() + foreign)
    assert answer_of(compile_it(wasm)) == 7
    assert len(compilations) == 2


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720])
def test_a_folder_that_others_may_write_to_is_not_trusted(
    cache: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir()
    cache.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert answer_of(compile_it(module_answering(3))) == 3
    assert entries(cache) == []
    assert "must belong to this user" in caplog.text
    assert len(entries(cache_folders()[-1])) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_not_trusted(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    os.chown(cache, 12345, 12345)
    assert answer_of(compile_it(module_answering(3))) == 3
    assert entries(cache) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_an_entry_of_another_user_is_not_trusted(cache: Path, compilations: list[bytes]) -> None:
    wasm = module_answering(3)
    compile_it(wasm)
    (entry,) = entries(cache)
    os.chown(entry, 12345, 12345)
    compile_it(wasm)
    assert len(compilations) == 2


def test_a_folder_that_is_a_link_is_not_followed(cache: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    cache.symlink_to(elsewhere)
    compile_it(module_answering(3))
    assert entries(elsewhere) == []


def test_an_entry_that_is_a_link_is_not_followed(cache: Path, tmp_path: Path, compilations: list[bytes]) -> None:
    wasm = module_answering(3)
    compile_it(wasm)
    (entry,) = entries(cache)
    entry.symlink_to(entry.rename(tmp_path / "moved"))
    compile_it(wasm)
    assert len(compilations) == 2


def test_an_entry_that_is_a_pipe_does_not_block(cache: Path) -> None:
    wasm = module_answering(3)
    compile_it(wasm)
    (entry,) = entries(cache)
    entry.unlink()
    os.mkfifo(entry, 0o600)
    assert answer_of(compile_it(wasm)) == 3


def test_without_any_usable_folder_it_compiles_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[bytes]
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("RAPIDBYTE_CACHE_DIR", str(blocker / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(blocker / "tmp"))
    wasm = module_answering(5)
    assert [answer_of(compile_it(wasm)) for _ in range(2)] == [5, 5]
    assert len(compilations) == 2


def test_the_folder_is_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAPIDBYTE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folders()[0] == Path("/home/someone/.cache/rapidbyte")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_folders()[0] == Path("/home/someone/.cache/rapidbyte")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folders()[0] == Path("/xdg/rapidbyte")
    monkeypatch.setenv("RAPIDBYTE_CACHE_DIR", "/explicit")
    assert cache_folders()[0] == Path("/explicit")
    assert cache_folders()[1].name == f"rapidbyte-cache-{os.getuid()}"


def test_old_entries_and_leftovers_are_tidied_away(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    long_ago = time.time() - 7_200
    for index in range(compiled.KEPT_ENTRIES + 3):
        path = cache / f"{index:02}.cwasm"
        path.write_bytes(b"")
        os.utime(path, (long_ago + index, long_ago + index))
    leftover, fresh = cache / ".old.tmp", cache / ".new.tmp"
    leftover.write_bytes(b"")
    os.utime(leftover, (long_ago, long_ago))
    fresh.write_bytes(b"")
    compile_it(module_answering(1))
    names = {path.name for path in entries(cache)}
    assert len([name for name in names if name.endswith(".cwasm")]) == compiled.KEPT_ENTRIES
    assert {"00.cwasm", "03.cwasm", ".old.tmp"}.isdisjoint(names)
    assert {"04.cwasm", ".new.tmp"} <= names


def test_several_processes_write_and_read_at_once(cache: Path) -> None:
    program = """
import hashlib, sys, time, wasmtime
from rapidbyte_dagster.runtime.compiled import compile_module, new_engine
start = float(sys.argv[1])
time.sleep(max(0.0, start - time.time()))
for round in range(40):
    number = round % 4
    wasm = bytes(wasmtime.wat2wasm(f'(module (func (export "answer") (result i32) i32.const {number}))'))
    engine = new_engine()
    store = wasmtime.Store(engine)
    store.set_epoch_deadline(1)
    module = compile_module(wasm, hashlib.sha256(wasm).hexdigest()).load(engine)
    assert wasmtime.Instance(store, module, []).exports(store)["answer"](store) == number
    if round % 10 == 9:
        import os, contextlib
        for name in os.listdir(os.environ["RAPIDBYTE_CACHE_DIR"]):
            if name.endswith(".cwasm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(os.environ["RAPIDBYTE_CACHE_DIR"], name))
"""
    command = [sys.executable, "-W", "error", "-c", program, str(time.time() + 1.5)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(WRITERS)]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert errors == ""
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [path for path in entries(cache) if path.suffix == ".tmp"] == []


def test_a_user_without_a_home_caches_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAPIDBYTE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert [folder.name for folder in cache_folders()] == [f"rapidbyte-cache-{os.getuid()}"]
