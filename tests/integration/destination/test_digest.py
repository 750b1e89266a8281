"""What is in a table, in few digits: the same where the source's connector finds the same."""

from __future__ import annotations

from typing import Any

import pytest

from rapidbyte_dagster.config.manifest import first_party_manifests
from rapidbyte_dagster.errors import RapidbyteError, Stage
from rapidbyte_dagster.runtime import Connector, Instance, NoData, Sandbox
from tests.integration.destination.changes import described
from tests.integration.destination.feed import MEMORY_BYTES, PIPELINE, Destination
from tests.postgres_server import Database

TABLE = """
    create table things (id bigint primary key, name text, n numeric, f float8, at timestamptz, tags text[], doc jsonb,
                         raw bytea, span interval, place point)
"""
ROWS = r"""
    insert into things values
    (1, 'a''b', 1.0, 0.1, '2020-01-01 00:00:00+00', '{a,"b c",null}', '{"a": [1, null]}', '\x00ff', '1 day', '(1,2)'),
    (2, 'N', 1.00, '-0', 'infinity', '{}', 'null', '', '-1 mon', null),
    (3, null, null, null, null, null, null, null, null, null)
"""


def digest(destination: Destination, **stream: Any) -> dict[str, Any]:
    columns = stream.pop("columns", None)
    with destination.instance(NoData()) as instance:
        instance.call("rb_open", destination.open_argument(None))
        told: dict[str, Any] = instance.call(
            "rb_digest", {"stream": described({"name": "things", **stream}), "columns": columns, "snapshot": None}
        )
        return told


def of_source(database: Database) -> dict[str, Any]:
    connector = Connector.load(first_party_manifests()["source-postgres"])
    sandbox = Sandbox(allowed_hosts=("*",), readable_files=frozenset(), max_memory=MEMORY_BYTES, timeout_seconds=None)
    stream = {"name": "things", "schema": "public", "sync_mode": "cdc", "columns": None, "filter": None}
    stream |= {"cursor_field": None, "tie_breaker_field": None, "cursor_lag": None, "write_mode": "upsert"}
    stream |= {"primary_key": None, "shards": None, "partition_key": None, "on_data_error": "fail"}
    with Instance(connector, host=NoData(), sandbox=sandbox, stage=Stage.SOURCE) as instance:
        instance.call(
            "rb_open",
            {"config": database.config, "pipeline": PIPELINE, "stream": None, "run_id": None, "shard": None},
        )
        told: dict[str, Any] = instance.call("rb_digest", {"stream": stream, "columns": None, "snapshot": None})
        return told


def test_both_sides_find_the_same_in_equal_tables(
    destination: Destination, destination_db: Database, source_db: Database
) -> None:
    for database in (destination_db, source_db):
        database.execute(TABLE)
        database.execute(ROWS)
    destination_db.execute("update things set id = id")
    found = digest(destination)
    assert found["rows"] == 3
    assert found == of_source(source_db)
    for change in ("set n = 1 where id = 1", "set name = 'n' where id = 2", "set f = 0 where id = 2"):
        destination_db.execute(f"update things {change}")
        changed = digest(destination)
        assert changed["hash"] != found["hash"]
        found = changed


def test_rows_that_were_deleted_and_are_kept_do_not_count(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table things (id bigint primary key, _rb_deleted_at timestamptz)")
    destination_db.execute("insert into things values (1, null), (2, now())")
    found = digest(destination, deletes="soft")
    assert (found["rows"], found["columns"]) == (1, ["id"])
    destination_db.execute("delete from things where id = 2")
    assert digest(destination, deletes="soft") == found


def test_what_cannot_be_compared_is_refused(destination: Destination, destination_db: Database) -> None:
    with pytest.raises(RapidbyteError, match=r"public\.things is not there"):
        digest(destination)
    destination_db.execute("create table things (id bigint)")
    with pytest.raises(RapidbyteError, match=r"public\.things has no column email"):
        digest(destination, columns=["email"])
    with pytest.raises(RapidbyteError, match="is a history"):
        digest(destination, write_mode="append")
