"""A first load that is interrupted goes on with the pieces that are missing, and is of one moment nevertheless."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.errors import RapidbyteError
from tests.cdc.agreement import assert_follows
from tests.cdc.conftest import Replicate
from tests.cdc.replication import Replication, in_background, wait_until
from tests.cdc.tables import AUDIT, DEFINITIONS, ROWS
from tests.cdc.worker import Job, start
from tests.cdc.writers import Writers
from tests.postgres_server import Database
from tests.recovery.proxy import Moment, Proxy
from tests.recovery.trial import GOING_SECONDS, LEFTOVERS
from tests.recovery.worker import Worker
from tests.roundtrip.seed import SEED

PIECE_BYTES = 64 * 1024
COUNT = 2400
ITEMS = f"""
    CREATE TABLE items (id int PRIMARY KEY, name text, big text);
    ALTER TABLE items ALTER big SET STORAGE EXTERNAL;
    INSERT INTO items SELECT i, repeat('x', 150), CASE WHEN i % 100 = 0 THEN repeat(i::text, 1500) END
    FROM generate_series(1, {COUNT}) i;
"""
"""Some 60 blocks of rows, and as many of values beside them."""

PIECE = "INSERT INTO [^ ]*_rapidbyte_shards_[0-9a-f]+\\S* \\(shard"
PRUNED = "DELETE FROM [^ ]*_rapidbyte_staged_"
AMENDED = r"VALUES \(-1, \d+, [1-9]"
PUBLISHED = "_rapidbyte_watermarks"
"""What the transactions do: one of a piece, of rows that go, of rows that come, of the whole."""

CHANGES = """
    UPDATE items SET name = 'changed' WHERE id % 40 = 1;
    DELETE FROM items WHERE id % 40 = 2;
    UPDATE items SET id = id + 100000 WHERE id % 40 = 3;
    UPDATE items SET big = repeat('new', 900) WHERE id % 200 = 0;
    UPDATE items SET name = 'big stays' WHERE id % 200 = 100;
    INSERT INTO items SELECT i, 'came' FROM generate_series(200001, 200020) i;
    -- Keys that others had.
    INSERT INTO items SELECT id, 'again' FROM generate_series(2, 2400, 80) id;
"""
"""Everywhere in the table."""


@dataclass
class Load:
    """Of a pipeline whose connections to its destination can be cut."""

    replication: Replication
    proxy: Proxy
    log: list[str] = field(default_factory=list)

    def run(self, **options: Any) -> StreamResult:
        self.log = []
        results = self.replication.catch_up(
            piece_bytes=PIECE_BYTES, on_log=lambda _, line: self.log.append(line), **options
        )
        return next(iter(results.values()))

    def interrupt(self, within: str = PIECE, nth: int = 4, **options: Any) -> None:
        """At the `nth` commit of that kind, which does not arrive."""
        self.proxy.arm(Moment("^COMMIT", "arrives", nth, within=within))
        with pytest.raises(RapidbyteError):
            self.run(**options)
        assert self.proxy.struck.is_set(), self.proxy.statements

    @property
    def pieces(self) -> int:
        """In how many the table is divided."""
        return int(self._told(r"the table is read in (\d+) pieces")[0])

    @property
    def taken_up(self) -> int | None:
        """How many of them an earlier run had loaded."""
        told = self._told(r"goes on with a load that was interrupted: (\d+) of \d+ pieces are there")
        return int(told[0]) if told else None

    @property
    def kept_and_gone(self) -> tuple[int, int]:
        """Rows of these that stayed, and that went."""
        kept, gone = self._told(r"(\d+) rows stay, (\d+) are gone or have changed")
        return int(kept), int(gone)

    def _told(self, pattern: str) -> tuple[str, ...]:
        found = [match.groups() for line in self.log if (match := re.search(pattern, line))]
        return found[0] if found else ()

    def assert_complete(self) -> None:
        """The table is the source's, now and after another change, and nothing is left behind."""
        self.replication.assert_mirrors()
        self.replication.source.execute("INSERT INTO items (id, name) VALUES (-77, 'afterwards')")
        self.replication.catch_up()
        self.replication.assert_mirrors()
        nothing = f"SELECT count(*) = 0 FROM ({LEFTOVERS}) AS something"
        wait_until(
            lambda: self.replication.destination.fetch(nothing, superuser=True) == [(True,)], "nothing is left behind"
        )


MakeLoad = Callable[..., Load]


@pytest.fixture
def make_load(replicate: Replicate, destination: Database) -> Iterator[MakeLoad]:
    """Options are those of `Replication`; `parallelism` is the pipeline's."""
    with Proxy(destination) as proxy:

        def make(definition: str = ITEMS, *, parallelism: int = 1, max_retries: int = 0, **options: Any) -> Load:
            stream = {"name": "items", **options.pop("stream", {})}
            replication = replicate(
                stream,
                sections={"resources": {"parallelism": parallelism, "max_retries": max_retries}},
                destination_config=proxy.config(destination),
                **options,
            )
            replication.source.execute(definition)
            return Load(replication, proxy)

        yield make


@pytest.mark.full
def test_a_load_goes_on_with_the_pieces_that_are_missing(make_load: MakeLoad) -> None:
    load = make_load()
    load.interrupt(nth=4)
    pieces = load.pieces
    assert pieces > 6
    result = load.run()
    assert load.taken_up == 3
    assert "items: none of their rows is gone or has changed" in load.log
    assert result.rows == COUNT
    load.assert_complete()


def test_rows_that_only_came_do_not_have_the_others_looked_at_one_by_one(make_load: MakeLoad) -> None:
    load = make_load()
    load.replication.source.execute("DELETE FROM items WHERE id BETWEEN 300 AND 400")
    load.replication.source.execute("VACUUM items")
    load.interrupt(nth=5)
    load.replication.source.execute("INSERT INTO items SELECT i, repeat('n', 150) FROM generate_series(9001, 9300) i")
    result = load.run()
    assert load.taken_up == 4
    assert "items: none of their rows is gone or has changed" in load.log
    assert result.rows == COUNT - 101 + 300
    load.assert_complete()


@pytest.mark.parametrize("parallelism", [1, pytest.param(2, marks=pytest.mark.full)])
def test_what_changed_meanwhile_is_in_the_table_once(make_load: MakeLoad, parallelism: int) -> None:
    load = make_load(parallelism=parallelism)
    load.interrupt(nth=5)
    load.replication.source.execute(CHANGES)
    result = load.run()
    assert load.taken_up is not None
    assert load.taken_up >= 3
    kept, gone = load.kept_and_gone
    assert kept > COUNT / 6
    assert gone > 0
    assert result.rows == load.replication.source.fetch_value("SELECT count(*) FROM items")
    load.assert_complete()


@pytest.mark.full
def test_rows_that_move_between_pieces_arrive_once(make_load: MakeLoad) -> None:
    """Where rows went there is room for versions of others, once a vacuum has been there."""
    load = make_load()
    execute = load.replication.source.execute
    execute("DELETE FROM items WHERE id BETWEEN 300 AND 400")
    load.interrupt(nth=5)
    where = "SELECT id, split_part(trim('(' FROM ctid::text), ',', 1)::int FROM items"
    before = dict(load.replication.source.fetch(where))
    execute("VACUUM items")
    # Into the room, as far as it goes; then behind the last.
    execute("UPDATE items SET name = repeat('y', 150) WHERE id > 2000")
    execute("UPDATE items SET name = repeat('z', 150) WHERE id BETWEEN 100 AND 300")
    after = dict(load.replication.source.fetch(where))
    middle = max(before.values()) // 2
    for there, here in ((before, after), (after, before)):
        assert any(there[row] < middle <= here[row] for row in there), "rows move both ways"
    load.run()
    assert load.taken_up == 4
    load.assert_complete()


@pytest.mark.full
def test_subtransactions_and_what_is_rolled_back_are_told_apart(make_load: MakeLoad) -> None:
    load = make_load()
    load.interrupt(nth=5)
    load.replication.source.execute("""
        DO $$ BEGIN
            FOR i IN 1..40 LOOP
                BEGIN
                    UPDATE items SET name = 'of a subtransaction' WHERE id = i * 10;
                    INSERT INTO items VALUES (i + 500000, 'of a subtransaction');
                    DELETE FROM items WHERE id = i * 10 + 1;
                    IF i % 2 = 0 THEN RAISE EXCEPTION 'not this one'; END IF;
                EXCEPTION WHEN raise_exception THEN NULL;
                END;
            END LOOP;
        END $$;
    """)
    load.run()
    assert load.taken_up == 4
    # Of the twenty that were updated and the twenty that were deleted, those that the pieces had.
    assert 0 < load.kept_and_gone[1] <= 40
    load.assert_complete()


def test_a_transaction_that_is_open_across_the_first_snapshot_arrives_once(make_load: MakeLoad) -> None:
    load = make_load()
    # Makes the slot, which waits as well, and loads nothing.
    load.interrupt(nth=1)
    source = load.replication.source
    with source.connect() as older, source.connect() as younger, source.connect() as youngest:
        older.execute("BEGIN")
        older.execute("INSERT INTO items VALUES (300001, 'older')")
        with in_background(lambda: load.interrupt(nth=5)):
            _wait_for_waiting(load, older)
            younger.execute("BEGIN")
            younger.execute("INSERT INTO items VALUES (300002, 'younger')")
            older.execute("COMMIT")
            # The slot waits once more, for those that were going on then. What begins now it does not wait for.
            _wait_for_waiting(load, younger)
            youngest.execute("BEGIN")
            youngest.execute("UPDATE items SET name = 'youngest' WHERE id % 50 = 1")
            youngest.execute("DELETE FROM items WHERE id % 50 = 2")
            youngest.execute("INSERT INTO items VALUES (300003, 'youngest')")
            # Its number is behind one that goes on, and it is in the snapshot.
            source.execute("UPDATE items SET name = 'meanwhile' WHERE id % 50 = 3")
            younger.execute("COMMIT")
            wait_until(load.proxy.struck.is_set, "the pieces come")
        youngest.execute("COMMIT")
    load.run()
    assert load.taken_up == 4
    load.assert_complete()


def _wait_for_waiting(load: Load, connection: Any) -> None:
    load.replication.wait_until(
        f"SELECT count(*) > 0 FROM pg_stat_activity WHERE {connection.info.backend_pid} = ANY (pg_blocking_pids(pid))",
        why="the slot waits for the open transaction",
    )


@pytest.mark.parametrize(
    "within",
    [
        pytest.param(PRUNED, id="before rows go", marks=pytest.mark.full),
        pytest.param(AMENDED, id="between rows that go and rows that come"),
        pytest.param(PIECE, id="before a further piece", marks=pytest.mark.full),
        pytest.param(PUBLISHED, id="before it is published", marks=pytest.mark.full),
    ],
)
def test_a_load_that_is_interrupted_again_and_again_ends_as_the_table_of_one_moment(
    make_load: MakeLoad, within: str
) -> None:
    load = make_load()
    load.interrupt(nth=4)
    execute = load.replication.source.execute
    execute("UPDATE items SET name = 'first' WHERE id % 30 = 1; DELETE FROM items WHERE id % 30 = 2")
    load.interrupt(within, 1)
    execute("UPDATE items SET name = 'second' WHERE id % 30 IN (1, 3); DELETE FROM items WHERE id % 30 = 4")
    execute("VACUUM items")
    execute("INSERT INTO items SELECT i, 'third' FROM generate_series(2, 2400, 60) i")
    load.interrupt(within, 1)
    execute("UPDATE items SET name = 'fourth' WHERE id % 30 IN (2, 5)")
    load.run()
    assert load.taken_up is not None
    assert load.taken_up >= 3
    load.assert_complete()


@pytest.mark.parametrize("within", [PIECE, pytest.param(AMENDED, marks=pytest.mark.full)])
def test_a_load_whose_process_is_killed_is_taken_up_by_another(make_load: MakeLoad, within: str) -> None:
    load = make_load(parallelism=2)
    if within == AMENDED:
        load.interrupt(nth=4)
        load.replication.source.execute(CHANGES)
    victims: list[Worker] = []
    started = threading.Event()

    def kill() -> None:
        started.wait(GOING_SECONDS)
        victims[0].kill()

    load.proxy.arm(Moment("^COMMIT", "answered", 4 if within == PIECE else 1, within=within), kill)
    with start(Job(load.replication.write(), str(uuid.uuid4()), piece_bytes=PIECE_BYTES)) as worker:
        victims.append(worker)
        started.set()
        report = worker.wait()
        assert worker.was_killed, report
    load.replication.source.execute(CHANGES if within == PIECE else "UPDATE items SET name = 'later' WHERE id % 9 = 0")
    load.run()
    assert load.taken_up is not None
    assert load.taken_up >= 3
    load.assert_complete()


@pytest.mark.parametrize(
    ("meanwhile", "why"),
    [
        pytest.param("TRUNCATE items; INSERT INTO items VALUES (1)", "truncated or written anew", id="truncated"),
        pytest.param("VACUUM FULL items", "truncated or written anew", id="rewritten", marks=pytest.mark.full),
        pytest.param(
            "DROP TABLE items; CREATE TABLE items (id int PRIMARY KEY, name text, big text);"
            "INSERT INTO items SELECT i, repeat('y', 150) FROM generate_series(1, 2400) i",
            "another table",
            id="replaced",
            marks=pytest.mark.full,
        ),
        pytest.param(
            "ALTER TABLE items ADD more int DEFAULT 7", "of other columns", id="a column more", marks=pytest.mark.full
        ),
        pytest.param(
            "ALTER TABLE items DROP big; ALTER TABLE items ADD big text DEFAULT 'another'",
            "of other columns",
            id="another column of the same name and type",
        ),
    ],
)
def test_a_table_that_is_another_one_is_loaded_from_the_beginning(
    make_load: MakeLoad, meanwhile: str, why: str
) -> None:
    load = make_load()
    load.interrupt(nth=5)
    with load.replication.source.connect() as connection:
        for statement in meanwhile.split(";"):
            connection.execute(statement.encode())
    load.run()
    assert load.taken_up is None
    assert "TRUNCATE" in meanwhile or any(why in line for line in load.log), load.log
    load.assert_complete()


@pytest.mark.parametrize(
    ("meanwhile", "taken_up"),
    [
        pytest.param(
            "DROP TABLE raw.items; CREATE TABLE raw.items (id int PRIMARY KEY, name text, big text)",
            None,
            marks=pytest.mark.full,
        ),
        pytest.param("ALTER TABLE raw.items ADD own int", None, marks=pytest.mark.full),
        pytest.param("DROP TABLE raw.items", None, marks=pytest.mark.full),
        ("UPDATE raw.items SET name = 'somebody was here'", 4),
        pytest.param("CREATE INDEX by_name ON raw.items (name)", 4, marks=pytest.mark.full),
    ],
)
def test_a_load_that_replaces_a_table_goes_on_while_that_is_the_same(
    make_load: MakeLoad, meanwhile: str, taken_up: int | None
) -> None:
    load = make_load()
    load.replication.destination.execute(
        "CREATE SCHEMA raw; CREATE TABLE raw.items (id int PRIMARY KEY, name text, big text);"
        "INSERT INTO raw.items VALUES (-1, 'old')"
    )
    load.interrupt(nth=5)
    load.replication.source.execute(CHANGES)
    load.replication.destination.execute(meanwhile)
    load.run()
    assert load.taken_up == taken_up
    if "ADD own" in meanwhile:
        load.replication.destination.execute("ALTER TABLE raw.items DROP own")
    load.assert_complete()


PARTITIONED = """
    CREATE TABLE items (id int, region int, name text, big text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE items_1 PARTITION OF items FOR VALUES IN (1);
    CREATE TABLE items_2 PARTITION OF items FOR VALUES IN (2);
    CREATE TABLE items_3 (region int NOT NULL, id int NOT NULL, big text, name text);
    INSERT INTO items_3 SELECT 3, i, NULL, repeat('x', 150) FROM generate_series(1, 300) i;
    INSERT INTO items SELECT i, i % 2 + 1, repeat('x', 150) FROM generate_series(1, 2400) i
"""


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param(
            "UPDATE items SET region = 3 - region WHERE id % 20 < 3",
            id="rows move between partitions",
            marks=pytest.mark.full,
        ),
        pytest.param(
            "TRUNCATE items_1; INSERT INTO items VALUES (7, 1, 'new')", id="one is truncated", marks=pytest.mark.full
        ),
        pytest.param("ALTER TABLE items ATTACH PARTITION items_3 FOR VALUES IN (3)", id="one comes, with its rows"),
        pytest.param("ALTER TABLE items DETACH PARTITION items_1", id="one goes", marks=pytest.mark.full),
        pytest.param(
            "ALTER TABLE items DETACH PARTITION items_1; UPDATE items_1 SET name = 'away' WHERE id % 20 < 3;"
            "ALTER TABLE items ATTACH PARTITION items_1 FOR VALUES IN (1)",
            id="one goes and comes back",
            marks=pytest.mark.full,
        ),
    ],
)
def test_partitions_are_taken_up_where_they_are_the_same(make_load: MakeLoad, meanwhile: str) -> None:
    load = make_load(PARTITIONED)
    load.interrupt(nth=5)
    load.replication.source.execute(meanwhile)
    load.run()
    assert load.taken_up == 4
    load.replication.assert_mirrors()


@pytest.mark.full
def test_a_run_whose_connection_is_cut_goes_on_itself_without_a_look_at_what_is_there(make_load: MakeLoad) -> None:
    load = make_load(max_retries=2)
    load.proxy.arm(Moment("^COMMIT", "arrives", 5, within=PIECE))
    result = load.run()
    assert load.proxy.struck.is_set()
    assert load.taken_up == 4
    # It reads in the same snapshot.
    assert not any("rows stay" in line for line in load.log)
    assert result.attempts == 2
    assert result.rows == COUNT
    load.assert_complete()


@pytest.mark.full
def test_staged_rows_that_somebody_was_at_are_loaded_again(make_load: MakeLoad) -> None:
    load = make_load()
    load.interrupt(nth=4)
    [[staged]] = load.replication.destination.fetch(
        "SELECT oid::regclass::text FROM pg_class WHERE relname ~ '^_rapidbyte_staged_[0-9a-f]+$'"
    )
    load.replication.destination.execute(f"DELETE FROM {staged} WHERE id = 1")
    load.replication.source.execute("UPDATE items SET name = 'changed' WHERE id = 2")
    with pytest.raises(RapidbyteError, match="should have been kept") as caught:
        load.run()
    assert caught.value.retryable
    load.run()
    assert load.taken_up is None
    load.assert_complete()


@pytest.mark.full
@pytest.mark.parametrize(
    ("prepared", "superuser", "deletes"),
    [
        pytest.param("CREATE PUBLICATION everything FOR ALL TABLES", True, "hard", id="that is published itself"),
        pytest.param(
            "CREATE SCHEMA raw; CREATE TABLE raw.items (id int PRIMARY KEY, name text, big text);"
            "CREATE VIEW raw.shown AS SELECT * FROM raw.items",
            False,
            "hard",
            id="whose table cannot be exchanged",
            marks=pytest.mark.full,
        ),
        pytest.param("SELECT 1", False, "soft", id="that keeps what is deleted", marks=pytest.mark.full),
    ],
)
def test_a_load_goes_on_into_a_destination(make_load: MakeLoad, prepared: str, superuser: bool, deletes: str) -> None:
    load = make_load(stream={"deletes": deletes})
    load.replication.destination.execute(prepared, superuser=superuser)
    load.interrupt(nth=5)
    load.replication.source.execute(CHANGES)
    load.run()
    assert load.taken_up == 4
    content = "SELECT id, name, big FROM {}items ORDER BY id"
    assert load.replication.destination.fetch(content.format("raw.")) == load.replication.source.fetch(
        content.format("")
    )


@pytest.mark.full
@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("PRIMARY KEY (code)", "'x' || i, i"),
        ("PRIMARY KEY (code, n)", "i % 7, (i::numeric / 8)::numeric(12, 3)"),
        ("PRIMARY KEY (n, code)", "md5(i::text), i::numeric"),
        ("UNIQUE (code)", "md5(i::text)::uuid, i"),
    ],
    ids=["text", "of two columns", "numeric without a scale", "a unique index"],
)
def test_rows_are_found_by_any_key(make_load: MakeLoad, columns: str, values: str) -> None:
    types = {"md5(i::text)::uuid, i": ("uuid", "int"), "i % 7": ("int", "numeric(12, 3)")}
    code, n = next((pair for start, pair in types.items() if values.startswith(start)), ("text", "numeric"))
    load = make_load(
        f"CREATE TABLE items (code {code} NOT NULL, n {n} NOT NULL, name text, {columns});"
        + ("ALTER TABLE items REPLICA IDENTITY USING INDEX items_code_key;" if "UNIQUE" in columns else "")
        + f"INSERT INTO items SELECT {values}, repeat('x', 150) FROM generate_series(1, 2400) i"
    )
    load.interrupt(nth=5)
    load.replication.source.execute(
        "DELETE FROM items WHERE length(n::text || code::text) % 9 = 1 OR ctid::text LIKE '%7)';"
        "UPDATE items SET name = 'changed' WHERE ctid::text LIKE '%,3)'"
    )
    load.run()
    assert load.taken_up == 4
    assert load.kept_and_gone[0] > 0
    load.replication.assert_mirrors(keyed="PRIMARY" in columns)


@pytest.mark.parametrize(
    ("identity", "write_mode"),
    [
        pytest.param(
            "ALTER TABLE items DROP CONSTRAINT items_pkey, REPLICA IDENTITY FULL", "upsert", id="without a key"
        ),
        pytest.param("SELECT 1", "append", id="kept as a history", marks=pytest.mark.full),
    ],
)
def test_what_cannot_be_taken_up_is_loaded_in_one_piece(make_load: MakeLoad, identity: str, write_mode: str) -> None:
    load = make_load(f"{ITEMS}; {identity}", write_mode=write_mode)
    load.proxy.arm(Moment(copied=200_000))
    with pytest.raises(RapidbyteError):
        load.run()
    load.replication.source.execute(CHANGES)
    result = load.run()
    assert load.taken_up is None
    assert result.rows == load.replication.source.fetch_value("SELECT count(*) FROM items")


@pytest.mark.full
def test_rows_that_are_refused_where_they_are_published_do_not_stay_behind(make_load: MakeLoad) -> None:
    """They would be refused for ever, whatever becomes of them at the source."""
    load = make_load()
    load.replication.destination.execute(
        "CREATE SCHEMA raw; CREATE TABLE raw.items (id int PRIMARY KEY, name text UNIQUE, big text)"
    )
    with pytest.raises(RapidbyteError, match="items_name_key"):
        load.run()
    load.replication.source.execute("UPDATE items SET name = 'item ' || id")
    assert load.run().rows == COUNT
    assert load.taken_up is None
    load.assert_complete()


@pytest.mark.full
def test_a_load_anew_is_taken_up_when_it_is_asked_for_again_and_given_up_when_it_is_not(make_load: MakeLoad) -> None:
    load = make_load("CREATE TABLE items (id int PRIMARY KEY, name text, big text)")
    load.run()
    execute = load.replication.source.execute
    execute("INSERT INTO items SELECT i, repeat('x', 150) FROM generate_series(1, 2400) i")
    load.run()
    load.replication.destination.execute("DELETE FROM raw.items WHERE id % 2 = 0")
    load.interrupt(nth=4, full_refresh=["items"])
    execute("UPDATE items SET name = 'changed' WHERE id % 10 = 0")
    load.run(full_refresh=["items"])
    assert load.taken_up == 3
    load.replication.assert_mirrors()
    load.interrupt(nth=4, full_refresh=["items"])
    load.assert_complete()


@pytest.mark.full
def test_what_writers_do_between_interruptions_at_random_arrives_once(
    replicate: Replicate, source: Database, destination: Database
) -> None:
    print(f"RAPIDBYTE_TEST_SEED={SEED}")  # noqa: T201  shown when it fails
    chosen = random.Random(SEED)
    tables = ["accounts", "documents", "tags", "readings"]
    with Proxy(destination) as proxy:
        replication = replicate(
            *tables,
            sections={"resources": {"parallelism": 2, "max_retries": 0}},
            destination_config=proxy.config(destination),
        )
        source.execute(DEFINITIONS + AUDIT + ROWS)
        taken_up: list[str] = []

        def run() -> None:
            replication.catch_up(
                full_refresh=tables,
                piece_bytes=24 * 1024,
                on_log=lambda _, line: taken_up.append(line) if "interrupted:" in line else None,
            )

        for _ in range(4):
            with Writers(source, f"{SEED}/{chosen.random()}", tables=tables, truncates=False, pause=0.3) as writers:
                for _ in range(6):
                    writers.wait_for(writers.committed + chosen.randrange(1, 8))
                    proxy.arm(Moment("^COMMIT", "arrives", chosen.randrange(1, 30)))
                    with contextlib.suppress(RapidbyteError):
                        run()
                    if chosen.random() < 0.3:
                        source.execute("VACUUM accounts, documents, tags, readings")
            proxy.arm(Moment("nothing is like this"))
            run()
            assert_follows(replication, audited=False)
    assert len(taken_up) > 10
