"""Small servers that the tests connect guests to: each serves one connection at a time on a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Talk = Callable[[socket.socket], None]


@contextmanager
def serving(server: socket.socket, talk: Talk) -> Iterator[None]:
    """Accept connections from `server` and `talk` to each; ends with the block."""
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                talk(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


@contextmanager
def tcp_server(talk: Talk, *, host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server at `host`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, 0), family=family)
    with serving(server, talk):
        yield server.getsockname()[1]


@contextmanager
def unix_server(talk: Talk, path: Path) -> Iterator[str]:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()
    with serving(server, talk):
        yield str(path)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65_536):
        connection.sendall(data)


def greet(connection: socket.socket) -> None:
    connection.sendall(b"welcome")


def stay_silent(connection: socket.socket) -> None:
    connection.settimeout(10)
    connection.recv(1)


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
