"""One connection to a database: TCP or a unix socket, plain or under TLS, with deadlines, and wakeable.

Plain sockets are blocking ones with `SO_RCVTIMEO`/`SO_SNDTIMEO`, because Python's own time-outs would cost a `poll`
before each `recv`; under TLS, where Python reads first and polls later, its time-outs are used. Another thread wakes a
blocked call by shutting the socket down (`Connection.wake`).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
import time
from typing import Final

from rapidbyte_dagster.errors import Kind
from rapidbyte_dagster.runtime.dialing import StopSignal, Target, connect_failed, dial, reason_of, stopped
from rapidbyte_dagster.runtime.status import Refusal, Status
from rapidbyte_dagster.runtime.tls import TlsOptions, tls_context, verification_hint

CONNECT_TIMEOUT_SECONDS: Final = 60.0
"""When the guest names none: also of the TLS handshake, for which it cannot name one."""

TRANSFER_TIMEOUT_SECONDS: Final = 600.0
"""When the guest names none: a server may work for minutes on a query before its first byte."""

KEEPALIVE_IDLE_SECONDS: Final = 30
KEEPALIVE_INTERVAL_SECONDS: Final = 10
KEEPALIVE_PROBES: Final = 6
"""A peer that vanished is noticed after 30 + 6 · 10 seconds of silence."""

UNIX_SEND_BUFFER_BYTES: Final = 1024 * 1024
"""A unix socket's buffer does not tune itself as TCP's does; the kernel lowers this to what it allows."""


class Connection:
    """An open socket. Used by the guest's thread, except `wake`, which any thread may call."""

    def __init__(self, sock: socket.socket, target: Target, stopping: StopSignal) -> None:
        self._socket = sock
        self._target = target
        self._stopping = stopping
        self._receive_seconds = 0.0
        self._send_seconds = 0.0

    @classmethod
    def open(cls, target: Target, stopping: StopSignal) -> Connection:
        """Connect. Raises `Refusal`."""
        sock = dial(target, stopping)
        try:
            _configure(sock, target)
        except OSError as error:  # some systems say so here that the peer is gone already
            sock.close()
            raise connect_failed(target, target.host, error) from error
        return cls(sock, target, stopping)

    def start_tls(self, options: TlsOptions) -> None:
        """Shake hands as a client. Raises `Refusal`; the connection is of no use afterwards."""
        if isinstance(self._socket, ssl.SSLSocket):
            raise Refusal(Status.INVALID, f"the connection to {self._target} is under TLS already")
        context = tls_context(options)
        try:
            # From here on the socket is the TLS object's; `wake` must find whichever is alive.
            self._socket = tls = context.wrap_socket(
                self._socket, server_hostname=options.server_name or None, do_handshake_on_connect=False
            )
            tls.settimeout(CONNECT_TIMEOUT_SECONDS)
            if self._stopping():
                raise stopped()
            tls.do_handshake()
            self._receive_seconds = self._send_seconds = 0.0
        except ssl.SSLCertVerificationError as error:
            raise Refusal(
                Status.FAILED,
                f"TLS verification of {options.server_name!r} failed: {error.verify_message}",
                kind=Kind.TLS,
                hint=verification_hint(options),
            ) from error
        except TimeoutError as error:
            raise self._unless_stopped(
                Refusal(
                    Status.TIMEOUT,
                    f"TLS handshake with {self._target} timed out after {CONNECT_TIMEOUT_SECONDS:g} s",
                    kind=Kind.TRANSIENT_NETWORK,
                )
            ) from error
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise self._unless_stopped(
                Refusal(
                    Status.CLOSED,
                    f"{self._target} closed the connection during the TLS handshake",
                    kind=Kind.TRANSIENT_NETWORK,
                )
            ) from error
        except (OSError, ValueError) as error:  # ValueError: a server name that IDNA cannot encode
            raise self._unless_stopped(
                Refusal(Status.FAILED, f"TLS handshake with {self._target} failed: {reason_of(error)}", kind=Kind.TLS)
            ) from error

    def receive_into(self, buffer: memoryview, seconds: float) -> int:
        """Wait for at least one byte; 0 when the peer closed. Raises `Refusal`."""
        if seconds != self._receive_seconds:
            self._set_timeout(seconds, socket.SO_RCVTIMEO)
            self._receive_seconds = seconds
        try:
            count = self._socket.recv_into(buffer)
        except OSError as error:
            raise self._transfer_failed(error, "receiving from", seconds) from error
        if count == 0 and self._stopping():
            raise stopped()
        return count

    def send_all(self, data: memoryview, seconds: float) -> None:
        """Send every byte before the deadline. Raises `Refusal`."""
        if seconds != self._send_seconds:
            self._set_timeout(seconds, socket.SO_SNDTIMEO)
            self._send_seconds = seconds
        try:
            sent = self._socket.send(data)
            if sent < len(data):
                self._send_rest(data[sent:], time.monotonic() + seconds)
        except OSError as error:
            raise self._transfer_failed(error, "sending to", seconds) from error

    def _send_rest(self, data: memoryview, deadline: float) -> None:
        """A blocking send stops early only for a signal, a time-out, or a TLS record's end."""
        while len(data) > 0:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._set_timeout(remaining, socket.SO_SNDTIMEO)
            self._send_seconds = remaining
            data = data[self._socket.send(data) :]

    def _set_timeout(self, seconds: float, option: int) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            # One time-out for both directions: the other one is set again when it is next needed.
            self._receive_seconds = self._send_seconds = 0.0
            self._socket.settimeout(seconds)
        else:
            self._socket.setsockopt(socket.SOL_SOCKET, option, _timeval(seconds))

    def ended(self) -> Refusal:
        """The reason that a receive of 0 bytes stands for."""
        return Refusal(Status.CLOSED, f"{self._target} closed the connection", kind=Kind.TRANSIENT_NETWORK)

    def wake(self) -> None:
        """Make every blocked and every later call return: the connection is over. Any thread."""
        with contextlib.suppress(OSError):
            # SSLSocket.shutdown would pull its TLS object away under the thread that waits in it.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def _transfer_failed(self, error: OSError, doing: str, seconds: float) -> Refusal:
        # A blocking socket answers "again" when SO_RCVTIMEO or SO_SNDTIMEO passed.
        timed_out = isinstance(error, TimeoutError | BlockingIOError)
        if timed_out and error.errno != errno.ETIMEDOUT:
            refusal = Refusal(
                Status.TIMEOUT, f"{doing} {self._target} timed out after {seconds:g} s", kind=Kind.TRANSIENT_NETWORK
            )
        elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            # With TLS 1.3 a server refuses a client's certificate after the handshake.
            refusal = Refusal(Status.FAILED, f"TLS with {self._target} failed: {reason_of(error)}", kind=Kind.TLS)
        else:
            refusal = Refusal(
                Status.CLOSED,
                f"the connection to {self._target} was lost: {reason_of(error)}",
                kind=Kind.TRANSIENT_NETWORK,
            )
        return self._unless_stopped(refusal)

    def _unless_stopped(self, refusal: Refusal) -> Refusal:
        return stopped() if self._stopping() else refusal


def _configure(sock: socket.socket, target: Target) -> None:
    sock.settimeout(None)
    if target.is_unix:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_SEND_BUFFER_BYTES)
        return
    # TCP's buffers are left alone: setting one would turn off the kernel's tuning, which goes higher.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    options = {
        idle: KEEPALIVE_IDLE_SECONDS,
        getattr(socket, "TCP_KEEPINTVL", None): KEEPALIVE_INTERVAL_SECONDS,
        getattr(socket, "TCP_KEEPCNT", None): KEEPALIVE_PROBES,
    }
    for option, value in options.items():
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _timeval(seconds: float) -> bytes:
    """`struct timeval`. Zero would mean "for ever"."""
    microseconds = max(1, round(seconds * 1_000_000))
    return struct.pack("ll", microseconds // 1_000_000, microseconds % 1_000_000)
