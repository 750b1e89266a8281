from __future__ import annotations

import pytest

from rapidbyte_dagster.config.manifest import first_party_manifests
from rapidbyte_dagster.runtime import Connector
from tests.integration.destination.feed import Destination
from tests.postgres_server import Database


@pytest.fixture(scope="session")
def dest_postgres() -> Connector:
    return Connector.load(first_party_manifests()["dest-postgres"])


@pytest.fixture
def destination(dest_postgres: Connector, destination_db: Database) -> Destination:
    """dest-postgres on a fresh database, as the role `etl`."""
    return Destination(dest_postgres, destination_db)
