"""A stream whose schema changes between two of its batches: the table evolves in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import SchemaError
from rapidbyte_dagster.runtime import End, Item
from tests.integration.destination.feed import Destination, barrier, batch_item, column, schema_item
from tests.postgres_server import Database

BEFORE = pa.schema(
    [column("id", pa.int64(), "bigint", nullable=False), column("size", pa.int32(), "integer")],
    metadata={"rapidbyte:primary_key": '["id"]'},
)
AFTER = pa.schema(
    [
        column("id", pa.int64(), "bigint", nullable=False),
        column("size", pa.int64(), "bigint"),
        column("address", pa.string(), "inet"),
    ],
    metadata={"rapidbyte:primary_key": '["id"]'},
)
COERCE = {"type_change": "coerce"}
CONTENT = "select id, size, host(address) from users order by id"


def before(*rows: tuple[int, int | None]) -> pa.Table:
    return pa.table({"id": [row[0] for row in rows], "size": [row[1] for row in rows]}, schema=BEFORE)


def after(*rows: tuple[int, int | None, str | None]) -> pa.Table:
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("id", "size", "address"))}
    return pa.table(columns, schema=AFTER)


def items(*parts: pa.Table | Item) -> Iterator[Item]:
    """Tables with the schema message in front of each, and whatever stands between them."""
    for part in parts:
        if isinstance(part, pa.Table):
            yield schema_item(part.schema)
            yield from map(batch_item, part.to_batches())
        else:
            yield part


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("committed_between", [False, True])
def test_a_table_evolves_between_two_batches(
    destination: Destination, destination_db: Database, mode: str, committed_between: bool
) -> None:
    destination.write(before((1, 1)), mode)
    between = [barrier(2, final=False)] if committed_between else []
    parts: list[pa.Table | Item] = [before((2, 2)), *between, after((3, 2**40, "10.0.0.1")), barrier(3), End()]
    written = destination.write(items(*parts), mode, schema_evolution=COERCE)
    assert destination_db.fetch(CONTENT) == [(1, 1, None), (2, 2, None), (3, 2**40, "10.0.0.1")]
    assert [(change["column"], change["action"]) for change in written.feed.changes] == [
        ("size", "widened"),
        ("address", "added"),
    ]
    assert written.result["rows"] == 2
    prepared = [told for name, told in written.feed.said if name == "prepare"]
    assert [told["rows"] for told in prepared] == ([1, 1] if committed_between else [2])
    assert all(told["bytes"] > 0 for told in prepared)


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_new_table_evolves_in_the_transaction_that_made_it(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    destination.write(items(before((1, 1)), after((2, 2, "::1")), barrier(1), End()), mode, schema_evolution=COERCE)
    assert destination_db.fetch(CONTENT) == [(1, 1, None), (2, 2, "::1")]


def test_changes_of_one_transaction_are_told_together(destination: Destination, destination_db: Database) -> None:
    destination.write(before((1, 1)))
    first = pa.schema([*BEFORE, column("note", pa.string(), "text")])
    third = pa.schema([*first, column("more", pa.string(), "inet")])
    fourth = pa.schema([*third, column("most", pa.string(), "inet")])
    rows = {"id": [2], "size": [2], "note": ["n"], "more": ["::1"], "most": ["::2"]}
    tables = [pa.table({name: rows[name] for name in schema.names}, schema=schema) for schema in (first, third, fourth)]
    written = destination.write(items(*tables, barrier(2), End()))
    assert [change["column"] for change in written.feed.changes] == ["note", "more", "most"]
    assert destination_db.fetch("select note, host(more), host(most) from users order by 1 nulls first, 2, 3") == [
        (None, None, None),
        ("n", "::1", "::2"),
        ("n", "::1", None),
        ("n", None, None),
    ]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_change_that_is_refused_undoes_the_rows_before_it(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    destination.write(before((1, 1)), mode)
    with pytest.raises(SchemaError, match="column size is integer in the table and bigint in the stream"):
        destination.write(items(before((2, 2)), after((3, 3, None)), barrier(2), End()), mode)
    assert destination_db.fetch("select id, size from users") == [(1, 1)]


def test_a_replacement_does_not_change_half_way(destination: Destination, destination_db: Database) -> None:
    destination.write(before((1, 1)), "replace")
    with pytest.raises(SchemaError, match=r"changed while public\.users was written"):
        destination.write(items(before((2, 2)), after((3, 3, None)), barrier(2), End()), "replace")
    assert destination_db.fetch("select id, size from users") == [(1, 1)]
