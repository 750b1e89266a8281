"""What an instance offers its guest beside sockets and the ambient functions.

The engine implements `Host` once per stage: a source's hands messages to the channel, a destination's takes them
from it. The runtime knows nothing of channels or checkpoints; it only checks the guest's pointers and carries bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from rapidbyte_dagster.runtime.status import Refusal, Status


class LogLevel(IntEnum):
    """The levels of the `log` import, in the ABI's numbers."""

    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3

    @property
    def logging_level(self) -> int:
        """The same level in the numbers of Python's `logging`."""
        return 10 * (self.value + 1)


@dataclass(frozen=True, slots=True)
class Message:
    """One encapsulated Arrow IPC message."""

    data: bytes | bytearray
    rows: int = 0
    """Of a record batch; a schema has none."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """A barrier that is due: UTF-8 JSON `{"sequence": …, "cursor": …, "final": …}`; a transform sees no cursor."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The stream is over, and complete."""


Item = Message | Barrier | End


class StreamAborted(Exception):
    """Another stage failed: the guest sees `ABORTED` and rolls back."""


class Host(Protocol):
    """The engine's side of one instance.

    Every method is called on the thread that runs the guest. A method that blocks must also wait for the engine's
    own stop signal: `Instance.cancel` interrupts computing guests and waiting sockets, but it cannot wake a thread
    that waits inside the host. Raise

    - `StreamAborted` when another stage failed (the guest sees `ABORTED`),
    - `RunCancelled` when the run is being stopped (`CANCELLED`),
    - any other `RapidbyteError` to refuse (`FAILED`, or `TIMEOUT`/`DENIED` by its kind): it is kept and raised by
      `Instance.call` when the guest gives up because of it.
    """

    def emit(self, message: bytes | bytearray) -> None:
        """Take one IPC message of a source or a transform; may block while the channel is full."""

    def barrier(self, payload: dict[str, Any]) -> None:
        """Everything emitted so far can be committed; reading can resume from `payload["cursor"]`. Of a transform: the
        barrier `payload["sequence"]`, which it was given, has everything before it emitted."""

    def next(self) -> Item:
        """Wait for what a destination or a transform has to do next."""
        ...

    def prepare(self, payload: dict[str, Any]) -> None:
        """A destination is about to commit `payload["sequence"]`: make the checkpoint durable first."""

    def committed(self, payload: dict[str, Any]) -> None:
        """A destination has committed `payload["sequence"]`."""

    def drift(self, payload: dict[str, Any]) -> None:
        """A destination found its table and the stream's schema to differ, as `payload["changes"]` tells."""

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        """Rows that the guest set aside because of what is in them, each with its reason: `payload["letters"]`."""

    def room(self, seconds: float) -> bool:
        """Whether `emit` would not have to wait now; waits for that, but no longer than so many seconds."""
        ...

    def settled(self) -> int:
        """The number, from 1, of the last call of `barrier` up to which everything is committed; 0: of none."""
        ...

    def log(self, level: LogLevel, message: str) -> None:
        """A line of the guest's log."""

    def metric(self, name: str, value: float) -> None:
        """Add `value` to the counter `name`."""


class NoData:
    """A host for `rb_spec`, `rb_check` and `rb_discover`: there is no stream, so the batch functions refuse."""

    def emit(self, message: bytes | bytearray) -> None:
        raise _no_stream("emit")

    def barrier(self, payload: dict[str, Any]) -> None:
        raise _no_stream("barrier")

    def next(self) -> Item:
        raise _no_stream("next")

    def prepare(self, payload: dict[str, Any]) -> None:
        raise _no_stream("prepare")

    def committed(self, payload: dict[str, Any]) -> None:
        raise _no_stream("committed")

    def drift(self, payload: dict[str, Any]) -> None:
        raise _no_stream("drift")

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        raise _no_stream("emit_dlq_batch")

    def room(self, seconds: float) -> bool:
        raise _no_stream("room")

    def settled(self) -> int:
        raise _no_stream("settled")

    def log(self, level: LogLevel, message: str) -> None:
        """Dropped: these verbs answer with findings, not with a log."""

    def metric(self, name: str, value: float) -> None:
        """Dropped: nothing moves."""


def _no_stream(function: str) -> Refusal:
    return Refusal(Status.INVALID, f"`{function}` was called outside of a stream's run")
