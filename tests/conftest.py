"""The fixtures that every test may ask for; `tests/postgres_server.py` lists them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hatch_build
from demo.embedded_postgres import EmbeddedPostgres, Installation, ServerFailed
from demo.embedded_postgres.server import HBA
from tests.certificates import Authority, openssl_is_installed
from tests.mortal_server import make_mortal
from tests.postgres_server import Database, MakeDatabase, TlsServer, unique_name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="whole matrices instead of their quick selections")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `--full` the tests marked `full` are left out."""
    if config.getoption("full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("full") is None]


def pytest_sessionstart() -> None:
    """What is tested is what stands in the sources."""
    message = hatch_build.stale_message(Path(hatch_build.__file__).parent)
    if message is not None:
        pytest.exit(message, returncode=2)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The session's server. Tests share it: what they create beside databases needs a `unique_name`."""
    with EmbeddedPostgres(durable=False) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, which it may crash, stop and start."""
    with EmbeddedPostgres(durable=False) as server:
        yield server


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """As `own_postgres`; what it has acknowledged outlives it."""
    with make_mortal(tmp_path / "postgres") as server:
        yield server


@pytest.fixture
def make_database(postgres: EmbeddedPostgres) -> Iterator[MakeDatabase]:
    """Makes databases that are dropped after the test."""
    made: list[str] = []

    def make(prefix: str, *, encoding: str | None = None) -> Database:
        name = unique_name(prefix)
        postgres.create_database(name, encoding=encoding)
        made.append(name)
        return Database(postgres, name)

    yield make
    for name in made:
        postgres.drop_database(name)


@pytest.fixture
def source_db(make_database: MakeDatabase) -> Database:
    return make_database("source")


@pytest.fixture
def destination_db(make_database: MakeDatabase) -> Database:
    return make_database("destination")


@pytest.fixture(scope="session")
def tls_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """A server that speaks TLS: the system's, because the one from pip was built without OpenSSL."""
    installation = Installation.from_system()
    if installation is None:
        pytest.skip("no PostgreSQL with TLS on this system: apt-get install postgresql")
    if not openssl_is_installed():
        pytest.skip("no openssl program to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    root, other = Authority.create(folder, "root"), Authority.create(folder, "other-root")
    certificate, key = root.issue("localhost", subject_alternative_name="DNS:localhost,IP:127.0.0.1")
    client_certificate, client_key = root.issue("etl")
    cert_certificate, cert_key = root.issue("etl_cert")
    server = EmbeddedPostgres(
        durable=False,
        installation=installation,
        hba="hostssl all etl_cert 127.0.0.1/32 cert\nhostnossl all tls_only 127.0.0.1/32 reject\n" + HBA,
        settings={"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "root.crt"},
        files={"server.crt": certificate, "server.key": key, "root.crt": root.certificate},
    )
    try:
        server.start()
    except ServerFailed as failure:
        if "SSL is not supported" in str(failure):
            pytest.skip("the system's PostgreSQL was built without TLS")
        raise
    with server:
        server.create_role("etl_cert", password="unused")
        server.create_role("tls_only", password="tls-only-secret")
        yield TlsServer(
            server=server,
            root_certificate=root.certificate,
            other_root_certificate=other.certificate,
            client_certificate=client_certificate,
            client_key=client_key,
            cert_certificate=cert_certificate,
            cert_key=cert_key,
        )
