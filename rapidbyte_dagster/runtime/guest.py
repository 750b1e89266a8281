"""What wasmtime holds of a running connector: its store, memory and exports, and the host functions bound to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import wasmtime

from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import abi
from rapidbyte_dagster.runtime.ambient import Ambient
from rapidbyte_dagster.runtime.batches import Batches
from rapidbyte_dagster.runtime.compiled import CompiledModule
from rapidbyte_dagster.runtime.dialing import StopSignal
from rapidbyte_dagster.runtime.host import Host
from rapidbyte_dagster.runtime.linking import Keep, link
from rapidbyte_dagster.runtime.memory import GuestMemory
from rapidbyte_dagster.runtime.outcome import Malformed
from rapidbyte_dagster.runtime.sandbox import Sandbox
from rapidbyte_dagster.runtime.sockets import Sockets
from rapidbyte_dagster.runtime.spools import Spools
from rapidbyte_dagster.runtime.status import Refusal

MAX_TABLE_ELEMENTS: Final = 1_000_000
"""Function table entries of one instance (8 bytes each); connectors have a few hundred."""

MAX_TABLES: Final = 8

_U32: Final = 0xFFFFFFFF


class NoMemory(Exception):
    """`rb_alloc` gave none: a finding, turned into an error where the limits are known."""


class Guest:
    """One instantiated module. Everything but `sockets.wake_all` belongs to the thread that calls it."""

    def __init__(
        self, engine: wasmtime.Engine, sandbox: Sandbox, *, host: Host, stage: Stage, stopping: StopSignal, keep: Keep
    ) -> None:
        """Make the store. From here on, one step of the engine's epoch interrupts whatever runs in it."""
        self._engine = engine
        self._store = wasmtime.Store(engine)
        self._store.set_limits(
            memory_size=sandbox.max_memory,
            table_elements=MAX_TABLE_ELEMENTS,
            instances=1,
            tables=MAX_TABLES,
            memories=1,
        )
        self._store.set_epoch_deadline(1)
        self.memory = GuestMemory(self._store)
        self.sockets = Sockets(self.memory, sandbox, stage, stopping, keep)
        self._spools = Spools(self.memory, stage)
        batches = Batches(self.memory, host)
        ambient = Ambient(self.memory, host, stopping)
        functions = {
            name: getattr(group, name)
            for group in (batches, self.sockets, self._spools, ambient)
            for name in abi.IMPORTS
            if hasattr(group, name)
        }
        self._linker, self._callbacks = link(engine, functions, keep)
        self._module: wasmtime.Module | None = None
        self._exports: Mapping[str, object] | None = None

    def instantiate(self, compiled: CompiledModule) -> None:
        """Link and start the module. Raises `wasmtime.Trap` or `wasmtime.WasmtimeError`."""
        self._module = compiled.load(self._engine)
        self._exports = self._linker.instantiate(self._store, self._module).exports(self._store)
        memory = self._exports["memory"]
        assert isinstance(memory, wasmtime.Memory), "Connector.load verified the exports"
        self.memory.bind(memory)

    def abi_version(self) -> object:
        return self._function("rb_abi_version")()

    def run_verb(self, verb: str, argument: bytes) -> bytes:
        """Call `verb` with JSON and copy its JSON result out. Raises `Malformed`, `NoMemory`, `wasmtime.Trap`."""
        free = self._function("rb_free")
        address = self._function("rb_alloc")(len(argument)) & _U32
        if address == 0:
            raise NoMemory(f"it found no {len(argument)} bytes for the argument of {verb}")
        self._write(address, argument)
        packed = self._function(verb)(address, len(argument))
        result, length = packed >> 32 & _U32, packed & _U32
        text = self._result(result, length)
        free(address, len(argument))
        free(result, length)
        return text

    def close(self) -> None:
        """Give everything back at once: wasmtime's tables hold the callbacks, so no garbage collector would."""
        self.memory.forget()
        self.sockets.close_all()
        self._spools.close()
        self._exports = None
        self._store.close()
        self._linker.close()
        if self._module is not None:
            self._module.close()
        self._callbacks.clear()

    def _function(self, name: str) -> Callable[..., Any]:
        assert self._exports is not None, "instantiated"
        function = self._exports[name]
        assert isinstance(function, wasmtime.Func), "Connector.load verified the exports"
        return lambda *arguments: function(self._store, *arguments)

    def _write(self, address: int, data: bytes) -> None:
        try:
            self.memory.write(address, data)
        except Refusal as refusal:
            raise Malformed(f"cannot be asked for: `rb_alloc` answered nonsense, {refusal}") from refusal

    def _result(self, address: int, length: int) -> bytes:
        if length > abi.MAX_RESULT_BYTES:
            raise Malformed(f"has {length} bytes; the limit is {abi.MAX_RESULT_BYTES}")
        try:
            return bytes(self.memory.view(address, length))
        except Refusal as refusal:
            raise Malformed(f"lies outside its memory: {length} bytes at {address:#x}") from refusal
