"""Rows that the table refuses where that is hard to tell: large, wide, odd, or for the sake of other rows."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pyarrow as pa
import pytest

from rapidbyte_dagster.runtime import Connector, End, Item
from tests.integration.destination.feed import Destination, barrier, batch_item, column, schema_item
from tests.integration.destination.test_refused_rows import MODES
from tests.postgres_server import Database, MakeDatabase
from tests.quick import few

FULL = pytest.mark.full

ID = column("id", pa.int64(), "bigint")


def key(mode: str) -> list[str] | None:
    return ["id"] if mode == "upsert" else None


@pytest.mark.parametrize("mode", few(MODES))
def test_more_rows_are_told_than_fit_into_memory_at_once(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    destination_db.execute("create table users (id bigint primary key check (id < 0), name text)")
    schema = pa.schema([ID, column("name", pa.string(), "text")])
    text = "x" * 1_000_000

    def items() -> Iterator[Item]:
        yield schema_item(schema)
        for number in range(30):
            ids = pa.array(range(number * 10, number * 10 + 10), pa.int64())
            yield batch_item(pa.record_batch([ids, pa.array([text] * 10)], schema=schema))
        yield barrier()
        yield End()

    written = destination.write(items(), mode, table="users", primary_key=key(mode), on_data_error="dlq")
    assert written.rejected == 300
    assert [letter["record"]["id"] for letter in written.feed.letters] == list(range(300))


@pytest.mark.parametrize("mode", MODES)
def test_texts_in_an_array_are_kept_whatever_they_are(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    """Also an element that no array of the server's can have."""
    schema = pa.schema([ID, column("tags", pa.list_(pa.string()), "text[]")])
    data = pa.table([pa.array([1, 2], pa.int64()), pa.array([["fine"], ["precious", "a\0b"]])], schema=schema)
    written = destination.write(data, mode, table="users", primary_key=key(mode), on_data_error="dlq")
    [letter] = written.feed.letters
    assert "precious" in str(letter["record"]["tags"]) or b"precious".hex() in str(letter["record"]["tags"])


TREE = pa.schema([ID, column("parent", pa.int64(), "bigint"), column("name", pa.string(), "text")])


def make_tree(database: Database) -> None:
    database.execute(
        "create table users (id bigint primary key, parent bigint references users, name text);"
        "create unique index on users (name)"
    )


def tree(rows: list[tuple[int, int | None, str]]) -> pa.Table:
    ids, parents, names = zip(*rows, strict=True)
    return pa.table([pa.array(ids, pa.int64()), pa.array(parents, pa.int64()), pa.array(names)], schema=TREE)


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_child_before_its_parent_is_good_beside_a_row_that_no_query_finds(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    make_tree(destination_db)
    data = tree([(1, 4, "a"), (2, None, "b"), (3, None, "b"), (4, None, "d")])
    written = destination.write(data, mode, primary_key=key(mode), on_data_error="dlq")
    told = {letter["record"]["id"]: letter["category"] for letter in written.feed.letters}
    assert told == {3: "unique"}


@pytest.mark.parametrize("policy", ["fail", "dlq"])
def test_a_child_in_a_batch_before_its_parent_s_is_good(
    destination: Destination, destination_db: Database, policy: str
) -> None:
    """With `fail` one COPY takes both batches."""
    make_tree(destination_db)
    first, second = tree([(1, 4, "a"), (2, None, "b")]), tree([(3, None, "c"), (4, None, "d")])
    items: list[Item] = [
        schema_item(TREE),
        *map(batch_item, first.to_batches()),
        *map(batch_item, second.to_batches()),
        *(barrier(), End()),
    ]
    written = destination.write(items, "append", table="users", on_data_error=policy)
    assert written.feed.letters == []
    assert destination_db.fetch_value("select count(*) from users") == 4


def test_rows_that_point_to_each_other_go_on_behind_a_change_of_columns(
    destination: Destination, destination_db: Database
) -> None:
    make_tree(destination_db)
    wider = TREE.append(column("more", pa.int64(), "bigint"))
    first = tree([(1, 2, "a"), (2, None, "b"), (3, 77, "c")])
    second = tree([(4, 5, "d"), (5, 1, "e"), (6, None, "a")]).append_column(wider.field("more"), pa.array([7, 8, 9]))
    items: list[Item] = [
        *(schema_item(TREE), *map(batch_item, first.to_batches())),
        *(schema_item(wider), *map(batch_item, second.to_batches())),
        *(barrier(), End()),
    ]
    written = destination.write(items, "append", table="users", on_data_error="dlq")
    assert {letter["record"]["id"]: letter["category"] for letter in written.feed.letters} == {
        3: "foreign_key",
        6: "unique",
    }
    assert destination_db.fetch("select id, more from users order by id") == [(1, None), (2, None), (4, 7), (5, 8)]


def test_a_key_that_no_index_takes_is_a_dead_letter_of_a_new_table(
    destination: Destination, destination_db: Database
) -> None:
    schema = pa.schema([column("id", pa.string(), "text")])
    noise = random.Random(0).randbytes(9_000).hex()
    data = pa.table([pa.array(["n", noise])], schema=schema)
    written = destination.write(data, "upsert", primary_key=["id"], on_data_error="dlq")
    assert [letter["category"] for letter in written.feed.letters] == ["oversized"]


@pytest.mark.parametrize("mode", MODES)
def test_an_array_that_the_database_s_encoding_does_not_hold_is_kept(
    make_database: MakeDatabase, dest_postgres: Connector, mode: str
) -> None:
    database = make_database("latin", encoding="LATIN1")
    schema = pa.schema([ID, column("tags", pa.list_(pa.string()), "text[]")])
    data = pa.table([pa.array([1, 2]), pa.array([["\xe4"], ["precious", "\u20ac"]])], schema=schema)
    written = Destination(dest_postgres, database).write(data, mode, primary_key=key(mode), on_data_error="dlq")
    [letter] = written.feed.letters
    assert "precious" in str(letter["record"]["tags"])


@pytest.mark.parametrize("mode", ["append", pytest.param("replace", marks=FULL), pytest.param("upsert", marks=FULL)])
def test_letters_of_many_columns_with_long_names_fit_into_memory(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    """1000 letters at once, each of 600 names and types: NULLs weigh nothing, names do."""
    names = [f"{i:060}" for i in range(600)]
    columns = ", ".join(f'"{name}" text' for name in names)
    destination_db.execute(f"create table users (id bigint primary key check (id < 0), {columns})")
    schema = pa.schema([ID, *(column(name, pa.string(), "text") for name in names)])
    data = pa.table([pa.array(range(1000)), *([pa.nulls(1000, pa.string())] * 600)], schema=schema)
    written = destination.write(data, mode, primary_key=key(mode), on_data_error="dlq")
    assert written.rejected == 1000


@pytest.mark.parametrize("mode", MODES)
def test_a_null_where_the_source_promised_none_is_a_dead_letter_of_a_new_table(
    destination: Destination, destination_db: Database, mode: str
) -> None:
    schema = pa.schema([ID, column("n", pa.int64(), "bigint", nullable=False)])
    data = pa.table([pa.array([1, 2]), pa.array([1, None])], schema=schema)
    written = destination.write(data, mode, primary_key=["id"], on_data_error="dlq")
    assert [letter["category"] for letter in written.feed.letters] == ["not_null"]
