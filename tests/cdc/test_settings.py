"""What servers, databases and roles are set to must not show in what is captured, nor in how it is applied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.cdc.replication import Replication
from tests.postgres_server import Database, unique_name
from tests.roundtrip.builtin_types import EVERY_CASE
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.tables import SHEETS
from tests.roundtrip.test_settings import SHADOWS, TYPES, USERS, setting_statements

pytestmark = pytest.mark.full


@pytest.fixture
def odd(postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[Replication]:
    """A pipeline of the table `items` between two databases in which its role is set to odd things."""
    databases = [Database(postgres, unique_name(name)) for name in ("odd_source", "odd_destination")]
    for side, database in enumerate(databases):
        postgres.create_database(database.name)
        database.execute(f"ALTER DATABASE {database.name} SET synchronous_commit = on", superuser=True)
        database.execute(SHADOWS + TYPES)
        database.execute(setting_statements(database, side), superuser=True)
    source, destination = databases
    slot = unique_name("odd_slot")
    yield Replication(
        tmp_path, source, destination, ["items"], source_config={**source.config, "replication_slot": slot}
    )
    source.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()",
        superuser=True,
    )
    for database in databases:
        postgres.drop_database(database.name)


@pytest.mark.parametrize(
    ("sheet", "found_by"), [("scalars", "key"), ("scalars", "key, softly"), ("flat arrays", "whole row")]
)
def test_every_value_of_every_type_is_captured_and_found_again(odd: Replication, sheet: str, found_by: str) -> None:
    SHEETS[sheet]([*EVERY_CASE, *USERS]).create(odd.source, "items")

    def change(sql: str) -> None:
        odd.source.execute(f"SET search_path = public, pg_catalog; {sql}", superuser=True)
        odd.catch_up()

    if found_by == "key, softly":
        odd.streams = [{"name": "items", "deletes": "soft"}]
    if found_by == "whole row":
        change("ALTER TABLE items DROP CONSTRAINT items_pkey, REPLICA IDENTITY FULL")
    change("CREATE TABLE kept AS TABLE items; DELETE FROM items")
    change("INSERT INTO items TABLE kept")
    change("UPDATE items SET n = -1 - n; DELETE FROM items WHERE n % 2 = 0")
    if found_by == "key, softly":
        odd.destination.execute(
            "DELETE FROM raw.items WHERE _rb_deleted_at IS NOT NULL; ALTER TABLE raw.items DROP _rb_deleted_at",
            superuser=True,
        )
    assert_same(
        Table(odd.source, "public", "items"), Table(odd.destination, "raw", "items"), keyed=found_by != "whole row"
    )
