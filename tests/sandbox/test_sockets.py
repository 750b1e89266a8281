"""Sockets of a guest: what is allowed, what arrives, and what an error says."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.runtime.status import Status
from tests.sandbox.connectors import MEGABYTE, Scripted, Step, buffer, call, connect, sandbox
from tests.sandbox.servers import closed_port, echo, greet, reset, stay_silent, tcp_server, unix_server


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose sockets' paths fit into the 104 bytes that systems allow."""
    with tempfile.TemporaryDirectory(prefix="rb") as name:
        yield Path(name)


def failure(scripted: Scripted, *steps: Step, hosts: tuple[str, ...] = ("*",)) -> RapidbyteError:
    """The error of the first strict step that fails."""
    with pytest.raises(RapidbyteError) as caught:
        scripted.run(*steps, sandbox=sandbox(hosts=hosts))
    return caught.value


def test_bytes_go_both_ways_over_tcp(scripted: Scripted) -> None:
    with tcp_server(echo) as port:
        steps = [
            connect("127.0.0.1", port),
            call("tcp_send", 1, "hello", 1_000),
            call("tcp_recv", 1, buffer(100), 1_000, show=True),
            call("tcp_close", 1),
        ]
        result = scripted.run(*steps)
    assert result.statuses == [1, 5, 5, Status.OK]
    assert result.shown == ["hello"]


def test_bytes_go_both_ways_over_a_unix_socket(scripted: Scripted, short_folder: Path) -> None:
    with unix_server(echo, short_folder / ".s.PGSQL.5432") as path:
        steps = [connect(path), call("tcp_send", 1, "hello", 1_000), call("tcp_recv", 1, buffer(9), 1_000, show=True)]
        assert scripted.run(*steps).shown == ["hello"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "::1"])
def test_names_and_version_6_addresses_are_reached(scripted: Scripted, host: str) -> None:
    try:
        with tcp_server(greet, host="::1" if ":" in host else "127.0.0.1") as port:
            steps = [connect(host, port), call("tcp_recv", 1, buffer(9), 1_000, show=True)]
            assert scripted.run(*steps).shown == ["welcome"]
    except OSError:
        pytest.skip("this machine has no IPv6")


def test_a_large_send_arrives_whole(scripted: Scripted) -> None:
    received = bytearray()

    def collect(connection: socket.socket) -> None:
        while data := connection.recv(65_536):
            received.extend(data)
            time.sleep(0.0001)
        connection.close()

    with tcp_server(collect) as port:
        result = scripted.run(connect("127.0.0.1", port), call("tcp_send", 1, buffer(12 * MEGABYTE), 20_000))
        assert result.statuses == [1, 12 * MEGABYTE]
        deadline = time.monotonic() + 20
        while len(received) < 12 * MEGABYTE and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(received) == 12 * MEGABYTE


def test_a_peer_that_closes_gives_zero_bytes(scripted: Scripted) -> None:
    with tcp_server(greet) as port:
        receive = call("tcp_recv", 1, buffer(9), 1_000)
        assert scripted.run(connect("127.0.0.1", port), receive, receive).statuses == [1, 7, 0]


def test_a_guest_that_gives_up_over_zero_bytes_gives_the_reason(scripted: Scripted) -> None:
    give_up = {"answer": '{"err": {"kind": "host", "message": "reading rows"}}'}
    with tcp_server(lambda connection: None) as port:
        error = failure(scripted, connect("127.0.0.1", port), call("tcp_recv", 1, buffer(9), 1_000), give_up)
    assert error.kind is Kind.TRANSIENT_NETWORK
    assert f"reading rows: 127.0.0.1:{port} closed the connection" in str(error)


def test_a_reset_connection_is_closed(scripted: Scripted) -> None:
    with tcp_server(reset) as port:
        steps = [
            connect("127.0.0.1", port),
            call("tcp_send", 1, "x", 1_000),
            call("tcp_recv", 1, buffer(9), 1_000, strict=True),
        ]
        error = failure(scripted, *steps)
    assert error.kind is Kind.TRANSIENT_NETWORK
    assert "calling tcp_recv: the connection to 127.0.0.1" in str(error)
    assert "was lost: Connection reset by peer" in str(error)


def test_a_silent_peer_ends_in_a_timeout(scripted: Scripted) -> None:
    with tcp_server(stay_silent) as port:
        started = time.monotonic()
        receive = call("tcp_recv", 1, buffer(9), 200)
        assert scripted.run(connect("127.0.0.1", port), receive).statuses == [1, Status.TIMEOUT]
        assert 0.2 <= time.monotonic() - started < 1
        error = failure(scripted, connect("127.0.0.1", port), receive | {"strict": True})
    assert error.kind is Kind.TRANSIENT_NETWORK
    assert f"receiving from 127.0.0.1:{port} timed out after 0.2 s" in str(error)


def test_a_peer_that_does_not_read_ends_in_a_timeout(scripted: Scripted) -> None:
    with tcp_server(stay_silent) as port:
        started = time.monotonic()
        send = call("tcp_send", 1, buffer(24 * MEGABYTE), 300)
        # Its first byte is read; what comes after fills the buffers.
        result = scripted.run(connect("127.0.0.1", port), send, sandbox=sandbox(max_memory=256 * MEGABYTE))
        assert result.statuses[1] in (Status.TIMEOUT, Status.CLOSED)
        assert time.monotonic() - started < 2


def test_a_timeout_does_not_end_the_connection(scripted: Scripted) -> None:
    with tcp_server(echo) as port:
        receive = call("tcp_recv", 1, buffer(9), 100)
        steps = [connect("127.0.0.1", port), receive, call("tcp_send", 1, "x", 100), receive]
        assert scripted.run(*steps).statuses == [1, Status.TIMEOUT, 1, 1]


def test_a_refused_connection_says_so(scripted: Scripted) -> None:
    port = closed_port()
    error = failure(scripted, connect("127.0.0.1", port, strict=True))
    assert error.kind is Kind.TRANSIENT_NETWORK
    assert f"connection to 127.0.0.1:{port} refused" in str(error)
    assert "hint: check host and port" in str(error)


def test_an_unknown_host_is_not_tried_again(scripted: Scripted) -> None:
    error = failure(scripted, connect("no-such-host.invalid", 5432, strict=True))
    assert "no-such-host.invalid" in str(error)
    # A machine without any name server answers "try again".
    assert error.kind in (Kind.NOT_FOUND, Kind.TRANSIENT_NETWORK)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(socket.EAI_NONAME, Kind.NOT_FOUND), (socket.EAI_AGAIN, Kind.TRANSIENT_NETWORK)],
)
def test_a_name_server_that_is_down_is_told_from_a_wrong_name(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, code: int, kind: Kind
) -> None:
    def failing(*_arguments: Any, **_options: Any) -> Any:
        raise socket.gaierror(code, "the resolver's words")

    monkeypatch.setattr(socket, "getaddrinfo", failing)
    error = failure(scripted, connect("db.example", 5432, strict=True))
    assert error.kind is kind
    assert "the resolver's words" in str(error)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "x..example", "bad host"])
def test_a_name_that_cannot_be_one_is_an_error_of_its_own(scripted: Scripted, host: str) -> None:
    error = failure(scripted, connect(host, 5432, strict=True))
    assert host in str(error)


def test_a_lookup_has_a_deadline(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_arguments: Any, **_options: Any) -> Any:
        time.sleep(1)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    started = time.monotonic()
    error = failure(scripted, connect("db.example", 5432, timeout_ms=200, strict=True))
    assert time.monotonic() - started < 0.8
    assert "looking up host 'db.example' timed out after 0.2 s" in str(error)


def test_a_connection_attempt_has_a_deadline(scripted: Scripted) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as one, socket.socket() as two:
        port = server.getsockname()[1]
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        time.sleep(0.1)
        started = time.monotonic()
        error = failure(scripted, connect("127.0.0.1", port, timeout_ms=300, strict=True))
    assert time.monotonic() - started < 1
    assert f"connecting to 127.0.0.1:{port} timed out after 0.3 s" in str(error)


def test_every_address_of_a_name_is_tried(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    with tcp_server(greet) as port:
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", closed_port())),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        steps = [connect("db.example", 5432), call("tcp_recv", 1, buffer(9), 1_000, show=True)]
        assert scripted.run(*steps).shown == ["welcome"]


def test_a_missing_unix_socket_says_where_it_looked(scripted: Scripted, short_folder: Path) -> None:
    error = failure(scripted, connect(f"{short_folder}/.s.PGSQL.5432", strict=True))
    assert error.kind is Kind.TRANSIENT_NETWORK
    assert f"there is no unix socket at {short_folder}/.s.PGSQL.5432" in str(error)


def test_a_path_that_is_no_socket_is_a_matter_of_the_config(scripted: Scripted, short_folder: Path) -> None:
    (short_folder / "file").write_text("")
    for path in (str(short_folder / "file"), "/" + "x" * 300):
        error = failure(scripted, connect(path, strict=True))
        assert path in str(error)


def test_a_host_outside_the_list_is_denied_before_anything_is_sent(scripted: Scripted) -> None:
    with tcp_server(greet) as port:
        error = failure(scripted, connect("127.0.0.1", port, strict=True), hosts=("db.internal", "*.aws.internal"))
    assert error.kind is Kind.DENIED
    text = str(error)
    assert "host '127.0.0.1' is not allowed" in text
    assert "allowed: db.internal, *.aws.internal" in text
    assert "`source.permissions.network.allowed_hosts`" in text


def test_an_empty_list_denies_everything(scripted: Scripted, short_folder: Path) -> None:
    with unix_server(greet, short_folder / "s") as path, tcp_server(greet) as port:
        for step in (connect(path), connect("127.0.0.1", port), connect("localhost", port)):
            assert scripted.run(step, sandbox=sandbox(hosts=())).statuses == [Status.DENIED]


def test_a_unix_socket_is_allowed_by_its_path_or_its_folder(scripted: Scripted, short_folder: Path) -> None:
    inner = short_folder / "inner"
    inner.mkdir()
    with unix_server(greet, short_folder / "s") as path, unix_server(greet, inner / "s") as inner_path:
        for hosts, target, status in [
            ([path], path, 1),
            ([str(short_folder)], path, 1),
            ([str(short_folder)], inner_path, Status.DENIED),
            ([str(inner)], f"{inner}/../s", Status.DENIED),
            ([str(inner)], f"{inner}/./s", 1),
            (["localhost", "*.x"], path, Status.DENIED),
        ]:
            assert scripted.run(connect(target), sandbox=sandbox(hosts=hosts)).statuses == [status], (hosts, target)


@pytest.mark.parametrize(
    "target",
    [
        {},
        {"host": "", "port": 1},
        {"host": 5, "port": 1},
        {"host": "x\0y", "port": 1},
        {"host": "x", "port": 0},
        {"host": "x", "port": 65_536},
        {"host": "x", "port": "5432"},
        {"host": "x", "port": True},
        {"host": "x", "port": 1, "timeout_ms": 1e300},
        {"host": "x", "port": 1, "timeout_ms": 10**12},
    ],
)
def test_a_malformed_target_is_invalid(scripted: Scripted, target: dict[str, Any]) -> None:
    assert scripted.run(call("tcp_connect", target)).statuses == [Status.INVALID]


@pytest.mark.parametrize("handle", [0, 2, -1, 2**31 - 1])
def test_a_handle_that_is_not_open_is_closed(scripted: Scripted, handle: int) -> None:
    steps = [
        call("tcp_recv", handle, buffer(1), 100),
        call("tcp_send", handle, "x", 100),
        call("tcp_close", handle),
        call("tcp_start_tls", handle, {"server_name": "x", "verify": "none"}),
    ]
    assert scripted.run(*steps).statuses == [Status.CLOSED] * 4


def test_a_closed_handle_is_not_reused(scripted: Scripted) -> None:
    with tcp_server(echo) as port:
        steps = [connect("127.0.0.1", port), call("tcp_close", 1), connect("127.0.0.1", port), call("tcp_close", 1)]
        assert scripted.run(*steps).statuses == [1, Status.OK, 2, Status.CLOSED]


def test_the_number_of_open_sockets_is_limited(scripted: Scripted) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        step = connect("127.0.0.1", server.getsockname()[1], strict=True)
        assert scripted.run(step | {"repeat": 32}).statuses == [32]
        error = failure(scripted, step | {"repeat": 33})
    assert error.kind is Kind.RESOURCE
    assert "it already has 32 connections open" in str(error)


def test_sockets_are_closed_with_their_instance(scripted: Scripted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        scripted.run(connect("127.0.0.1", server.getsockname()[1]))
        connection, _ = server.accept()
        with connection:
            connection.settimeout(2)
            assert connection.recv(1) == b""
