"""Connectors of a few lines, in WebAssembly's text format: what they tell the host is written into their memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wasmtime

from rapidbyte_dagster.runtime.abi import IMPORTS

OK: dict[str, Any] = {"ok": {}}

NOTHING_FOUND: dict[str, Any] = {"ok": {"findings": []}}
"""Of `rb_check`."""

_DATA_START = 4096
_LENGTH = 2048
"""Where `next` writes the length of what comes."""
_TAKEN = 65536
_ARGUMENT = 131072
"""Where the host puts the argument of a verb."""


def write_connector(folder: Path, role: str, text: str) -> str:
    """The path of the connector, for `use`."""
    wasm = folder / f"written-{role}.wasm"
    wasm.write_bytes(bytes(wasmtime.wat2wasm(text)))
    manifest = {
        "name": f"{role}-written",
        "version": "0.0.0",
        "role": role,
        "protocol": 1,
        "config_schema": {"type": "object"},
        "sha256": hashlib.sha256(wasm.read_bytes()).hexdigest(),
    }
    wasm.with_suffix(".json").write_text(json.dumps(manifest))
    return str(wasm)


class Module:
    def __init__(self) -> None:
        self._segments: list[str] = []
        self._end = _DATA_START
        self._gave_up = self.answer({"err": {"kind": "host", "message": "working"}})

    def put(self, content: bytes) -> tuple[int, int]:
        """Address and length of `content`."""
        address = self._end
        self._segments.append(f'(data (i32.const {address}) "{_escaped(content)}")')
        self._end = (address + len(content) + 15) // 16 * 16
        assert self._end < _ARGUMENT
        return address, len(content)

    def answer(self, answer: dict[str, Any]) -> str:
        """The result of a verb."""
        address, length = self.put(json.dumps(answer).encode())
        return f"(i64.const {address << 32 | length})"

    def call(self, function: str, *arguments: int) -> str:
        """Calls an import, and gives up where that fails."""
        pushed = " ".join(f"(i32.const {argument})" for argument in arguments)
        return f"(if (i32.lt_s (call ${function} {pushed}) (i32.const 0)) (then (return {self._gave_up})))"

    def tell(self, function: str, told: Any) -> str:
        """Calls an import that takes JSON."""
        return self.call(function, *self.put(json.dumps(told).encode()))

    def emit(self, message: bytes) -> str:
        address, length = self.put(message)
        pieces, _ = self.put(address.to_bytes(4, "little") + length.to_bytes(4, "little"))
        return self.call("emit", pieces, 1)

    def take(self) -> str:
        """Waits for what comes next, and reads it; the end is nothing to read."""
        read = f"(drop (call $read (i32.const {_TAKEN}) (i32.load (i32.const {_LENGTH}))))"
        return f"{self.call('next', _LENGTH)}{read}"

    def text(self, imports: Sequence[str], functions: str) -> str:
        """The module of these imports and functions."""
        imported = "".join(
            f'(import "rapidbyte" "{name}" (func ${name}'
            f" (param {' '.join(IMPORTS[name][0])}) (result {' '.join(IMPORTS[name][1])})))"
            for name in imports
        )
        return f"""(module {imported}
            (memory (export "memory") 4)
            (func (export "rb_abi_version") (result i32) i32.const 1)
            (func (export "rb_alloc") (param i32) (result i32) i32.const {_ARGUMENT})
            (func (export "rb_free") (param i32 i32))
            {functions}
            {" ".join(self._segments)})"""


def _escaped(content: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in content)
