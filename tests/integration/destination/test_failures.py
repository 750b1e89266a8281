"""What goes wrong while a stream is written: one clear error, and the destination as it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, RunCancelled, SchemaError
from rapidbyte_dagster.runtime import Connector, End, Instance, Item, StreamAborted
from tests.integration.destination.feed import Destination, Feed, barrier, batch_item, column, committed, schema_item
from tests.postgres_server import Database, unique_name

NOTES = pa.schema([column("id", pa.int64(), "bigint"), column("body", pa.string(), "text")])


def notes(*rows: tuple[int, str | None]) -> pa.Table:
    return pa.table({"id": [row[0] for row in rows], "body": [row[1] for row in rows]}, schema=NOTES)


def many(count: int) -> pa.Table:
    return notes(*((i, f"note {i} " + "x" * 100) for i in range(count)))


def content(database: Database) -> list[tuple[Any, ...]]:
    return database.fetch("select id, body from notes order by id")


@pytest.fixture
def written(destination: Destination) -> Destination:
    """With a table `notes` of one row."""
    destination.write(notes((1, "one")), "replace", table="notes")
    return destination


def sessions(database: Database) -> int:
    """Sessions of streams, idle ones too."""
    count = database.fetch_value(
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and application_name like 'rapidbyte/%'"
    )
    assert isinstance(count, int)
    return count


def untouched(database: Database, destination: Destination) -> bool:
    """Whether all is as after `written`: the row, the watermark, nothing beside, no session."""
    deadline = time.monotonic() + 10
    while sessions(database) and time.monotonic() < deadline:
        time.sleep(0.05)
    leftovers = database.fetch_value("select count(*) from pg_class where relname like '\\_rapidbyte\\_new%'")
    watermark = destination.watermark("notes")
    return content(database) == [(1, "one")] and watermark == committed(1) and leftovers == 0


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_an_aborted_stream_leaves_no_trace(written: Destination, destination_db: Database, mode: str) -> None:
    def items() -> Iterator[Item]:
        yield schema_item(NOTES)
        for batch in many(50_000).to_batches():
            yield batch_item(batch)
        raise StreamAborted

    with pytest.raises(StreamAborted):
        written.write(items(), mode, table="notes")
    assert untouched(destination_db, written)


def test_an_aborted_stream_has_rolled_back_when_the_verb_returns(
    written: Destination, destination_db: Database
) -> None:
    def items() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield batch_item(notes((2, "two")).to_batches()[0])
        raise StreamAborted

    feed = Feed(items())
    with written.instance(feed) as instance:
        instance.call("rb_open", written.open_argument("notes"))
        with pytest.raises(StreamAborted):
            instance.call("rb_write", {"stream": {"name": "notes", "table": "notes", "write_mode": "append"}})
        states = destination_db.fetch(
            "select state from pg_stat_activity where application_name = 'rapidbyte/shop/notes'"
        )
        assert states == [("idle",)]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_cancelled_run_leaves_no_trace(written: Destination, destination_db: Database, mode: str) -> None:
    running: list[Instance] = []

    def items() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield batch_item(many(5_000).to_batches()[0])
        running[0].cancel()
        yield batch_item(many(5_000).to_batches()[0])
        yield barrier(2)
        yield End()

    with written.instance(Feed(items())) as instance:
        running.append(instance)
        instance.call("rb_open", written.open_argument("notes"))
        stream = {"name": "notes", "table": "notes", "write_mode": mode}
        with pytest.raises(RunCancelled):
            instance.call("rb_write", {"stream": stream})
    assert untouched(destination_db, written)


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_terminated_session_is_told_by_the_server_s_own_words(
    written: Destination, destination_db: Database, mode: str
) -> None:
    def items() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield batch_item(many(5_000).to_batches()[0])
        destination_db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rapidbyte/shop/notes'"
        )
        while sessions(destination_db):
            time.sleep(0.01)
        for _ in range(20):
            yield batch_item(many(20_000).to_batches()[0])
        yield barrier(2)
        yield End()

    with pytest.raises(DestinationError, match="terminating connection due to administrator command") as raised:
        written.write(items(), mode, table="notes")
    assert raised.value.kind is Kind.TRANSIENT_DB
    assert untouched(destination_db, written)


def test_a_crashed_server_is_a_passing_trouble_and_nothing_is_half_written(
    dest_postgres: Connector, own_postgres: EmbeddedPostgres
) -> None:
    own_postgres.create_database("warehouse")
    database = Database(own_postgres, "warehouse")
    destination = Destination(dest_postgres, database)
    destination.write(notes((1, "one")), "replace", table="notes")
    # The tests' servers commit without waiting for the disk.
    database.execute("checkpoint", superuser=True)

    def items() -> Iterator[Item]:
        yield schema_item(NOTES)
        yield batch_item(many(5_000).to_batches()[0])
        own_postgres.crash()
        for _ in range(20):
            yield batch_item(many(20_000).to_batches()[0])
        yield barrier(2)
        yield End()

    with pytest.raises(DestinationError) as raised:
        destination.write(items(), "append", table="notes")
    assert raised.value.kind.retryable
    own_postgres.start()
    assert content(database) == [(1, "one")]
    destination.write(notes((2, "two")), "append", table="notes", sequence=2)
    assert content(database) == [(1, "one"), (2, "two")]


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize(
    ("constraint", "rows", "named"),
    [
        ("add constraint told check (body is not null)", [(2, None)], "told"),
        ("add primary key (id)", [(2, "a"), (2, "b")], "notes_pkey"),
        ("add constraint short check (length(body) < 5)", [(2, "longer")], "short"),
    ],
)
def test_a_row_that_breaks_a_constraint_is_a_data_error_that_names_it(
    written: Destination,
    destination_db: Database,
    mode: str,
    constraint: str,
    rows: list[tuple[int, str | None]],
    named: str,
) -> None:
    destination_db.execute(f"alter table notes {constraint}")
    with pytest.raises(DestinationError) as raised:
        written.write(notes(*rows), mode, table="notes", sequence=2)
    assert raised.value.kind is Kind.DATA
    assert named in str(raised.value)
    assert untouched(destination_db, written)


def test_a_bad_first_row_is_told_long_before_the_last(written: Destination, destination_db: Database) -> None:
    destination_db.execute("alter table notes add constraint positive check (id >= 0)")
    batches = 0

    def items() -> Iterator[Item]:
        nonlocal batches
        yield schema_item(NOTES)
        yield batch_item(notes((-1, "bad")).to_batches()[0])
        batch = many(50_000).to_batches()[0]
        for _ in range(100):
            batches += 1
            yield batch_item(batch)
        yield barrier(2)
        yield End()

    with pytest.raises(DestinationError, match="positive"):
        written.write(items(), table="notes")
    assert batches < 40
    assert untouched(destination_db, written)


def test_rows_without_a_barrier_behind_them_are_not_kept(written: Destination, destination_db: Database) -> None:
    items: list[Item] = [schema_item(NOTES), batch_item(notes((2, "two")).to_batches()[0]), End()]
    with pytest.raises(DestinationError, match="ended without a barrier") as raised:
        written.write(items, table="notes")
    assert raised.value.kind is Kind.PROTOCOL
    assert untouched(destination_db, written)


BATCH = batch_item(notes((2, "two")).to_batches()[0])


@pytest.mark.parametrize(
    "items",
    [
        [BATCH],
        [barrier(2)],
        [schema_item(NOTES), barrier(2), BATCH],
        [schema_item(NOTES), barrier(2), barrier(3)],
        [schema_item(NOTES), batch_item(pa.record_batch({"id": pa.array([1])}))],
    ],
    ids=["rows first", "barrier first", "rows after the end", "a second final barrier", "another shape"],
)
def test_items_out_of_order_are_refused(destination: Destination, items: list[Item]) -> None:
    with pytest.raises(DestinationError) as raised:
        destination.write([*items, End()], table="notes")
    assert raised.value.kind is Kind.PROTOCOL


def test_a_schema_that_repeats_is_no_change(written: Destination, destination_db: Database) -> None:
    same = schema_item(pa.schema(list(NOTES)))
    written.write([schema_item(NOTES), BATCH, same, BATCH, barrier(2), End()], table="notes")
    assert content(destination_db) == [(1, "one"), (2, "two"), (2, "two")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id bigint, body varchar(9)", "column body is character varying(9) in the table and text in the stream"),
        ("id integer, body text", "column id is integer in the table and bigint in the stream"),
        ("id bigint", "column body (text) is new"),
        ("id bigint, body text, more int not null", "column more (integer) is not in the stream"),
        ("id bigint, body text generated always as ('x') stored", "column body is generated"),
    ],
)
def test_a_table_of_another_shape_is_a_schema_error_that_names_columns_and_types(
    destination: Destination, destination_db: Database, table: str, message: str
) -> None:
    destination_db.execute(f"create table notes ({table})")
    for mode in ("append", "replace"):
        with pytest.raises(SchemaError) as raised:
            destination.write(
                notes((1, "one")),
                mode,
                table="notes",
                schema_evolution={"new_column": "fail", "removed_column": "fail", "type_change": "fail"},
            )
        assert message in str(raised.value)
        assert destination_db.fetch_value("select count(*) from notes") == 0


def test_what_is_not_a_table_is_not_written(destination: Destination, destination_db: Database) -> None:
    destination_db.execute("create view notes as select 1::bigint as id, 'x'::text as body")
    with pytest.raises(SchemaError, match=r"public\.notes is a view: only tables can be written"):
        destination.write(notes((1, "one")), table="notes")


def test_a_key_that_the_stream_does_not_have_is_a_schema_error(
    destination: Destination, destination_db: Database
) -> None:
    with pytest.raises(SchemaError, match="column nope is not in the stream"):
        destination.write(notes((1, "one")), table="notes", primary_key=["nope"])
    assert destination_db.fetch_value("select to_regclass('notes') is null") is True


def test_duplicates_in_a_new_table_s_key_are_a_data_error_and_the_table_is_not_there(
    destination: Destination, destination_db: Database
) -> None:
    with pytest.raises(DestinationError, match="duplicate") as raised:
        destination.write(notes((1, "one"), (1, "two")), table="notes", primary_key=["id"])
    assert raised.value.kind is Kind.DATA
    assert destination_db.fetch_value("select to_regclass('notes') is null") is True


def test_missing_privileges_are_told_with_what_is_missing(
    destination: Destination, destination_db: Database, postgres: EmbeddedPostgres
) -> None:
    user = unique_name("guest")
    postgres.create_role(user, password="guest")
    try:
        destination_db.execute("create table notes (id bigint, body text)")
        guest = destination.with_config(user=user, password="guest")
        with pytest.raises(DestinationError, match="permission denied for schema public") as raised:
            guest.write(notes((1, "one")), table="notes")
        assert raised.value.kind is Kind.PERMISSION
        with pytest.raises(DestinationError, match="permission denied for database"):
            guest.with_config(schema="raw").write(notes((1, "one")), table="notes")
        destination_db.execute(f"grant create on schema public to {user}", superuser=True)
        for mode in ("append", "replace"):
            with pytest.raises(DestinationError, match="permission denied for table notes"):
                guest.write(notes((1, "one")), mode, table="notes")
    finally:
        destination_db.execute(f"drop owned by {user}; drop role {user}", superuser=True)


def test_a_mode_of_a_later_version_is_unsupported(destination: Destination) -> None:
    with pytest.raises(RapidbyteError, match="write mode merge is not supported") as raised:
        destination.write(notes((1, "one")), "merge", table="notes")
    assert raised.value.kind is Kind.UNSUPPORTED


def test_a_lock_on_the_table_delays_the_write_and_a_cancel_ends_the_wait(
    written: Destination, destination_db: Database
) -> None:
    with destination_db.connect() as holder:
        holder.execute("begin; lock table notes")
        with written.instance(Feed([schema_item(NOTES), BATCH, barrier(2), End()])) as instance:
            instance.call("rb_open", written.open_argument("notes"))
            threading.Timer(0.5, instance.cancel).start()
            started = time.monotonic()
            with pytest.raises(RunCancelled):
                instance.call("rb_write", {"stream": {"name": "notes", "table": "notes", "write_mode": "append"}})
            assert time.monotonic() - started < 2.5
    assert untouched(destination_db, written)
