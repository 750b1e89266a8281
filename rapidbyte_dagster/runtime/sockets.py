"""The `tcp_*` host functions: an instance's open connections, behind its sandbox's access list."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from rapidbyte_dagster.errors import Kind, Stage
from rapidbyte_dagster.runtime.dialing import StopSignal, Target
from rapidbyte_dagster.runtime.linking import Keep
from rapidbyte_dagster.runtime.memory import GuestMemory
from rapidbyte_dagster.runtime.network import CONNECT_TIMEOUT_SECONDS, TRANSFER_TIMEOUT_SECONDS, Connection
from rapidbyte_dagster.runtime.sandbox import Sandbox
from rapidbyte_dagster.runtime.status import Refusal, Status
from rapidbyte_dagster.runtime.tls import TlsOptions

MAX_OPEN_SOCKETS: Final = 32
"""Of one instance: a control connection and one per parallel reader, with room to spare."""

_VERIFY: Final = ("none", "ca", "full")
_MAX_TIMEOUT_MS: Final = 24 * 3600 * 1000


class Sockets:
    """The open connections of one instance. The guest's thread uses them; `wake_all` is for any thread."""

    def __init__(self, memory: GuestMemory, sandbox: Sandbox, stage: Stage, stopping: StopSignal, keep: Keep) -> None:
        self._memory = memory
        self._sandbox = sandbox
        self._stage = stage
        self._stopping = stopping
        self._keep = keep
        self._open: dict[int, Connection] = {}
        self._last_handle = 0
        # Reentrant: a signal handler may cancel while its own thread is in here.
        self._lock = threading.RLock()

    def tcp_connect(self, address: int, length: int) -> int:
        arguments = self._memory.json_object(address, length, "tcp_connect")
        target = _target(arguments)
        if not self._sandbox.allows_host(target.host):
            raise self._host_denied(target.host)
        if len(self._open) >= MAX_OPEN_SOCKETS:
            raise Refusal(
                Status.FAILED,
                f"it already has {MAX_OPEN_SOCKETS} connections open, the most that a connector may have",
                kind=Kind.RESOURCE,
            )
        connection = Connection.open(target, self._stopping)
        with self._lock:
            self._last_handle += 1
            self._open[self._last_handle] = connection
        if self._stopping():
            # `wake_all` may have passed before the connection was listed.
            connection.wake()
        return self._last_handle

    def tcp_start_tls(self, handle: int, address: int, length: int) -> int:
        arguments = self._memory.json_object(address, length, "tcp_start_tls")
        options = _tls_options(arguments)
        for path in (options.root_cert, options.cert, options.key):
            if path is not None and path not in self._sandbox.readable_files:
                raise Refusal(
                    Status.DENIED,
                    f"it may not read {path!r}: only files that its config names can be read",
                    kind=Kind.DENIED,
                )
        self._connection(handle).start_tls(options)
        return Status.OK

    def tcp_recv(self, handle: int, address: int, length: int, timeout_ms: int) -> int:
        buffer = self._memory.view(address, length)
        if length == 0:
            raise Refusal(Status.INVALID, "`tcp_recv` into an empty buffer")
        connection = self._open.get(handle) or self._connection(handle)
        count = connection.receive_into(buffer, _transfer_seconds(timeout_ms))
        if count == 0:
            # Not a failure yet; it is the reason if the guest gives up because of it.
            self._keep("tcp_recv", connection.ended())
        return count

    def tcp_send(self, handle: int, address: int, length: int, timeout_ms: int) -> int:
        data = self._memory.view(address, length)
        if length > 0:
            connection = self._open.get(handle) or self._connection(handle)
            connection.send_all(data, _transfer_seconds(timeout_ms))
        return length

    def tcp_close(self, handle: int) -> int:
        connection = self._connection(handle)
        with self._lock:
            del self._open[handle]
        connection.close()
        return Status.OK

    def wake_all(self) -> None:
        """End every connection so that whoever waits on one returns. Any thread; the stop signal is set before."""
        with self._lock:
            for connection in self._open.values():
                connection.wake()

    def close_all(self) -> None:
        with self._lock:
            connections = list(self._open.values())
            self._open.clear()
        for connection in connections:
            connection.close()

    def _connection(self, handle: int) -> Connection:
        connection = self._open.get(handle)
        if connection is None:
            raise Refusal(Status.CLOSED, f"it used connection {handle}, which is not open")
        return connection

    def _host_denied(self, host: str) -> Refusal:
        allowed = self._sandbox.allowed_hosts
        key = f"`{self._sandbox.section or self._stage}.permissions.network.allowed_hosts`"
        detail = f"allowed: {', '.join(allowed)}" if allowed else "no host is allowed"
        return Refusal(
            Status.DENIED,
            f"host {host!r} is not allowed",
            kind=Kind.DENIED,
            detail=detail,
            hint=f"add it to {key} in the pipeline file (the connector's manifest must allow it too)",
        )


def _target(arguments: Mapping[str, Any]) -> Target:
    host, port, timeout_ms = arguments.get("host"), arguments.get("port", 0), arguments.get("timeout_ms", 0)
    if not isinstance(host, str) or not host or "\0" in host:
        raise Refusal(Status.INVALID, "`tcp_connect` takes a `host`")
    if type(port) is not int or not (0 < port <= 65_535 or host.startswith("/")):
        raise Refusal(Status.INVALID, "`tcp_connect` takes a `port` of 1 to 65535")
    if type(timeout_ms) is not int or timeout_ms > _MAX_TIMEOUT_MS:
        raise Refusal(Status.INVALID, f"`tcp_connect` takes a `timeout_ms` of at most {_MAX_TIMEOUT_MS}")
    return Target(host, port, timeout_ms / 1000 if timeout_ms > 0 else CONNECT_TIMEOUT_SECONDS)


def _tls_options(arguments: Mapping[str, Any]) -> TlsOptions:
    verify, server_name = arguments.get("verify"), arguments.get("server_name") or ""
    if verify not in _VERIFY or not isinstance(server_name, str):
        raise Refusal(
            Status.INVALID, f"`tcp_start_tls` takes a `server_name` and `verify`, one of {', '.join(_VERIFY)}"
        )
    if verify == "full" and not server_name:
        raise Refusal(Status.INVALID, "`tcp_start_tls` cannot verify a name that it is not told")
    paths = {name: arguments.get(name) for name in ("root_cert", "cert", "key")}
    if not all(path is None or (isinstance(path, str) and path and "\0" not in path) for path in paths.values()):
        raise Refusal(Status.INVALID, "`tcp_start_tls` takes paths or null as `root_cert`, `cert` and `key`")
    return TlsOptions(server_name, verify, **paths)


def _transfer_seconds(timeout_ms: int) -> float:
    # The parameter is signed and arrives unsigned: what has the top bit set is below zero.
    if 0 < timeout_ms < 2**31:
        return timeout_ms / 1000
    return TRANSFER_TIMEOUT_SECONDS
