"""A server that is far away: `python -m benchmarks.delayed SECONDS HOST PORT COMMAND …` runs COMMAND beside a proxy.

COMMAND finds the proxy's port in the environment as `BENCH_PORT`. Whatever one call on a socket brings, up to
`CALL_BYTES`, waits for SECONDS before it goes on, in either direction: a round trip takes twice as long, and a
connection carries so much per call and no more. The proxy is a process of its own, whose CPU counts as nobody's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

PORT_VARIABLE = "BENCH_PORT"

CALL_BYTES = 64 * 1024


def run(seconds: str, host: str, port: str, command: list[str]) -> int:
    serving = [sys.executable, "-m", "benchmarks.delayed", seconds, host, port]
    # It ends when its input does, and so with this process, however that ends.
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        return subprocess.run(command, env={**os.environ, PORT_VARIABLE: proxy.stdout.readline().strip()}).returncode


def serve(seconds: float, target: tuple[str, int]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, seconds, target), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


def _accept(listener: socket.socket, seconds: float, target: tuple[str, int]) -> None:
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(target)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for way in ((client, server), (server, client)):
            threading.Thread(target=_carry, args=(*way, seconds), daemon=True).start()


def _carry(start: socket.socket, end: socket.socket, seconds: float) -> None:
    buffer = memoryview(bytearray(CALL_BYTES))
    with contextlib.suppress(OSError):
        while count := start.recv_into(buffer):
            time.sleep(seconds)
            end.sendall(buffer[:count])
    for side in (start, end):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    delay, server_host, server_port, *words = sys.argv[1:]
    if words:
        sys.exit(run(delay, server_host, server_port, words))
    serve(float(delay), (server_host, int(server_port)))
