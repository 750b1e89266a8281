"""What readers see while a table is replaced: the old rows or the new ones, never none and never a part."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest

from rapidbyte_dagster.runtime import End, Item
from tests.integration.destination.feed import Destination, barrier, batch_item, column, schema_item
from tests.postgres_server import Database

ROWS = 20_000
GENERATION = pa.schema(
    [column("id", pa.int64(), "bigint", nullable=False), column("generation", pa.int32(), "integer")]
)

WAYS = {
    "swapped": "select 1",
    "in place": "create view generations as select * from numbers",
    "in place by key": "alter table numbers add primary key (id); create table refers (id bigint references numbers)",
}


def generation(number: int) -> pa.Table:
    return pa.table({"id": list(range(ROWS)), "generation": [number] * ROWS}, schema=GENERATION)


@pytest.fixture(params=list(WAYS))
def numbers(request: pytest.FixtureRequest, destination: Destination, destination_db: Database) -> str:
    """A filled table whose next replacement goes the way of the parameter, which comes back."""
    destination.write(generation(0), "replace", table="numbers")
    way = str(request.param)
    destination_db.execute(WAYS[way])
    return way


SHAPE = "select count(*), min(generation), max(generation) from numbers"


def replace(destination: Destination, way: str, number: int) -> None:
    written = destination.write(generation(number), "replace", table="numbers", sequence=number + 1)
    assert written.feed.heard("replaced in place") == way.startswith("in place")


def test_readers_find_one_whole_generation_at_any_moment(
    numbers: str, destination: Destination, destination_db: Database
) -> None:
    stop = threading.Event()
    seen: set[tuple[int, int, int]] = set()
    failures: list[BaseException] = []

    def look(isolation: psycopg.IsolationLevel) -> None:
        try:
            with psycopg.connect(destination_db.dsn) as connection:
                connection.isolation_level = isolation
                while not stop.is_set():
                    with connection.transaction():
                        seen.update(connection.execute(SHAPE.encode()).fetchall())
        except BaseException as failure:  # noqa: BLE001  a thread's edge: told below
            failures.append(failure)

    levels = [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ]
    threads = [threading.Thread(target=look, args=(level,)) for level in levels]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 6):
            replace(destination, numbers, number)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert all(count == ROWS and lowest == highest for count, lowest, highest in seen)
    assert len(seen) >= 2


def test_a_snapshot_older_than_the_publication_finds_the_table_full(
    numbers: str, destination: Destination, destination_db: Database
) -> None:
    with psycopg.connect(destination_db.dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select 1")
        replace(destination, numbers, 1)
        [(count, lowest, highest)] = connection.execute(SHAPE.encode()).fetchall()
    assert count == ROWS
    assert lowest == highest
    if numbers != "swapped":
        assert lowest == 0


def test_a_reader_that_does_not_let_go_delays_a_swap_for_seconds_and_not_for_good(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(generation(0), "replace", table="numbers")
    with psycopg.connect(destination_db.dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert connection.execute(SHAPE.encode()).fetchall() == [(ROWS, 0, 0)]
        started = time.monotonic()
        written = destination.write(generation(1), "replace", table="numbers", sequence=2)
        assert time.monotonic() - started < 30
        assert written.feed.heard("other sessions have been using it")
        assert connection.execute(SHAPE.encode()).fetchall() == [(ROWS, 0, 0)]
    assert destination_db.fetch(SHAPE) == [(ROWS, 1, 1)]
    leftovers = "select count(*) from pg_class where relname like '\\_rapidbyte\\_new%'"
    assert destination_db.fetch_value(leftovers) == 0


@pytest.mark.parametrize(
    "sql",
    [
        "create view generations as select * from numbers",
        "create index by_generation on numbers (generation)",
        "create table refers (id bigint references numbers)",
    ],
)
def test_what_came_to_hang_on_the_table_during_the_load_is_not_lost(
    destination: Destination, destination_db: Database, sql: str
) -> None:
    destination.write(generation(0), "replace", table="numbers", primary_key=["id"])

    def items() -> Iterator[Item]:
        yield schema_item(GENERATION)
        for batch in generation(1).to_batches():
            yield batch_item(batch)
        destination_db.execute(sql)
        yield barrier(2)
        yield End()

    destination.write(items(), "replace", table="numbers")
    assert destination_db.fetch(SHAPE) == [(ROWS, 1, 1)]
    named = sql.split()[2]
    assert destination_db.fetch_value(f"select to_regclass('{named}') is not null") is True


def test_an_index_made_between_building_and_publishing_is_not_lost(
    destination: Destination, destination_db: Database
) -> None:
    destination.write(generation(0), "replace", table="numbers", primary_key=["id"])
    written = destination.write(
        generation(1),
        "replace",
        table="numbers",
        sequence=2,
        on_prepare=lambda _: destination_db.execute("create index by_generation on numbers (generation)"),
    )
    assert written.feed.heard("its indexes were changed")
    assert destination_db.fetch(SHAPE) == [(ROWS, 1, 1)]
    assert destination_db.fetch_value("select count(*) from pg_index where indrelid = 'numbers'::regclass") == 2


def test_writers_wait_for_the_publication_and_lose_nothing(destination: Destination, destination_db: Database) -> None:
    destination.write(generation(0), "replace", table="numbers")
    destination_db.execute(WAYS["in place"])
    writer = psycopg.connect(destination_db.dsn)
    writer.execute("insert into numbers values (-1, 0)")
    threading.Timer(1.0, writer.commit).start()
    destination.write(generation(1), "replace", table="numbers", sequence=2)
    writer.close()
    assert destination_db.fetch(SHAPE) == [(ROWS, 1, 1)]
