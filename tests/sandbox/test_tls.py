"""TLS of a guest's connection: what is verified, against which certificates, and what a failure says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.errors import ConfigError, Kind, RapidbyteError
from rapidbyte_dagster.runtime.status import Status
from tests.certificates import Authority, openssl_is_installed
from tests.sandbox.connectors import MEGABYTE, Scripted, Step, buffer, call, connect, perform, sandbox
from tests.sandbox.servers import echo, greet, stay_silent, tcp_server

pytestmark = pytest.mark.skipif(not openssl_is_installed(), reason="there is no `openssl` to make certificates with")


@dataclass(frozen=True)
class Certificates:
    authority: Authority
    other_authority: Authority
    server: tuple[Path, Path]
    client: tuple[Path, Path]

    @property
    def root(self) -> str:
        return str(self.authority.certificate)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority.create(folder, "authority")
    return Certificates(
        authority,
        Authority.create(folder, "other"),
        authority.issue("server", subject_alternative_name="DNS:localhost,IP:127.0.0.1"),
        authority.issue("client"),
    )


@contextmanager
def tls_server(certificates: Certificates, *, talk: Any = greet, **settings: Any) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    if settings.get("client_certificate"):
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.root)
    if "version" in settings:
        # The oldest versions are off in most builds of OpenSSL: the server must be told twice.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = settings["version"]

    def talk_tls(connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secured:
            talk(secured)

    with tcp_server(talk_tls) as port:
        yield port


def start_tls(*, server_name: str = "localhost", verify: str = "full", **paths: str | None) -> Step:
    return call("tcp_start_tls", 1, {"server_name": server_name, "verify": verify} | paths, strict=True)


def receive(**options: Any) -> Step:
    return call("tcp_recv", 1, buffer(100), 2_000, show=True, **options)


def talk(scripted: Scripted, port: int, *steps: Step, files: list[str] | None = None) -> list[str]:
    return scripted.run(connect("127.0.0.1", port), *steps, sandbox=sandbox(files=files or [])).shown


def failure(scripted: Scripted, port: int, *steps: Step, files: list[str] | None = None) -> RapidbyteError:
    with pytest.raises(RapidbyteError) as caught:
        talk(scripted, port, *steps, files=files)
    return caught.value


@pytest.mark.parametrize("verify", ["none", "ca", "full"])
@pytest.mark.parametrize("server_name", ["localhost", "127.0.0.1"])
def test_a_trusted_server_is_talked_to(
    scripted: Scripted, certificates: Certificates, verify: str, server_name: str
) -> None:
    root = certificates.root
    with tls_server(certificates) as port:
        step = start_tls(verify=verify, server_name=server_name, root_cert=root)
        assert talk(scripted, port, step, receive(), files=[root]) == ["welcome"]


def test_bytes_go_both_ways(scripted: Scripted, certificates: Certificates) -> None:
    with tls_server(certificates, talk=echo) as port:
        steps = [start_tls(verify="none"), call("tcp_send", 1, "hello", 1_000), receive()]
        assert talk(scripted, port, *steps) == ["hello"]


def test_tls_starts_once(scripted: Scripted, certificates: Certificates) -> None:
    again = call("tcp_start_tls", 1, {"server_name": "localhost", "verify": "none"})
    with tls_server(certificates) as port:
        steps = [connect("127.0.0.1", port), start_tls(verify="none"), again, receive()]
        assert scripted.run(*steps).statuses == [1, Status.OK, Status.INVALID, 7]


def test_a_large_send_arrives_whole(scripted: Scripted, certificates: Certificates) -> None:
    received: list[int] = []

    def collect(connection: socket.socket) -> None:
        total = 0
        while total < 8 * MEGABYTE and (data := connection.recv(65_536)):
            total += len(data)
        received.append(total)
        connection.sendall(b"done")

    with tls_server(certificates, talk=collect) as port:
        steps = [start_tls(verify="none"), call("tcp_send", 1, buffer(8 * MEGABYTE), 10_000), receive()]
        assert talk(scripted, port, *steps) == ["done"]
    assert received == [8 * MEGABYTE]


def test_a_server_of_an_unknown_authority_is_refused(scripted: Scripted, certificates: Certificates) -> None:
    other = str(certificates.other_authority.certificate)
    with tls_server(certificates) as port:
        for root in (other, None):
            error = failure(scripted, port, start_tls(verify="ca", root_cert=root), files=[other])
            assert error.kind is Kind.TLS
            assert "TLS verification of 'localhost' failed: unable to get local issuer certificate" in str(error)


def test_a_server_of_another_name_is_refused_in_full_only(scripted: Scripted, certificates: Certificates) -> None:
    root = certificates.root
    with tls_server(certificates) as port:
        options = {"server_name": "db.example", "root_cert": root}
        assert talk(scripted, port, start_tls(verify="ca", **options), receive(), files=[root]) == ["welcome"]
        error = failure(scripted, port, start_tls(verify="full", **options), files=[root])
    assert error.kind is Kind.TLS
    assert "Hostname mismatch" in str(error)


def test_a_client_certificate_is_shown(scripted: Scripted, certificates: Certificates) -> None:
    root, (cert, key) = certificates.root, map(str, certificates.client)
    with tls_server(certificates, client_certificate=True) as port:
        step = start_tls(root_cert=root, cert=cert, key=key)
        assert talk(scripted, port, step, receive(), files=[root, cert, key]) == ["welcome"]
        # With TLS 1.3 the server's refusal comes after the handshake.
        error = failure(scripted, port, start_tls(root_cert=root), receive(strict=True), files=[root])
    assert error.kind is Kind.TLS
    assert "certificate required" in str(error)


def test_files_that_the_config_does_not_name_are_not_read(scripted: Scripted, certificates: Certificates) -> None:
    root = certificates.root
    with tls_server(certificates) as port:
        for name in ("root_cert", "cert", "key"):
            error = failure(scripted, port, start_tls(**{name: "/etc/passwd"}), files=[root])
            assert error.kind is Kind.DENIED
            assert "it may not read '/etc/passwd'" in str(error)


def test_a_file_that_is_no_certificate_is_a_matter_of_the_config(
    scripted: Scripted, certificates: Certificates, tmp_path: Path
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("not a certificate")
    missing = str(tmp_path / "missing.pem")
    with tls_server(certificates) as port:
        for path in (str(text), missing):
            error = failure(scripted, port, start_tls(root_cert=path), files=[path])
            assert isinstance(error, ConfigError)
            assert f"TLS file {path!r} cannot be used" in str(error)


def test_an_encrypted_key_does_not_ask_for_its_password(
    scripted: Scripted, certificates: Certificates, tmp_path: Path
) -> None:
    cert, key = certificates.client
    encrypted = tmp_path / "encrypted.key"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(encrypted)]
    subprocess.run(command, check=True, capture_output=True)
    files = [str(cert), str(encrypted)]
    with tls_server(certificates) as port:
        error = failure(scripted, port, start_tls(verify="none", cert=files[0], key=files[1]), files=files)
    assert error.kind is Kind.CONFIG
    assert "encrypted" in str(error)


def test_old_versions_of_tls_are_refused(scripted: Scripted, certificates: Certificates) -> None:
    with (
        pytest.warns(DeprecationWarning, match="TLSv1_1"),
        tls_server(certificates, version=ssl.TLSVersion.TLSv1_1) as port,
    ):
        error = failure(scripted, port, start_tls(verify="none"))
    assert error.kind is Kind.TLS
    assert "version" in str(error)


def test_a_server_without_tls_is_a_tls_error(scripted: Scripted) -> None:
    with tcp_server(greet) as port:
        error = failure(scripted, port, start_tls(verify="none"))
    assert error.kind is Kind.TLS


def test_a_server_that_closes_during_the_handshake_is_a_lost_connection(scripted: Scripted) -> None:
    with tcp_server(lambda connection: None) as port:
        error = failure(scripted, port, start_tls(verify="none"))
    assert error.kind is Kind.TRANSIENT_NETWORK
    assert "during the TLS handshake" in str(error)


def test_a_silent_peer_ends_in_a_timeout_and_the_connection_lives_on(
    scripted: Scripted, certificates: Certificates
) -> None:
    with tls_server(certificates, talk=echo) as port:
        wait = call("tcp_recv", 1, buffer(9), 200)
        steps = [connect("127.0.0.1", port), start_tls(verify="none"), wait, call("tcp_send", 1, "x", 500), wait]
        started = time.monotonic()
        assert scripted.run(*steps).statuses == [1, Status.OK, Status.TIMEOUT, 1, 1]
        assert time.monotonic() - started < 2


def test_a_peer_that_does_not_read_ends_in_a_timeout(scripted: Scripted, certificates: Certificates) -> None:
    def never_read(connection: socket.socket) -> None:
        time.sleep(1.5)

    with tls_server(certificates, talk=never_read) as port:
        send = call("tcp_send", 1, buffer(24 * MEGABYTE), 300)
        steps = [connect("127.0.0.1", port), start_tls(verify="none"), send]
        result = scripted.run(*steps, sandbox=sandbox(max_memory=256 * MEGABYTE))
        assert result.statuses == [1, Status.OK, Status.TIMEOUT]


def test_a_guest_that_waits_under_tls_is_cancelled(scripted: Scripted, certificates: Certificates) -> None:
    with tls_server(certificates, talk=stay_silent) as port, scripted.instance() as instance:
        timer = threading.Timer(0.3, instance.cancel)
        timer.start()
        started = time.monotonic()
        steps = [connect("127.0.0.1", port), start_tls(verify="none"), call("tcp_recv", 1, buffer(9), 0)]
        with pytest.raises(RapidbyteError) as caught:
            perform(instance, *steps)
        assert caught.value.kind is Kind.CANCELLED
        assert time.monotonic() - started < 0.3 + 0.5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"server_name": "x"},
        {"server_name": "x", "verify": "maybe"},
        {"server_name": "", "verify": "full"},
        {"server_name": 5, "verify": "none"},
        {"server_name": "x", "verify": "none", "key": 5},
        {"server_name": "x", "verify": "none", "root_cert": ""},
        {"server_name": "x", "verify": "none", "root_cert": "a\0b"},
    ],
)
def test_malformed_options_are_invalid(scripted: Scripted, options: dict[str, Any]) -> None:
    assert scripted.run(call("tcp_start_tls", 1, options)).statuses == [Status.INVALID]
