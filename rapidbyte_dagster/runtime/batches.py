"""The host functions of the data stream: `emit`, `barrier`, `next`, `read`, `prepare`, `committed`, `drift`,
`emit_dlq_batch`, `room`, `settled`."""

from __future__ import annotations

from typing import Final

from rapidbyte_dagster.runtime import abi
from rapidbyte_dagster.runtime.host import Barrier, End, Host, Message
from rapidbyte_dagster.runtime.memory import GuestMemory
from rapidbyte_dagster.runtime.status import Refusal, Status

NEXT_MESSAGE: Final = 1
NEXT_BARRIER: Final = 2
NEXT_END: Final = 3

MAX_ROOM_MS: Final = 60_000
"""`room` waits no longer than this, whatever it is asked for."""


class Batches:
    """Carries messages and barriers between the guest's memory and the host."""

    def __init__(self, memory: GuestMemory, host: Host) -> None:
        self._memory = memory
        self._host = host
        self._pending: bytes | bytearray | None = None
        """What `next` announced and `read` did not take yet."""
        self._ended = False

    def emit(self, pieces: int, count: int) -> int:
        self._host.emit(self._memory.gather(pieces, count))
        return Status.OK

    def barrier(self, address: int, length: int) -> int:
        self._host.barrier(self._memory.json_object(address, length, "barrier"))
        return Status.OK

    def next(self, out: int) -> int:
        # Before the host is asked: an item that cannot be announced would be lost.
        self._memory.view(out, 4)
        if self._pending is not None:
            raise Refusal(Status.INVALID, "`next` was called before `read` had taken what is pending")
        if self._ended:
            return NEXT_END
        item = self._host.next()
        match item:
            case Message(data):
                kind = NEXT_MESSAGE
            case Barrier(data):
                kind = NEXT_BARRIER
            case End():
                self._ended = True
                self._memory.write_u32(out, 0)
                return NEXT_END
        self._memory.write_u32(out, len(data))
        self._pending = data
        return kind

    def read(self, address: int, length: int) -> int:
        data = self._pending
        if data is None:
            raise Refusal(Status.INVALID, "`read` was called while nothing is pending")
        if length != len(data):
            raise Refusal(Status.INVALID, f"`read` was called for {length} bytes while {len(data)} are pending")
        self._memory.write(address, data)
        self._pending = None
        return Status.OK

    def prepare(self, address: int, length: int) -> int:
        self._host.prepare(self._memory.json_object(address, length, "prepare"))
        return Status.OK

    def committed(self, address: int, length: int) -> int:
        self._host.committed(self._memory.json_object(address, length, "committed"))
        return Status.OK

    def drift(self, address: int, length: int) -> int:
        self._host.drift(self._memory.json_object(address, length, "drift"))
        return Status.OK

    def emit_dlq_batch(self, address: int, length: int) -> int:
        letters = self._memory.json_object(address, length, "emit_dlq_batch", limit=abi.MAX_LETTERS_BYTES)
        self._host.emit_dlq_batch(letters)
        return Status.OK

    def room(self, timeout_ms: int) -> int:
        return int(self._host.room(min(timeout_ms, MAX_ROOM_MS) / 1000))

    def settled(self) -> int:
        return self._host.settled()
