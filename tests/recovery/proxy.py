"""A TCP proxy that understands enough of PostgreSQL's wire protocol to strike at one exact moment.

    client ── Query, Parse, CopyData ──▶ proxy ──▶ server
    client ◀── CommandComplete, CopyData, ReadyForQuery ── proxy ◀── server

A moment is a statement (before it is forwarded; when the server answered it and the client does not know; when the
client was told), or an amount of COPY data that went by. What a consumer of a replication slot tells of its position
counts as a statement too: `STANDBY STATUS`, which nobody answers. Connections are without TLS.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.postgres_server import Database

HOST = "127.0.0.1"
JOIN_SECONDS = 10.0

When = Literal["arrives", "answered", "relayed"]


@dataclass(frozen=True)
class Moment:
    """When to strike: at the `nth` statement that fits, or once COPY data of so many bytes was forwarded.

    Args:
        statement: a regular expression that is searched in the SQL.
        within: one that an earlier statement of the same transaction must hold.
        when: `arrives`: the statement was sent and is not forwarded. `answered`: the server has done it and the
            client does not hear of it. `relayed`: the client has the answer.
        copied: bytes of COPY data, of all connections, in either direction; `statement` plays no part then.
    """

    statement: str = ""
    when: When = "arrives"
    nth: int = 1
    within: str = ""
    copied: int | None = None


class Proxy:
    """Carries connections to the server of `database`, and calls `strike` once, at `moment`.

    `strike` runs in the thread that carries the data: while it waits, that direction of the connection stands still.
    Afterwards the connection is cut on both sides, or with `cuts=False` goes on as if nothing had been.
    """

    def __init__(self, database: Database) -> None:
        self._target = (str(database.config["host"]), int(database.config["port"]))
        self._lock = threading.Lock()
        self._moment: Moment | None = None
        self._strike: Callable[[], object] = _nothing
        self._cuts = True
        self._matches = 0
        self.copied = 0
        self.connections = 0
        self.striking = threading.Event()
        """The moment has come; `struck`: and `strike` has returned."""
        self.struck = threading.Event()
        self.refuses = False
        """Whether new connections are closed at once."""
        self.seconds_per_row = 0.0
        """What the server's COPY data is slowed down to."""
        self.statements: list[str] = []
        """What clients sent, for messages of tests."""
        self._wires: list[_Wire] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="proxy")
        self._accepting.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(JOIN_SECONDS)
        self.cut()
        for wire in self._wires:
            wire.join()

    def config(self, database: Database, **changes: Any) -> dict[str, Any]:
        """A connector's config that leads through this proxy."""
        return {**database.config, "host": HOST, "port": self.port, "sslmode": "disable", **changes}

    def arm(self, moment: Moment, strike: Callable[[], object] | None = None, *, cuts: bool = True) -> None:
        with self._lock:
            self._moment, self._strike, self._cuts = moment, strike or _nothing, cuts
            self._matches = self.copied = 0
            self.striking.clear()
            self.struck.clear()

    def cut(self) -> None:
        """Cuts every connection that there is."""
        for wire in list(self._wires):
            wire.cut()

    # For the wires

    def finds(self, sql: str, transaction: list[str]) -> Moment | None:
        """The moment, if this statement is its."""
        with self._lock:
            self.statements.append(sql)
            moment = self._moment
            if moment is None or moment.copied is not None or not re.search(moment.statement, sql, re.DOTALL):
                return None
            if moment.within and not any(re.search(moment.within, earlier) for earlier in transaction):
                return None
            self._matches += 1
            if self._matches != moment.nth:
                return None
            self._moment = None
            return moment

    def carried(self, size: int) -> bool:
        """Whether the moment is now, after so many more bytes of COPY data."""
        with self._lock:
            self.copied += size
            moment = self._moment
            if moment is None or moment.copied is None or self.copied < moment.copied:
                return False
            self._moment = None
            return True

    def strike(self) -> None:
        """Raises ConnectionAbortedError where the connection is to end."""
        self.striking.set()
        self._strike()
        self.struck.set()
        if self._cuts:
            raise ConnectionAbortedError("cut by the proxy")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuses:
                    client.close()
                    continue
                self.connections += 1
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                for end in (client, server):
                    # Each statement would wait 40 ms for the acknowledgement of the one before.
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._wires.append(_Wire(self, client, server))


class _Wire:
    """One connection: two threads, one per direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._transaction: list[str] = []
        self._replicates = False
        self._round = _Round()
        # What the server still has to answer: one ReadyForQuery each.
        self._rounds: deque[_Round] = deque()
        self._threads = [
            threading.Thread(target=self._carry, args=(way,), name="wire") for way in (self._forward, self._back)
        ]
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self._client.close()
        self._server.close()

    def _carry(self, way: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            way()
        self.cut()

    def _forward(self) -> None:
        start = _exactly(self._client, 4)
        self._server.sendall(start + _exactly(self._client, struct.unpack("!I", start)[0] - 4))
        for kind, message in _messages(self._client):
            if kind in b"QP":
                self._say(_sql(kind, message))
            elif kind == b"d" and self._replicates and message[5:6] == b"r":
                self._say("STANDBY STATUS")
            if kind in b"QS":
                finished, self._round = self._round, _Round()
                self._rounds.append(finished)
            self._server.sendall(message)
            if kind == b"d" and self._proxy.carried(len(message) - 5):
                self._proxy.strike()

    def _say(self, sql: str) -> None:
        moment = self._proxy.finds(sql, self._transaction)
        self._replicates = self._replicates or sql.startswith("START_REPLICATION")
        if sql.startswith("BEGIN"):
            self._transaction.clear()
        self._transaction.append(sql)
        if moment is None:
            return
        if moment.when == "arrives":
            self._proxy.strike()
        else:
            self._round.strikes = moment.when

    def _back(self) -> None:
        held = bytearray()
        for kind, message in _messages(self._server):
            current = self._rounds[0] if self._rounds else _Round()
            if kind == b"Z" and self._rounds:
                self._rounds.popleft()
            strikes = current.strikes
            if strikes == "answered":
                # The client may act on any part of the answer: it gets none until all is there (or COPY has begun).
                held += message
                if kind not in b"ZGW":
                    continue
                current.strikes = None
                self._proxy.strike()
                message, held = bytes(held), bytearray()
            self._client.sendall(message)
            if kind == b"d" and self._proxy.seconds_per_row:
                time.sleep(self._proxy.seconds_per_row)
            if kind == b"Z" and strikes == "relayed":
                self._proxy.strike()
            if kind == b"d" and self._proxy.carried(len(message) - 5):
                self._proxy.strike()


@dataclass
class _Round:
    """What a client sent up to the message that the server answers with ReadyForQuery."""

    strikes: When | None = field(default=None)


def _messages(end: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Whole messages, with their heads."""
    buffer = bytearray()
    while data := end.recv(262144):
        buffer += data
        at = 0
        while len(buffer) - at >= 5:
            size = 1 + struct.unpack_from("!I", buffer, at + 1)[0]
            if len(buffer) - at < size:
                break
            yield bytes(buffer[at : at + 1]), bytes(buffer[at : at + size])
            at += size
        del buffer[:at]


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = end.recv(size - len(data))
        if not more:
            raise ConnectionAbortedError("the client left")
        data += more
    return data


def _sql(kind: bytes, message: bytes) -> str:
    body = message[5:]
    if kind == b"P":
        body = body[body.index(b"\0") + 1 :]
    return body[: body.index(b"\0")].decode(errors="replace")


def _nothing() -> None:
    pass
