"""Source connectors of a few lines, for what a real one does on a bad day only: WebAssembly in its text format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import wasmtime

SCHEMA = pa.schema([pa.field("id", pa.int32())])
FINAL: dict[str, Any] = {"cursor": None, "final": True}
OK: dict[str, Any] = {"ok": {}}

_SPIN = "(loop $spin (br $spin))"
_DATA_START = 4096


def a_batch(*ids: int) -> bytes:
    batch = pa.RecordBatch.from_arrays([pa.array(ids, pa.int32())], schema=SCHEMA)
    return bytes(batch.serialize().to_pybytes())


def a_schema() -> bytes:
    return bytes(SCHEMA.serialize().to_pybytes())


@dataclass
class WrittenSource:
    """`rb_read` emits `messages`, marks `barriers`, computes for a while (or for ever) and answers `answer`."""

    messages: Sequence[bytes] = ()
    barriers: Sequence[dict[str, Any]] = ()
    answer: dict[str, Any] = field(default_factory=lambda: OK)
    spins_before_answer: int = 0
    never_answers: bool = False
    never_closes: bool = False

    def write(self, folder: Path) -> str:
        """The path of the connector, for `use`."""
        wasm = folder / "written.wasm"
        wasm.write_bytes(bytes(wasmtime.wat2wasm(_Module().text(self))))
        manifest = {
            "name": "source-written",
            "version": "0.0.0",
            "role": "source",
            "protocol": 1,
            "config_schema": {"type": "object"},
            "sha256": hashlib.sha256(wasm.read_bytes()).hexdigest(),
        }
        wasm.with_suffix(".json").write_text(json.dumps(manifest))
        return str(wasm)


class _Module:
    def __init__(self) -> None:
        self._segments: list[str] = []
        self._end = _DATA_START

    def _put(self, content: bytes) -> tuple[int, int]:
        address = self._end
        self._segments.append(f'(data (i32.const {address}) "{_escaped(content)}")')
        self._end = (address + len(content) + 15) // 16 * 16
        return address, len(content)

    def _answer(self, answer: dict[str, Any]) -> str:
        address, length = self._put(json.dumps(answer).encode())
        return f"(i64.const {address << 32 | length})"

    def _call(self, function: str, *arguments: int) -> str:
        pushed = " ".join(f"(i32.const {argument})" for argument in arguments)
        return f"(if (i32.lt_s (call ${function} {pushed}) (i32.const 0)) (then (return {self._gave_up})))"

    def text(self, source: WrittenSource) -> str:
        self._gave_up = self._answer({"err": {"kind": "host", "message": "reading"}})
        ok = self._answer(OK)
        steps: list[str] = []
        for message in source.messages:
            address, length = self._put(message)
            pieces, _ = self._put(address.to_bytes(4, "little") + length.to_bytes(4, "little"))
            steps.append(self._call("emit", pieces, 1))
        for barrier in source.barriers:
            steps.append(self._call("barrier", *self._put(json.dumps(barrier).encode())))
        if source.never_answers:
            steps.append(_SPIN)
        if source.spins_before_answer:
            steps.append(
                f"(local.set $n (i64.const {source.spins_before_answer})) (loop $wait"
                " (local.set $n (i64.sub (local.get $n) (i64.const 1)))"
                " (br_if $wait (i64.ne (local.get $n) (i64.const 0))))"
            )
        steps.append(self._answer(source.answer))
        close = _SPIN if source.never_closes else ""
        verbs = "".join(f'(func (export "{name}") (param i32 i32) (result i64) {ok})' for name in _VERBS)
        return f"""(module
            (import "rapidbyte" "emit" (func $emit (param i32 i32) (result i32)))
            (import "rapidbyte" "barrier" (func $barrier (param i32 i32) (result i32)))
            (memory (export "memory") 4)
            (func (export "rb_abi_version") (result i32) i32.const 1)
            (func (export "rb_alloc") (param i32) (result i32) i32.const 131072)
            (func (export "rb_free") (param i32 i32))
            {verbs}
            (func (export "rb_close") (param i32 i32) (result i64) {close} {ok})
            (func (export "rb_read") (param i32 i32) (result i64) (local $n i64) {" ".join(steps)})
            {" ".join(self._segments)})"""


_VERBS = ("rb_spec", "rb_open", "rb_check", "rb_discover")


def _escaped(content: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in content)
