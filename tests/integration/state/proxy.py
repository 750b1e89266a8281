"""A proxy before a server that loses what the server says, or stops saying anything."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Proxy:
    """`lose_commits`: so many answers to a COMMIT get lost, with their connection. `silent`: nothing gets through."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._target = (str(parts["host"]), int(str(parts["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, port=self._listener.getsockname()[1], sslmode="disable", gssencmode="disable")
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self.lose_commits = 0
        self.lost = 0
        self.silent = False
        self._threads[0].start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            _end(each)
        for thread in self._threads:
            thread.join(10)
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                deaf = threading.Event()
                for body in (self._ask, self._answer):
                    self._threads.append(threading.Thread(target=body, args=(client, server, deaf)))
                    self._threads[-1].start()

    def _ask(self, client: socket.socket, server: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.silent:
                    continue
                if b"COMMIT" in data and self.lost < self.lose_commits:
                    self.lost += 1
                    deaf.set()
                server.sendall(data)
        _end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            # An answer to a lost COMMIT says that it happened, to nobody.
            while (data := server.recv(65536)) and not deaf.is_set():
                client.sendall(data)
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(dsn: str) -> Iterator[Proxy]:
    proxy = Proxy(dsn)
    try:
        yield proxy
    finally:
        proxy.close()
