"""Tables that change: in the middle of their stream, or by others' hands. What is written, and as what."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, SchemaError
from rapidbyte_dagster.runtime import End, Item
from tests.integration.destination.feed import Destination, Written, barrier, batch_item, column, schema_item
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


def test_what_a_table_is_left_with_is_told_once_of_a_transaction_with_two_schemas(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint primary key, size integer, other text)")
    written = destination.write(items(before((1, 1)), after((2, 2, None)), barrier(1), End()), schema_evolution=COERCE)
    assert [(change["column"], change["action"]) for change in written.feed.changes] == [
        ("size", "widened"),
        ("address", "added"),
        ("other", "ignored"),
    ]


# Four bytes that are a number, and text as well.
LEGIBLE = 0x41424344


def outcome(write: Any) -> Written | RapidbyteError:
    try:
        written: Written = write()
    except RapidbyteError as error:
        return error
    return written


def test_rows_are_not_written_as_what_a_column_was_before_the_lock_came(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint, size integer)")
    ended: list[Written | RapidbyteError] = []
    with destination_db.connect() as somebody, destination_db.connect() as watcher:
        somebody.execute("BEGIN")
        somebody.execute("ALTER TABLE users ALTER size TYPE text")
        run = threading.Thread(target=lambda: ended.append(outcome(lambda: destination.write(before((1, LEGIBLE))))))
        run.start()
        deadline = time.monotonic() + 30
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'users'::regclass AND NOT granted"
        while watcher.execute(waiting).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        somebody.execute("COMMIT")
        run.join()
    [error] = ended
    assert isinstance(error, RapidbyteError)
    assert (error.kind, "altered by somebody else" in str(error)) == (Kind.TRANSIENT_DB, True)
    assert destination_db.fetch("select * from users") == []


def test_rows_of_a_later_checkpoint_are_not_written_as_what_a_column_was_before_the_lock_came(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint, size integer)")
    with destination_db.connect() as somebody:

        def altered() -> Iterator[Item]:
            yield from items(before((1, LEGIBLE)), barrier(1, final=False))
            somebody.execute("BEGIN")
            somebody.execute("ALTER TABLE users ALTER size TYPE text")
            committing = threading.Timer(0.5, lambda: somebody.execute("COMMIT"))
            committing.start()
            yield batch_item(before((2, LEGIBLE)).to_batches()[0])
            committing.join()
            yield barrier(2)
            yield End()

        with pytest.raises(DestinationError, match="altered by somebody else") as caught:
            destination.write(altered())
    assert caught.value.kind is Kind.TRANSIENT_DB
    assert destination_db.fetch("select * from users") == [(1, str(LEGIBLE))]


@pytest.mark.parametrize(
    ("statement", "grown"),
    [
        ("ALTER TABLE users ALTER size TYPE text", False),
        ("ALTER TABLE users ALTER size TYPE text", True),
        ("DROP INDEX users_key", True),
    ],
)
def test_an_upsert_into_a_table_that_was_altered_meanwhile_is_tried_again(
    destination: Destination, destination_db: Database, statement: str, grown: bool
) -> None:
    destination_db.execute("create table users (id bigint, size integer); create unique index users_key on users (id)")

    def altered() -> Iterator[Item]:
        yield from items(after((1, 1, None)) if grown else before((1, 1)))
        destination_db.execute(statement)
        yield barrier(1)
        yield End()

    with pytest.raises(DestinationError, match="altered by somebody else") as caught:
        destination.write(altered(), "upsert", schema_evolution=COERCE)
    assert caught.value.kind is Kind.TRANSIENT_DB
    assert destination_db.fetch("select * from users") == []


def test_the_name_of_a_new_column_s_type_may_end_in_a_comment(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute("create table users (id bigint)")
    schema = pa.schema(
        [
            column("id", pa.int64(), "bigint"),
            column("size", pa.int32(), "integer -- of shoes"),
            column("note", pa.string(), "text"),
        ]
    )
    destination.write(pa.table({"id": [1], "size": [42], "note": ["n"]}, schema=schema))
    assert destination_db.fetch("select * from users") == [(1, 42, "n")]


@pytest.mark.parametrize(
    ("of_table", "stream", "of_stream", "value"),
    [
        ("character varying(3)[]", pa.list_(pa.int32()), "integer[]", [12345]),
        ("character(3)[]", pa.list_(pa.int32()), "integer[]", [12345]),
        ("name[]", pa.list_(pa.string()), "jsonb[]", [f'"{"x" * 70}"']),
        ("name", pa.string(), "jsonb", f'"{"x" * 70}"'),
        ('"char"', pa.int32(), "integer", 123),
    ],
)
def test_no_value_is_cut_to_the_length_of_the_type_that_it_is_cast_to(
    destination: Destination,
    destination_db: Database,
    of_table: str,
    stream: pa.DataType,
    of_stream: str,
    value: Any,
) -> None:
    destination_db.execute(f"create table users (id bigint, value {of_table})")
    schema = pa.schema([column("id", pa.int64(), "bigint"), column("value", stream, of_stream)])
    data = pa.table({"id": [1], "value": pa.array([value], stream)}, schema=schema)
    with pytest.raises(DestinationError, match="column value") as caught:
        destination.write(data, schema_evolution=COERCE)
    assert caught.value.kind is Kind.DATA
    destination.write(data, schema_evolution={"type_change": "null"})
    assert destination_db.fetch("select id, value is null from users") == [(1, True)]


def test_an_array_whose_elements_fit_is_cast(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table users (id bigint, value character varying(3)[])")
    schema = pa.schema([column("id", pa.int64(), "bigint"), column("value", pa.list_(pa.int32()), "integer[]")])
    data = pa.table({"id": [1], "value": [[123, None, 4]]}, schema=schema)
    for policy in ("coerce", "null"):
        destination.write(data, schema_evolution={"type_change": policy})
    assert destination_db.fetch("select value from users") == [(["123", None, "4"],)] * 2


def test_rows_that_a_policy_of_rows_hides_keep_a_column_from_getting_not_null(
    destination: Destination, destination_db: Database
) -> None:
    destination_db.execute(
        "create table users (id bigint primary key, size integer); insert into users values (9, null);"
        "alter table users enable row level security, force row level security;"
        "create policy few on users using (id < 5)"
    )
    schema = BEFORE.set(1, BEFORE.field("size").with_nullable(False))
    known = [{"name": name, "nullable": False, "stream_nullable": False} for name in ("id", "size")]
    written = destination.write(pa.table({"id": [1], "size": [1]}, schema=schema), "upsert", known_columns=known)
    assert [(change["column"], change["action"]) for change in written.feed.changes] == [("size", "left")]


@pytest.mark.parametrize(
    ("of_table", "stream", "of_stream", "keys"),
    [
        ("numeric(10,1)", pa.decimal128(6, 2), "numeric(6,2)", [Decimal("1.01"), Decimal("1.02")]),
        ("integer", pa.string(), "character varying(5)", ["1", "01"]),
    ],
)
def test_keys_that_a_cast_makes_equal_are_not_taken_for_the_same(
    destination: Destination,
    destination_db: Database,
    of_table: str,
    stream: pa.DataType,
    of_stream: str,
    keys: list[Any],
) -> None:
    destination_db.execute(f"create table users (id {of_table} primary key, size integer)")
    schema = BEFORE.set(0, column("id", stream, of_stream, nullable=False))
    data = pa.table({"id": pa.array(keys, stream), "size": [1, 2]}, schema=schema)
    with pytest.raises(DestinationError, match="column id") as caught:
        destination.write(data, "upsert", schema_evolution=COERCE)
    assert caught.value.kind is Kind.DATA
    assert destination_db.fetch("select * from users") == []


def test_keys_that_print_the_same_as_another_type_are_cast(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create table users (id integer primary key, size integer)")
    schema = BEFORE.set(0, column("id", pa.string(), "character varying(5)", nullable=False))
    for size in (1, 2):
        data = pa.table({"id": ["1", "-7"], "size": [size, size]}, schema=schema)
        destination.write(data, "upsert", schema_evolution=COERCE)
    assert destination_db.fetch("select * from users order by id") == [(-7, 2), (1, 2)]
