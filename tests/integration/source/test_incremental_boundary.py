"""Rows that share the value where a read stopped: each arrives once, whenever it appears."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from typing import Any

import pytest

from rapidbyte_dagster.errors import Kind, SchemaError, SourceError
from tests.integration.source.reading import Increment, read_increment
from tests.postgres_server import Database
from tests.quick import every

SMALL = 64 * 1024
"""The least that a batch may be limited to, in bytes."""


def read_again(database: Database, previous: Increment, **stream: Any) -> Increment:
    """The next run, with a cursor that was kept as JSON."""
    return read_increment(database.config, "t", json.loads(json.dumps(previous.cursor)), **stream)


def test_rows_of_the_last_value_that_appear_later_arrive_once(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (id int primary key, at date not null, v text);
        insert into t values (10, '2024-01-01', 'a'), (20, '2024-01-02', 'b'), (30, '2024-01-02', 'c');
        """
    )
    first = read_increment(source_db.config, "t", cursor_field="at")
    assert first.column("id") == [10, 20, 30]
    source_db.execute("insert into t values (5, '2024-01-02', 'smaller'), (40, '2024-01-02', 'larger')")
    second = read_again(source_db, first, cursor_field="at")
    assert second.column("id") == [5, 40]
    source_db.execute("insert into t values (25, '2024-01-02', 'between'); update t set v = 'changed' where id = 20")
    third = read_again(source_db, second, cursor_field="at")
    assert third.column("id") == [25]
    assert third.cursor["seen"]["rows"] == 5
    fourth = read_again(source_db, third, cursor_field="at")
    assert (fourth.table.num_rows, fourth.cursor) == (0, third.cursor)
    source_db.execute("insert into t values (1, '2024-01-03', 'later')")
    assert read_again(source_db, fourth, cursor_field="at").cursor["seen"]["rows"] == 1


@pytest.mark.parametrize(
    ("columns", "stream", "form"),
    [
        ("id int, at date, primary key (id)", {}, "ranges"),
        ("id bigint, at date, primary key (id)", {"primary_key": ["id"]}, "ranges"),
        ("id int, at date", {"tie_breaker_field": "id"}, "ranges"),
        ("id int, at date", {"primary_key": ["id"]}, "hashes"),
        ("id int, tie text, at date, primary key (id)", {"tie_breaker_field": "tie"}, "ranges"),
        ("id int, at date", {}, "hashes"),
        ("id int, tags text[], at date", {}, "hashes"),
        ("id int, at date, primary key (at, id)", {}, "hashes"),
        ("id uuid, at date, primary key (id)", {}, "hashes"),
        ("id text, at date", {"tie_breaker_field": "id"}, "hashes"),
        ("id numeric, at date", {"tie_breaker_field": "id"}, "hashes"),
        ("id int, at date, primary key (id)", {"write_mode": "upsert"}, "hashes"),
        ("id int, at date", {"write_mode": "upsert", "primary_key": ["id"], "tie_breaker_field": "id"}, "hashes"),
    ],
)
def test_rows_are_told_apart_by_the_key_the_tie_breaker_or_all_they_have(
    source_db: Database, columns: str, stream: dict[str, Any], form: str
) -> None:
    source_db.execute(f"create table t ({columns})")
    kind = columns.split()[1].strip(",")
    expression = "lpad(n::text, 32, '0')::uuid" if kind == "uuid" else f"n::text::{kind}"
    previous = None
    for first, last in ((5, 8), (1, 4), (9, 12)):
        source_db.execute(
            f"insert into t (id, at) select {expression}, '2024-01-01' from generate_series({first}, {last}) n"
        )
        cursor = previous.cursor if previous else None
        got = read_increment(source_db.config, "t", cursor, cursor_field="at", **stream)
        expected = source_db.fetch(
            f"select id::text from t where id in (select {expression} from generate_series({first}, {last}) n)"
        )
        texts = [str(value) for value in got.table.column("id").to_pylist()]
        assert sorted(texts) == sorted(text for (text,) in expected)
        assert got.cursor["seen"]["form"] == form
        previous = got


def test_rows_that_nothing_tells_apart_are_counted(source_db: Database) -> None:
    source_db.execute("create table t (at date, v text); insert into t values ('2024-01-01', 'a'), ('2024-01-01', 'a')")
    first = read_increment(source_db.config, "t", cursor_field="at")
    assert first.column("v") == ["a", "a"]
    source_db.execute("insert into t select '2024-01-01', v from unnest(array['a', 'b', 'a', null]) v")
    second = read_again(source_db, first, cursor_field="at")
    assert sorted(map(str, second.column("v"))) == ["None", "a", "a", "b"]
    assert read_again(source_db, second, cursor_field="at").table.num_rows == 0


@pytest.mark.parametrize("twin", ["1", "null"])
@pytest.mark.parametrize("comes_later", [False, True])
def test_a_tie_breaker_that_tells_no_rows_apart_is_refused_before_one_of_them_is_lost(
    source_db: Database, twin: str, comes_later: bool
) -> None:
    stream: dict[str, Any] = {"cursor_field": "at", "tie_breaker_field": "n"}
    source_db.execute(f"create table t (at date, n int, v text); insert into t values ('2024-01-01', {twin}, 'a')")
    cursor = read_increment(source_db.config, "t", **stream).cursor if comes_later else None
    source_db.execute(f"insert into t values ('2024-01-01', {twin}, 'b')")
    with pytest.raises(SourceError, match="rows with the same at have the same n too") as caught:
        read_increment(source_db.config, "t", cursor, **stream)
    assert caught.value.kind is Kind.DATA
    source_db.execute("update t set at = '2024-01-02' where v = 'b'")
    assert read_increment(source_db.config, "t", cursor, **stream).column("v") == (["b"] if comes_later else ["a", "b"])


@pytest.mark.parametrize("kind", ["int", "text"])
@pytest.mark.parametrize("twin", ["1", "null"])
@pytest.mark.parametrize("late", ["a", "z"])
def test_rows_that_a_former_tie_breaker_did_not_tell_apart_are_refused_before_one_of_them_is_lost(
    source_db: Database, kind: str, twin: str, late: str
) -> None:
    source_db.execute(f"create table t (at date, n {kind}, v text); insert into t values ('2024-01-01', {twin}, 'm')")
    first = read_increment(source_db.config, "t", cursor_field="at", tie_breaker_field="n")
    source_db.execute(f"insert into t values ('2024-01-01', {twin}, '{late}'); create index on t (at, v)")
    with pytest.raises(
        SourceError, match="have the same n too, by which those that were sent were remembered"
    ) as caught:
        read_again(source_db, first, cursor_field="at")
    assert caught.value.kind is Kind.DATA
    assert "--full-refresh" in str(caught.value.info.hint)
    source_db.execute(f"update t set at = '2024-01-02' where v = '{late}'")
    assert read_again(source_db, first, cursor_field="at").column("v") == [late]


def test_rows_that_are_alike_in_all_that_is_read_leave_no_doubt_when_the_order_of_columns_changes(
    source_db: Database,
) -> None:
    source_db.execute("create table t (at date, v text); insert into t values ('2024-01-01', 'a')")
    first = read_increment(source_db.config, "t", cursor_field="at", columns=["at", "v"])
    source_db.execute("insert into t values ('2024-01-01', 'a')")
    second = read_again(source_db, first, cursor_field="at", columns=["v", "at"])
    assert second.column("v") == ["a"]
    assert read_again(source_db, second, cursor_field="at", columns=["v", "at"]).table.num_rows == 0


def test_a_key_counts_more_than_a_tie_breaker_that_tells_nothing_apart(source_db: Database) -> None:
    source_db.execute("create table t (id int primary key, at date, n int); insert into t values (1, '2024-01-01', 1)")
    stream: dict[str, Any] = {"cursor_field": "at", "tie_breaker_field": "n"}
    first = read_increment(source_db.config, "t", **stream)
    source_db.execute("insert into t values (2, '2024-01-01', 1)")
    assert read_increment(source_db.config, "t", first.cursor, **stream).column("id") == [2]


def test_an_array_of_another_shape_does_not_bring_rows_again(source_db: Database) -> None:
    source_db.execute("create table t (at date, v int[]); insert into t values ('2024-01-01', '{1,2}')")
    first = read_increment(source_db.config, "t", cursor_field="at")
    source_db.execute("insert into t values ('2024-01-01', '{{1,2},{3,4}}')")
    second = read_again(source_db, first, cursor_field="at")
    assert second.column("v") == ["{{1,2},{3,4}}"]
    stream: dict[str, Any] = {"cursor_field": "at", "tie_breaker_field": "v"}
    assert read_again(source_db, second, **stream).table.num_rows == 0
    first = read_increment(source_db.config, "t", filter="v = '{1,2}'", **stream)
    assert read_again(source_db, first, **stream).column("v") == ["{{1,2},{3,4}}"]
    # A key that is no array leaves them as they are.
    source_db.execute("alter table t add id int; update t set v = '{1}', id = cardinality(v)")
    got = read_increment(source_db.config, "t", cursor_field="at", tie_breaker_field="id")
    assert got.column("v") == [[1], [1]]


def test_an_upsert_reads_changed_rows_of_the_last_value_again(source_db: Database) -> None:
    source_db.execute(
        "create table t (id int primary key, at date, v text);"
        "insert into t select n, '2024-01-01', 'old' from generate_series(1, 5) n"
    )
    first = read_increment(source_db.config, "t", cursor_field="at", write_mode="upsert")
    assert first.table.num_rows == 5
    source_db.execute("update t set v = 'new' where id = 3; delete from t where id = 4")
    second = read_again(source_db, first, cursor_field="at", write_mode="upsert")
    assert (second.column("id"), second.column("v")) == ([3], ["new"])
    assert read_again(source_db, second, cursor_field="at", write_mode="upsert").table.num_rows == 0


def fill(database: Database, generator: random.Random, rows: int, values: int) -> None:
    """Rows of about 9 KB, several for each cursor value: seven or so fill a batch."""
    with database.connect() as connection:
        for _ in range(rows):
            connection.execute(
                "insert into t values (%s, %s, repeat(%s, 9000))",
                [generator.randrange(values), generator.randrange(1000), generator.choice("abc")],
            )


SEED = os.environ.get("RAPIDBYTE_TEST_SEED") or str(random.SystemRandom().randrange(10**6))


@pytest.mark.parametrize(
    ("keys", "stream"),
    every(
        3,
        [
            ("id serial primary key", {}),
            ("id serial", {"tie_breaker_field": "id"}),
            ("id uuid default gen_random_uuid() primary key", {}),
            ("id serial, k int default random() * 3, primary key (k, id)", {"filter": "n <> 7"}),
            ("k int default 1", {}),
            ("id serial primary key", {"write_mode": "upsert"}),
        ],
    ),
)
def test_going_on_from_any_barrier_brings_exactly_the_rest(
    source_db: Database, keys: str, stream: dict[str, Any]
) -> None:
    generator = random.Random(f"{SEED} {keys}")
    source_db.execute(f"create table t (at int, n int, filler text, {keys})")
    stream = {"cursor_field": "at", "max_batch_bytes": SMALL, **stream}
    fill(source_db, generator, 60, 4)
    first = read_increment(source_db.config, "t", **stream)
    delivered = rows_of(first)
    assert len(first.cursors) > 5
    fill(source_db, generator, 20, 6)
    now = rows_of(read_increment(source_db.config, "t", **stream))
    assert len(now) - len(delivered) == source_db.fetch_value(
        "select count(*) - %s from t where n <> 7 or %s", [len(delivered), "filter" not in stream]
    )
    for count, cursor in first.cursors:
        # What appeared behind the barrier's value has come too late for it.
        expected = Counter(row for row in delivered[:count] if row[0] < int(cursor["value"]))
        expected += Counter(row for row in now if row[0] >= int(cursor["value"]))
        rest = read_increment(source_db.config, "t", cursor, **stream)
        assert Counter(delivered[:count]) + Counter(rows_of(rest)) == expected, (SEED, count, cursor)
        for more, later in rest.cursors[:: max(1, len(rest.cursors) // 3)]:
            got = Counter(delivered[:count]) + Counter(rows_of(rest)[:more])
            assert got + Counter(rows_of(read_increment(source_db.config, "t", later, **stream))) == expected, (
                SEED,
                more,
            )


def rows_of(increment: Increment) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in increment.table.to_pylist()]


def test_a_new_way_to_tell_rows_apart_takes_up_what_the_old_one_remembered(source_db: Database) -> None:
    source_db.execute(
        "create table t (at int, id int, name text, filler text);"
        "insert into t select 1, n, 'x' || n, repeat('x', 9000) from generate_series(1, 30) n"
    )
    columns = ["at", "id", "name"]
    first = read_increment(source_db.config, "t", cursor_field="at", columns=columns)
    source_db.execute("insert into t select 1, n, 'x' || n, repeat('x', 9000) from generate_series(31, 60) n")
    # All columns instead of three; no barrier may stand among rows that are not all known by the new way.
    second = read_again(source_db, first, cursor_field="at", max_batch_bytes=SMALL)
    assert (sorted(second.column("id")), len(second.cursors)) == (list(range(31, 61)), 1)
    assert second.cursor["seen"]["by"] == ["at", "id", "name", "filler"]
    source_db.execute("insert into t values (1, 61, 'late', '')")
    third = read_again(source_db, second, cursor_field="at", tie_breaker_field="id")
    assert third.column("id") == [61]
    source_db.execute("insert into t values (1, 0, 'later', '')")
    fourth = read_again(source_db, third, cursor_field="at", tie_breaker_field="id")
    assert fourth.column("id") == [0]
    with pytest.raises(SchemaError, match="remembered by id") as caught:
        read_again(source_db, fourth, cursor_field="at", columns=["at", "name"])
    assert "rapidbyte state reset FILE --stream t" in str(caught.value.info.hint)
    upserted = read_again(
        source_db, fourth, cursor_field="at", columns=["at", "name"], primary_key=["name"], write_mode="upsert"
    )
    assert upserted.table.num_rows == 62


def test_what_an_upsert_did_not_remember_is_not_appended_again(source_db: Database) -> None:
    source_db.execute("create table t (id int primary key, at date); insert into t values (1, '2024-01-01')")
    stream: dict[str, Any] = {"cursor_field": "at"}
    first = read_increment(source_db.config, "t", write_mode="upsert", cursor_lag=60, **stream)
    with pytest.raises(SchemaError, match="does not tell which rows of its value were sent"):
        read_again(source_db, first, **stream)


def test_any_number_of_neighbouring_ids_fits_into_a_cursor(source_db: Database) -> None:
    source_db.execute(
        "create table t (id int primary key, at date not null);"
        "insert into t select n, '2024-01-01' from generate_series(1, 300000) n order by random()"
    )
    first = read_increment(source_db.config, "t", cursor_field="at", max_batch_bytes=1 << 20)
    assert first.table.num_rows == 300_000
    assert max(len(cursor["seen"]["set"]) for _, cursor in first.cursors) < 10
    source_db.execute("insert into t values (0, '2024-01-01'), (300001, '2024-01-01')")
    assert read_again(source_db, first, cursor_field="at").column("id") == [0, 300001]


def test_more_rows_of_one_value_than_can_be_remembered(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (id uuid primary key, at date not null);
        insert into t select gen_random_uuid(), '2024-01-01' from generate_series(1, 5);
        insert into t select gen_random_uuid(), '2024-01-02' from generate_series(1, 120000);
        """
    )
    stream: dict[str, Any] = {"cursor_field": "at", "max_batch_bytes": SMALL}
    # The rows are read again where that does no harm.
    first = read_increment(source_db.config, "t", write_mode="upsert", **stream)
    assert (first.cursor["value"], first.cursor["seen"]) == ("2024-01-02", None)
    assert read_again(source_db, first, write_mode="upsert", **stream).table.num_rows == 120_000
    # And the read fails where they would be repeated.
    with pytest.raises(SourceError, match="more rows share the value 2024-01-02 of cursor at") as caught:
        read_increment(source_db.config, "t", **stream)
    assert caught.value.kind is Kind.DATA
    assert "tie_breaker_field" in str(caught.value.info.hint)
    # Unless it goes on behind them: then there is no barrier among them.
    source_db.execute("insert into t select gen_random_uuid(), '2024-01-03' from generate_series(1, 5)")
    got = read_increment(source_db.config, "t", **stream)
    assert got.table.num_rows == 120_010
    assert all(cursor["seen"]["rows"] < 99_000 for _, cursor in got.cursors)
    assert all(len(cursor["seen"]["set"]) <= 1024 * 1024 for _, cursor in got.cursors)
    assert max(b - a for (a, _), (b, _) in zip(got.cursors, got.cursors[1:], strict=False)) > 20_000


def test_a_lag_reads_its_window_again_and_never_moves_back(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (id int primary key, at timestamptz, filler text default repeat('x', 9000));
        insert into t select n, '2024-01-01 00:00+00'::timestamptz + n * interval '1 min' from generate_series(1, 60) n;
        """
    )
    stream: dict[str, Any] = {"cursor_field": "at", "cursor_lag": 600, "write_mode": "upsert", "max_batch_bytes": SMALL}
    first = read_increment(source_db.config, "t", **stream)
    assert (first.table.num_rows, first.cursor["value"]) == (60, "2024-01-01 01:00:00+00")
    assert first.cursor["seen"] is None
    second = read_again(source_db, first, **stream)
    assert second.column("id") == list(range(50, 61))
    assert [cursor for _, cursor in second.cursors] == [first.cursor] * len(second.cursors)
    source_db.execute(
        "insert into t (id, at) select n, '2024-01-01 01:00+00'::timestamptz + (n - 60) * interval '1 min'"
        " from generate_series(61, 90) n; delete from t where id = 60"
    )
    third = read_again(source_db, second, **stream)
    assert third.column("id") == [*range(50, 60), *range(61, 91)]
    assert third.cursor["value"] == "2024-01-01 01:30:00+00"
    assert third.cursors[0] == (6, first.cursor)
    for rows, cursor in third.cursors:
        assert cursor == first.cursor if rows <= 10 else cursor["value"] > first.cursor["value"]
    source_db.execute("delete from t where id > 55")
    assert read_again(source_db, third, **stream).cursor == third.cursor
    dates: dict[str, Any] = {"cursor_field": "d", "cursor_lag": 90000, "write_mode": "upsert"}
    source_db.execute("alter table t add d date; update t set d = date '2024-01-01' + id")
    read = read_increment(source_db.config, "t", **dates)
    assert read_again(source_db, read, **dates).column("id") == [54, 55]


def test_an_upsert_does_not_take_up_what_an_append_remembered_by_key(source_db: Database) -> None:
    source_db.execute("create table t (id int primary key, at int, v text); insert into t values (1, 5, 'a')")
    appended = read_increment(source_db.config, "t", cursor_field="at")
    source_db.execute("update t set v = 'b'")
    upserted = read_again(source_db, appended, cursor_field="at", write_mode="upsert")
    assert upserted.column("v") == ["b"]
    assert read_again(source_db, upserted, cursor_field="at", write_mode="upsert").table.num_rows == 0


@pytest.mark.parametrize("named", [{}, {"tie_breaker_field": "tags"}, {"primary_key": ["tags"]}])
def test_an_array_in_the_key_is_known_again_whatever_arrays_other_rows_have(
    source_db: Database, named: dict[str, Any]
) -> None:
    source_db.execute("create table t (tags int[] primary key, at int); insert into t values ('{1}', 5), ('{2}', 5)")
    first = read_increment(source_db.config, "t", cursor_field="at", **named)
    source_db.execute("insert into t values ('{{3},{4}}', 5)")
    assert read_again(source_db, first, cursor_field="at", **named).column("tags") == ["{{3},{4}}"]


def test_rows_of_tables_that_inherit_are_not_told_apart_by_the_key_of_their_parent(source_db: Database) -> None:
    source_db.execute(
        "create table t (id int primary key, at int); create table heir () inherits (t); insert into t values (1, 5)"
    )
    first = read_increment(source_db.config, "t", cursor_field="at")
    source_db.execute("insert into heir values (1, 5)")
    again = read_again(source_db, first, cursor_field="at")
    assert again.column("id") == [1]
    assert b"rapidbyte:primary_key" not in (again.table.schema.metadata or {})
