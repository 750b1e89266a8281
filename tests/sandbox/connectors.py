"""Connectors for these tests: one that follows a script (`guests/scripted.zig`), and modules written as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import wasmtime

from rapidbyte_dagster.config.manifest import Manifest, read_manifest
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Connector, Host, Instance, Item, LogLevel, NoData, Sandbox

MEGABYTE = 1024 * 1024

OPEN_SANDBOX = Sandbox(allowed_hosts=("*",), readable_files=frozenset(), max_memory=64 * MEGABYTE, timeout_seconds=30.0)

Step = dict[str, Any]

EXPORTS_OF_A_SOURCE = """
    (memory (export "memory") 2)
    (func (export "rb_abi_version") (result i32) i32.const 1)
    (func (export "rb_alloc") (param i32) (result i32) i32.const 1024)
    (func (export "rb_free") (param i32 i32))
    (func (export "rb_spec") (param i32 i32) (result i64) i64.const 0)
    (func (export "rb_open") (param i32 i32) (result i64) i64.const 0)
    (func (export "rb_check") (param i32 i32) (result i64) i64.const 0)
    (func (export "rb_close") (param i32 i32) (result i64) i64.const 0)
    (func (export "rb_discover") (param i32 i32) (result i64) i64.const 0)
    (func (export "rb_read") (param i32 i32) (result i64) i64.const 0)
"""


def write_manifest(wasm: Path, **overrides: Any) -> Manifest:
    """A manifest beside `wasm` that fits it."""
    content = {
        "name": wasm.stem,
        "version": "0.0.0",
        "role": "source",
        "protocol": 1,
        "description": "",
        "config_schema": {"type": "object"},
        "permissions": {"network": {"allowed_hosts": ["*"]}},
        "limits": {},
        "sha256": hashlib.sha256(wasm.read_bytes()).hexdigest(),
    } | overrides
    path = wasm.with_suffix(".json")
    path.write_text(json.dumps(content))
    return read_manifest(path)


def write_module(folder: Path, text: str, **overrides: Any) -> Manifest:
    """The manifest of a module in WebAssembly's text format, without its outer parentheses."""
    wasm = folder / "written.wasm"
    wasm.write_bytes(bytes(wasmtime.wat2wasm(f"(module {text})")))
    return write_manifest(wasm, **overrides)


@dataclass
class Recorder(NoData):
    """A host that keeps what the guest says and hands out what it is given."""

    items: list[Item] = field(default_factory=list)
    emitted: list[bytes] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    lines: list[tuple[LogLevel, str]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def emit(self, message: bytes | bytearray) -> None:
        self.emitted.append(bytes(message))

    def barrier(self, payload: dict[str, Any]) -> None:
        self.calls.append(("barrier", payload))

    def next(self) -> Item:
        return self.items.pop(0)

    def prepare(self, payload: dict[str, Any]) -> None:
        self.calls.append(("prepare", payload))

    def committed(self, payload: dict[str, Any]) -> None:
        self.calls.append(("committed", payload))

    def drift(self, payload: dict[str, Any]) -> None:
        self.calls.append(("drift", payload))

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        self.calls.append(("emit_dlq_batch", payload))

    def log(self, level: LogLevel, message: str) -> None:
        self.lines.append((level, message))

    def metric(self, name: str, value: float) -> None:
        self.metrics[name] = self.metrics.get(name, 0.0) + value


@dataclass(frozen=True)
class Scripted:
    """The scripted connector."""

    connector: Connector

    def instance(
        self, *, host: Host | None = None, sandbox: Sandbox = OPEN_SANDBOX, stage: Stage = Stage.SOURCE
    ) -> Instance:
        return Instance(self.connector, host=host or NoData(), sandbox=sandbox, stage=stage)

    def run(self, *steps: Step, host: Host | None = None, sandbox: Sandbox = OPEN_SANDBOX) -> Result:
        """Run `steps` in an instance of their own."""
        with self.instance(host=host, sandbox=sandbox) as instance:
            return perform(instance, *steps)


@dataclass(frozen=True)
class Result:
    statuses: list[int]
    shown: list[str]


def perform(instance: Instance, *steps: Step) -> Result:
    result = instance.call("rb_read", {"steps": steps})
    return Result(result["statuses"], result["shown"])


def call(name: str, *args: Any, **options: Any) -> Step:
    """A step that calls the import `name`; dictionaries among `args` become JSON texts unless they are buffers."""
    texts = [json.dumps(arg) if isinstance(arg, dict) and "buffer" not in arg else arg for arg in args]
    return {"call": name, "args": texts, **options}


def buffer(size: int) -> dict[str, int]:
    return {"buffer": size}


def connect(host: str, port: int = 0, timeout_ms: int = 5_000, **options: Any) -> Step:
    return call("tcp_connect", {"host": host, "port": port, "timeout_ms": timeout_ms}, **options)


def sandbox(*, hosts: Sequence[str] = ("*",), files: Sequence[str] = (), **limits: Any) -> Sandbox:
    return replace(OPEN_SANDBOX, allowed_hosts=tuple(hosts), readable_files=frozenset(files), **limits)
