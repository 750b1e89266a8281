"""`rb_split` and what reads its shards: every row of one snapshot once, whatever happens to the table meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError, SourceError
from rapidbyte_dagster.runtime import Instance
from tests.integration.source.reading import (
    MAX_BATCH_BYTES,
    Collected,
    check,
    open_argument,
    open_source,
    plain,
    stream_argument,
)
from tests.postgres_server import Database, TlsServer, unique_name


class Split:
    """A source that was split, and holds its snapshot."""

    def __init__(self, database: Database, instance: Instance, host: Collected, stream: dict[str, Any], limit: int):
        self.database = database
        self.instance = instance
        self.host = host
        self.stream = stream
        answer = instance.call("rb_split", {"stream": stream, "max_shards": limit})
        self.shards: list[Any] = json.loads(json.dumps(answer["shards"]))
        self.reason: str | None = answer["reason"]

    def read(self, shard: Any) -> pa.Table:
        """Reads one shard in an instance of its own; null: everything, in the instance that split."""
        argument = {"stream": self.stream, "cursor": None, "shard": shard, "max_batch_bytes": MAX_BATCH_BYTES}
        if shard is None:
            self.instance.call("rb_read", argument)
            return table_of(self.host)
        host = Collected()
        with open_source(host, self.database.config) as instance:
            instance.call("rb_open", {**open_argument(self.database.config, "t"), "shard": 0})
            instance.call("rb_read", argument)
        assert host.barriers == [(len(host.messages), {"cursor": None, "final": True})]
        return table_of(host)

    def read_all(self) -> list[pa.Table]:
        """All shards at the same time."""
        with ThreadPoolExecutor(len(self.shards)) as readers:
            return list(readers.map(self.read, self.shards))


def table_of(host: Collected) -> pa.Table:
    with pa.ipc.open_stream(pa.BufferReader(b"".join(host.messages))) as reader:
        return reader.read_all()


@contextmanager
def split(database: Database, name: str = "t", *, max_shards: int = 8, **stream: Any) -> Iterator[Split]:
    host = Collected()
    with open_source(host, database.config) as instance:
        instance.call("rb_open", open_argument(database.config, name))
        yield Split(database, instance, host, stream_argument(name, **stream), max_shards)


def ids_of(tables: list[pa.Table], column: str = "id") -> list[Any]:
    return [value for table in tables for value in plain(table.column(column).combine_chunks())]


def rows_once(tables: list[pa.Table], database: Database, sql: str) -> None:
    """The tables together hold what the query answers, and all have one schema."""
    assert sorted(ids_of(tables), key=str) == sorted((value for (value,) in database.fetch(sql)), key=str)
    assert all(table.schema.equals(tables[0].schema, check_metadata=True) for table in tables)


@pytest.fixture
def numbers(source_db: Database) -> Database:
    """150 blocks or so."""
    source_db.execute(
        "create table t (id int primary key, v text, gone boolean default false);"
        "insert into t select n, repeat('x', 100) from generate_series(1, 8000) n"
    )
    return source_db


def test_shards_hold_every_row_once_and_about_as_many_each(numbers: Database) -> None:
    with split(numbers, shards=4) as divided:
        tables = divided.read_all()
    rows_once(tables, numbers, "select id from t")
    assert len(tables) == 4
    assert min(table.num_rows for table in tables) > 1500


def test_filter_and_columns_hold_for_every_shard(numbers: Database) -> None:
    with split(numbers, shards=3, columns=["v", "id"], filter="id % 7 = 0 or id = 1 -- some") as divided:
        tables = divided.read_all()
    rows_once(tables, numbers, "select id from t where id % 7 = 0 or id = 1")
    assert tables[0].schema.names == ["v", "id"]


def test_a_shard_reads_its_blocks_alone(numbers: Database) -> None:
    with split(numbers, shards=4) as divided:
        assert [shard["part"]["blocks"]["before"] is None for shard in divided.shards] == [False, False, False, True]
        bounds = divided.shards[1]["part"]["blocks"]
    plan = numbers.fetch(
        f"explain select id from t where t.ctid operator(pg_catalog.>=) '({bounds['from']},0)'::tid"
        f" and t.ctid operator(pg_catalog.<) '({bounds['before']},0)'::tid"
    )
    assert "Tid Range Scan" in plan[0][0]


def test_shards_are_of_one_snapshot_while_others_write_and_vacuum(numbers: Database) -> None:
    done = threading.Event()
    rounds: list[int] = []

    def write() -> None:
        with numbers.connect() as connection:
            number = 100_000
            while not done.is_set():
                number += 100
                connection.execute(
                    "insert into t select n, repeat('y', 500) from generate_series(%s, %s) n", [number, number + 99]
                )
                connection.execute("update t set v = v || 'z' where id %% 13 = %s", [number // 100 % 13])
                connection.execute("delete from t where id %% 17 = %s", [number // 100 % 17])
                connection.execute("vacuum t")
                rounds.append(number)

    with split(numbers, shards=1) as whole, split(numbers, shards=4) as divided:
        expected = sorted(plain(whole.read(None).column("id").combine_chunks()))
        assert expected == list(range(1, 8001))
        writer = threading.Thread(target=write)
        writer.start()
        try:
            # One after the other, so that the table changes between them, and all at once.
            for _ in range(3):
                tables = [divided.read(shard) for shard in divided.shards]
                assert sorted(ids_of(tables)) == expected
                assert set(ids_of(tables, "v")) == {"x" * 100}
            assert sorted(ids_of(divided.read_all())) == expected
        finally:
            done.set()
            writer.join()
    assert len(rounds) > 2
    assert numbers.fetch_value("select count(*) from t") != 8000


def test_the_whole_is_read_in_the_same_snapshot_when_it_is_not_split(numbers: Database) -> None:
    numbers.execute("create table named as select 't'::regclass as id")
    with split(numbers) as divided:
        assert divided.shards == []
        assert "parts of 256 MB are worth a session" in str(divided.reason)
        numbers.execute("insert into t values (0, 'late')")
        assert 0 not in plain(divided.read(None).column("id").combine_chunks())
    # A key that is no ordinary column: the user's own SQL ran before the catalog is asked again.
    with split(numbers, "named", shards=2) as divided:
        table = divided.read(None)
        assert table.column("id").to_pylist() == ["public.t"]
        assert (table.schema.field("id").metadata or {})[b"rapidbyte:pg_type"] == b"regclass"


@pytest.mark.parametrize(("rows", "shards"), [(0, 0), (1, 0), (150, 3)])
def test_a_small_table_has_no_more_shards_than_blocks(source_db: Database, rows: int, shards: int) -> None:
    source_db.execute(
        f"create table t (id int, v text); insert into t select n, repeat('x', 100) from generate_series(1, {rows}) n"
    )
    with split(source_db, shards=64, max_shards=64) as divided:
        assert len(divided.shards) == shards
        if shards == 0:
            assert divided.reason == "there is too little to divide: a block of rows"
            assert divided.read(None).num_rows == rows
        else:
            rows_once(divided.read_all(), source_db, "select id from t")


def test_partitions_and_heirs_are_in_the_shards(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (id int, v text default repeat('x', 200)) partition by range (id);
        create table t_1 partition of t for values from (0) to (3000);
        create table t_2 partition of t for values from (3000) to (3100);
        create table t_3 partition of t for values from (3100) to (9000) partition by list (id);
        create table t_4 partition of t_3 default;
        create table t_5 partition of t for values from (9000) to (9999);
        insert into t select n from generate_series(1, 5000) n;
        create table base (id int, v text default repeat('x', 200));
        create table heir (extra int) inherits (base);
        insert into base select n from generate_series(1, 1000) n;
        insert into heir select n from generate_series(1001, 3000) n;
        create materialized view kept as select * from base;
        """
    )
    for name, rows in (("t", 5000), ("base", 3000), ("kept", 3000)):
        with split(source_db, name, shards=5) as divided:
            tables = divided.read_all()
        rows_once(tables, source_db, f"select id from {name}")
        assert len(tables) == 5
        # Files have empty blocks at their ends.
        assert max(table.num_rows for table in tables) < rows / 5 * 1.7


KEYS = {
    "n": "range",
    "big": "range",
    "day": "range",
    "at": "range",
    "atz": "range",
    "word": "hash",
    "u": "hash",
    "price": "hash",
    "ratio": "hash",
    "doc": "hash",
    "padded": "hash",
    "mood": "hash",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_partition_key_divides_a_view_and_nulls_are_in_one_shard(source_db: Database, key: str) -> None:
    source_db.execute(
        """
        create type feeling as enum ('bad', 'good', 'none');
        create table base (id serial, n smallint, big bigint, day date, at timestamp, atz timestamptz, word text,
                           u uuid, price numeric, ratio float8, doc jsonb, padded char(9), mood feeling);
        insert into base (n, big, day, at, atz, word, u, price, ratio, doc, padded, mood)
        select n - 500, (n - 500) * 10000000000000000, date '2024-01-01' + n,
               timestamp '2024-01-01' + n * interval '1 h', timestamptz '0001-01-01 00:00+00' - n * interval '1 y',
               'w' || n % 50, gen_random_uuid(), n / 3.0, n / 7.0, to_jsonb(n), n::text,
               (enum_range(null::feeling))[1 + n % 3]
        from generate_series(1, 900) n;
        insert into base (n) select null from generate_series(1, 100);
        insert into base (day, at, atz, ratio, price) values ('infinity', 'infinity', 'infinity', 'nan', 'nan'),
            ('-infinity', '-infinity', '-infinity', '-0', 'nan'),
            ('0044-03-15 BC', '294276-01-01', '4714-11-24 00:00+00 BC', '0', '0.00');
        create view t as select * from base;
        """
    )
    with split(source_db, shards=4, partition_key=key, columns=["id"]) as divided:
        assert [list(shard["part"]) for shard in divided.shards] == [[KEYS[key]]] * 4
        tables = divided.read_all()
    rows_once(tables, source_db, "select id from t")
    nulls = {number for (number,) in source_db.fetch(f"select id from t where {key} is null")}
    assert sum(bool(nulls & set(ids_of([table]))) for table in tables) == 1
    if key in ("n", "big"):
        assert max(table.num_rows for table in tables[1:]) < 300


def test_a_partition_key_with_few_values_or_none_makes_few_shards(source_db: Database) -> None:
    source_db.execute(
        "create table base (id int, n int); insert into base select n, n % 3 from generate_series(1, 99) n;"
        "create view t as select * from base"
    )
    with split(source_db, shards=8, partition_key="n") as divided:
        assert len(divided.shards) == 3
        rows_once(divided.read_all(), source_db, "select id from t")
    for some in ("n is null", "n = 2"):
        with split(source_db, shards=8, partition_key="n", filter=some) as divided:
            assert divided.reason == "there is too little to divide: a value of partition_key"
            rows_once([divided.read(None)], source_db, f"select id from t where {some}")
    source_db.execute("insert into base values (0, -2147483648), (1000, 2147483647)")
    with split(source_db, shards=2, partition_key="n") as divided:
        assert [table.num_rows for table in divided.read_all()] == [1, 100]


def test_every_shard_has_the_same_schema_where_arrays_differ(source_db: Database) -> None:
    source_db.execute(
        "create table t (id int, v text default repeat('x', 200), a int[], b int[]);"
        "insert into t (id, a, b) select n, array[n], array[n] from generate_series(1, 500) n;"
        "update t set b = '{{1,2},{3,4}}' where id = 499"
    )
    with split(source_db, shards=4) as divided:
        tables = divided.read_all()
    rows_once(tables, source_db, "select id from t")
    assert pa.types.is_list(tables[0].schema.field("a").type)
    assert tables[0].schema.field("b").type == pa.utf8()


def test_a_reason_is_told_where_a_stream_is_read_in_one_piece(numbers: Database) -> None:
    numbers.execute("create view seen as select * from t")
    reasons: list[tuple[str, dict[str, Any], str | None]] = [
        ("t", {"max_shards": 1, "shards": 4}, "no more than one part can be read at once"),
        ("t", {"shards": 1}, None),
        ("t", {}, "it has 1 MB, and parts of 256 MB are worth a session"),
        ("seen", {}, "rows of a view have no place of their own: name a partition_key"),
        ("seen", {"shards": 3}, "rows of a view have no place of their own: name a partition_key"),
        ("seen", {"partition_key": "id"}, "its size is not known: set the number of `shards`"),
    ]
    for name, options, reason in reasons:
        with split(numbers, name, **options) as divided:
            assert (divided.shards, divided.reason) == ([], reason)
            assert divided.read(None).num_rows == 8000


def test_a_foreign_table_is_not_split_by_where_its_rows_lie(source_db: Database) -> None:
    source_db.execute(
        "create foreign data wrapper nothing; create server far foreign data wrapper nothing;"
        "grant usage on foreign server far to etl",
        superuser=True,
    )
    source_db.execute(
        """
        create foreign table far_t (id int, v text) server far;
        create table mixed (id int, v text) partition by list (v);
        create table mixed_1 partition of mixed for values in ('here');
        create foreign table mixed_2 partition of mixed default server far;
        """
    )
    for name in ("far_t", "mixed"):
        with split(source_db, name, shards=3) as divided:
            assert divided.reason == "rows of a foreign table have no place here: name a partition_key"


def test_a_foreign_table_is_split_by_a_partition_key(tls_postgres: TlsServer) -> None:
    """On the system's server: PostgreSQL from pip comes without extensions."""
    name = unique_name("foreign")
    server = tls_postgres.server
    server.create_database(name)
    database = tls_postgres.database(name)
    if not database.fetch("select 1 from pg_available_extensions where name = 'postgres_fdw'"):
        pytest.skip("the system's PostgreSQL has no postgres_fdw")
    database.execute(
        f"""
        create extension postgres_fdw;
        create server far foreign data wrapper postgres_fdw
            options (host '{server.host}', port '{server.port}', dbname '{name}');
        create user mapping for etl server far options (user 'etl', password '{server.password}');
        grant usage on foreign server far to etl;
        """,
        superuser=True,
    )
    database.execute(
        "create table near (id int, v text); insert into near select n, 'v' || n from generate_series(1, 500) n;"
        "create foreign table t (id int, v text) server far options (schema_name 'public', table_name 'near')"
    )
    for key in ("id", "v"):
        with split(database, shards=3, partition_key=key) as divided:
            rows_once(divided.read_all(), database, "select id from near")


def test_a_partition_key_that_does_not_exist_is_an_error(numbers: Database) -> None:
    [finding] = check(numbers.config, stream_argument("t", partition_key="nope"))[1:]
    assert finding["level"] == "error"
    assert finding["message"] == "public.t has no such column: nope, named by partition_key"
    with pytest.raises(RapidbyteError, match="no such column: nope"), split(numbers, shards=2, partition_key="nope"):
        pass


def test_a_shard_whose_snapshot_is_gone_can_be_tried_again(numbers: Database) -> None:
    with split(numbers, shards=2) as divided:
        shard = divided.shards[0]
        numbers.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rapidbyte/shop/t'"
        )
        with pytest.raises(SourceError, match="holds the snapshot of all parts is gone") as caught:
            divided.read(shard)
    assert caught.value.kind is Kind.TRANSIENT_DB


def test_a_shard_that_is_none_is_refused(numbers: Database) -> None:
    with split(numbers, shards=2) as divided:
        for shard in ({}, {**divided.shards[0], "part": {"all": {}}}, 7):
            with pytest.raises(RapidbyteError) as caught:
                divided.read(shard)
            assert caught.value.kind is Kind.PROTOCOL
