"""The guest's linear memory as the host sees it: every address and length is checked here and nowhere else.

One view of the whole memory is kept and sliced, which costs a fraction of making a view per call. That is sound
because engines are configured with `memory_may_move = False` (see `compiled.py`): the base never changes and the size
only grows, so an address that was inside stays inside, and one that seems outside is looked at again after a growth.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import wasmtime

from rapidbyte_dagster.runtime import abi
from rapidbyte_dagster.runtime.guest_json import loads
from rapidbyte_dagster.runtime.status import Refusal, Status

_RELEASE_GIL_BYTES = 64 * 1024
"""From this size on a copy lets other threads run; below, taking the lock again costs more than the copy."""

_NOTHING = memoryview(bytearray())


class GuestMemory:
    """Checked access to an instance's memory. Raises `Refusal(INVALID)` for anything outside of it."""

    def __init__(self, store: wasmtime.Store) -> None:
        """A memory without bytes, until `bind`: a start function may call the host before there is one."""
        self._store = store
        self._memory: wasmtime.Memory | None = None
        self._size = 0
        self._base = 0
        self._whole = _NOTHING

    def bind(self, memory: wasmtime.Memory) -> None:
        self._memory = memory
        self._look_again()

    @property
    def size(self) -> int:
        """Bytes of memory right now. It never shrinks, so this is also the most that was ever used."""
        return self._memory.data_len(self._store) if self._memory is not None else 0

    def _look_again(self) -> None:
        size = self.size
        if self._memory is not None and size != self._size:
            self._base = ctypes.addressof(self._memory.data_ptr(self._store).contents)
            self._whole = memoryview((ctypes.c_ubyte * size).from_address(self._base)).cast("B")
            self._size = size

    def view(self, address: int, length: int) -> memoryview:
        """Bytes `address … address + length`, writable, without a copy. Not to be kept beyond the host call."""
        end = address + length
        if end > self._size:
            if length == 0:
                # Where an empty buffer lies means nothing: Zig's empty slices point to the end of the address space.
                return _NOTHING
            self._look_again()
            if end > self._size:
                raise _wild(address, length, self._size)
        return self._whole[address:end]

    def json_object(
        self, address: int, length: int, function: str, *, limit: int = abi.MAX_CONTROL_BYTES
    ) -> dict[str, Any]:
        """The JSON argument of host function `function`: an object in at most `limit` bytes."""
        if length > limit:
            raise Refusal(
                Status.INVALID, f"`{function}` was called with {length} bytes of JSON, over the limit of {limit}"
            )
        try:
            value = loads(bytes(self.view(address, length)))
        except (ValueError, RecursionError) as error:
            raise Refusal(Status.INVALID, f"`{function}` was called with malformed JSON: {error}") from error
        if not isinstance(value, dict):
            raise Refusal(Status.INVALID, f"`{function}` takes a JSON object, not {type(value).__name__}")
        return value

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Copy `data` to `address`."""
        target = self.view(address, len(data))
        if len(data) < _RELEASE_GIL_BYTES:
            target[:] = data
            return
        source = data if isinstance(data, bytes) else (ctypes.c_ubyte * len(data)).from_buffer(data)
        ctypes.memmove(self._base + address, source, len(data))

    def write_u32(self, address: int, value: int) -> None:
        self.view(address, 4)[:] = value.to_bytes(4, "little")

    def gather(self, pieces: int, count: int) -> bytes:
        """The concatenation of `count` pieces, listed at `pieces` as pairs `(ptr: u32, len: u32)`; one copy."""
        if count > abi.MAX_PIECES:
            raise Refusal(Status.INVALID, f"a message of {count} pieces is over the limit of {abi.MAX_PIECES}")
        numbers = struct.unpack(f"<{2 * count}I", self.view(pieces, 8 * count))
        lengths = numbers[1::2]
        total = sum(lengths)
        if total > abi.MAX_MESSAGE_BYTES or total > self.size:
            # The second bound keeps a guest from naming one piece a thousand times over.
            raise Refusal(Status.INVALID, f"a message of {total} bytes is larger than it may be")
        return b"".join(map(self.view, numbers[0::2], lengths))

    def forget(self) -> None:
        """Drop the view: the store, and with it the memory, is about to go."""
        self._memory = None
        self._whole = _NOTHING
        self._size = self._base = 0


def _wild(address: int, length: int, size: int) -> Refusal:
    return Refusal(
        Status.INVALID, f"it handed over {length} bytes at address {address:#x}, outside its memory of {size} bytes"
    )
