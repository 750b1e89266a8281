"""Finding and reaching a server: every address of its name is tried, within one deadline.

Neither a name lookup nor a connection attempt can be woken by shutting a socket down: both wait in slices and look at
the stop signal between them.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rapidbyte_dagster.errors import Kind
from rapidbyte_dagster.runtime.status import Refusal, Status

STOP_SLICE_SECONDS: Final = 0.1
"""How long a wait that cannot be woken goes on before it looks at the stop signal; cancellation is due in 0.5 s."""

StopSignal = Callable[[], bool]
"""Whether the instance is being stopped."""

Address = tuple[socket.AddressFamily, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to: a name or an address and a port, or the path of a unix socket (then `port` is unused)."""

    host: str
    port: int
    timeout_seconds: float

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def dial(target: Target, stopping: StopSignal) -> socket.socket:
    """A connected, non-blocking socket: that of the first address of the name that answers. Raises `Refusal`."""
    deadline = time.monotonic() + target.timeout_seconds
    addresses = _addresses(target, deadline, stopping)
    failure: Refusal | None = None
    for index, (family, address) in enumerate(addresses):
        # An address that does not answer must leave time for the others.
        share = max(0.0, deadline - time.monotonic()) / (len(addresses) - index)
        try:
            return _connect(target, family, address, share, stopping)
        except Refusal as refusal:
            if refusal.status is Status.CANCELLED:
                raise
            failure = failure or refusal
    assert failure is not None, "a name resolves to at least one address"
    raise failure


def _addresses(target: Target, deadline: float, stopping: StopSignal) -> list[Address]:
    if target.is_unix:
        return [(socket.AF_UNIX, target.host)]
    with contextlib.suppress(ValueError):
        family = socket.AF_INET6 if ipaddress.ip_address(target.host).version == 6 else socket.AF_INET
        return [(family, (target.host, target.port))]
    return _resolve(target, deadline, stopping)


def _resolve(target: Target, deadline: float, stopping: StopSignal) -> list[Address]:
    """Look the name up on a thread of its own: nothing interrupts a resolver, so a late answer is left behind."""
    answers: queue.SimpleQueue[list[Address] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            answers.put([(family, address) for family, _, _, _, address in found])
        except (OSError, ValueError) as error:  # ValueError: a name that IDNA cannot encode
            answers.put(error)

    threading.Thread(target=look_up, name=f"resolve {target.host}", daemon=True).start()
    while True:
        remaining = deadline - time.monotonic()
        try:
            answer = answers.get(timeout=max(0.0, min(STOP_SLICE_SECONDS, remaining)))
            break
        except queue.Empty:
            if stopping():
                raise stopped() from None
            if remaining <= 0:
                raise Refusal(
                    Status.TIMEOUT,
                    f"looking up host {target.host!r} timed out after {target.timeout_seconds:g} s",
                    kind=Kind.TRANSIENT_NETWORK,
                ) from None
    if isinstance(answer, Exception):
        raise _lookup_failed(target.host, answer) from answer
    return answer


def _lookup_failed(host: str, error: Exception) -> Refusal:
    passing = isinstance(error, socket.gaierror) and error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM)
    if passing:
        return Refusal(
            Status.FAILED,
            f"host {host!r} could not be looked up: {reason_of(error)}",
            kind=Kind.TRANSIENT_NETWORK,
            hint="check this machine's DNS",
        )
    return Refusal(
        Status.FAILED,
        f"unknown host {host!r}: {reason_of(error)}",
        kind=Kind.NOT_FOUND,
        hint="check its spelling",
    )


def _connect(
    target: Target, family: socket.AddressFamily, address: Any, seconds: float, stopping: StopSignal
) -> socket.socket:
    deadline = time.monotonic() + seconds
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise connect_failed(target, target.host if target.is_unix else address[0], error) from error
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        while code == errno.EAGAIN and target.is_unix and not stopping() and time.monotonic() < deadline:
            # A unix socket whose backlog is full does not queue the caller: ask again.
            time.sleep(STOP_SLICE_SECONDS / 10)
            code = sock.connect_ex(address)
        if code in (errno.EINPROGRESS, errno.EINTR):
            code = _await_connection(sock, deadline, stopping)
        if stopping():
            raise stopped()
        if code != 0:
            raise OSError(code, os.strerror(code))
    except OSError as error:
        sock.close()
        raise connect_failed(target, target.host if target.is_unix else address[0], error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _await_connection(sock: socket.socket, deadline: float, stopping: StopSignal) -> int:
    """The error number of a connection attempt under way; 0 when it succeeded."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while not stopping():
        remaining = deadline - time.monotonic()
        if poll.poll(max(0.0, min(STOP_SLICE_SECONDS, remaining)) * 1000):
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if remaining <= 0:
            return errno.ETIMEDOUT
    return errno.ECANCELED


def connect_failed(target: Target, address: str, error: OSError) -> Refusal:
    """The refusal that a failed attempt to reach `target` at `address` stands for."""
    place = str(target) if address == target.host else f"{target} ({address})"
    if error.errno in (errno.ETIMEDOUT, errno.EAGAIN):
        return Refusal(
            Status.TIMEOUT,
            f"connecting to {place} timed out after {target.timeout_seconds:g} s",
            kind=Kind.TRANSIENT_NETWORK,
            hint="check host and port, and that no firewall stands between",
        )
    if error.errno == errno.ECONNREFUSED:
        return Refusal(
            Status.FAILED,
            f"connection to {place} refused",
            kind=Kind.TRANSIENT_NETWORK,
            hint="check host and port, and that the server is running and accepts connections",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        # A server that restarts removes its socket for a moment.
        return Refusal(
            Status.FAILED,
            f"there is no unix socket at {place}",
            kind=Kind.TRANSIENT_NETWORK,
            hint="check the folder and the port, and that the server is running",
        )
    kind = Kind.TRANSIENT_NETWORK
    if error.errno in (errno.EACCES, errno.EPERM):
        kind = Kind.PERMISSION
    elif error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        kind = Kind.RESOURCE
    elif target.is_unix:
        kind = Kind.CONFIG  # a path that is too long, or not a socket's
    return Refusal(Status.FAILED, f"connecting to {place} failed: {reason_of(error)}", kind=kind)


def stopped() -> Refusal:
    return Refusal(Status.CANCELLED, "the run is being stopped", kind=Kind.CANCELLED)


def reason_of(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or error.strerror or str(error)).replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
