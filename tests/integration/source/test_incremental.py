"""What an incremental read takes up from its cursor: every type of cursor, whatever a session is set to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.integration.source.reading import read_increment
from tests.postgres_server import Database, unique_name
from tests.quick import every


@dataclass(frozen=True)
class CursorType:
    type: str
    family: str
    literals: list[str]
    """In ascending order, each another value."""
    canonical: str = "v::text"
    """SQL of the text that PostgreSQL itself prints for a value."""

    def __str__(self) -> str:
        return self.type


DATES = ["-infinity", "4714-11-24 BC", "0044-03-15 BC", "0001-12-31 BC", "0001-01-01", "1899-12-31", "1970-01-01"]
DATES += ["1999-12-31", "2000-01-01", "2000-02-29", "2024-11-22", "9999-12-31", "10000-01-01"]
TIMES = ["-infinity", "4714-11-24 00:00:00 BC", "0044-03-15 12:00:00.5 BC", "0001-01-01 00:00:00"]
TIMES += ["1969-12-31 23:59:59.999999", "1999-12-31 23:59:59.999999", "2000-01-01 00:00:00"]
TIMES += ["2024-03-31 01:59:59.000001", "2024-03-31 02:30:00", "2024-10-27 02:30:00", "2024-10-27 02:30:00.000001"]
TIMES += ["9999-12-31 23:59:59", "12345-06-07 08:09:10.11", "294276-12-31 23:59:59.999999"]
NUMBERS = ["-99999999.9999", "-1.0001", "-1", "-0.0001", "0", "0.0001", "0.1", "1", "1.0001", "9.9999", "10", "100"]
NUMBERS += ["9999", "10000", "10000.0001", "12340000", "99999999.9999"]
HUGE = ["-Infinity", "-" + "9" * 131072 + "." + "9" * 16383, "-" + "1" * 40 + ".5", *NUMBERS, "1" + "0" * 100]
HUGE += ["1" + "0" * 100 + "." + "0" * 300 + "1", "9" * 131072 + "." + "9" * 16383]
TEXTS = ["", " ", "'", "''", "\\", "\\'; drop table t; --", "a", "A\tb", "a\nb", "%", "🌍", "é", "e\u0301", "z" * 3000]
TRIMMED = "trim_scale(v)::text"

CURSOR_TYPES = [
    CursorType("smallint", "integer", ["-32768", "-1", "0", "1", "32767"]),
    CursorType("integer", "integer", ["-2147483648", "-1", "0", "1", "2147483647"]),
    CursorType("bigint", "integer", ["-9223372036854775808", "-1", "0", "9007199254740993", "9223372036854775807"]),
    CursorType("numeric(12,4)", "numeric", NUMBERS, TRIMMED),
    CursorType("numeric(60,10)", "numeric", [NUMBERS[0], "0", "1" + "0" * 49, "1" + "0" * 48 + "1.5"], TRIMMED),
    CursorType("numeric(3,5)", "numeric", ["-0.00999", "0", "0.00001"], TRIMMED),
    CursorType("numeric(2,-3)", "numeric", ["-99000", "0", "1000", "99000"], TRIMMED),
    CursorType("numeric", "numeric", HUGE, TRIMMED),
    CursorType("text", "text", TEXTS),
    CursorType("varchar(3000)", "text", TEXTS),
    CursorType('text collate "C"', "text", TEXTS),
    CursorType("char(8)", "char", ["", "'", "\\", " a", "a b", "a", "b\t", "z"], "rtrim(v::text)"),
    CursorType(
        "uuid",
        "uuid",
        [
            "00000000-0000-0000-0000-000000000000",
            "0190163d-8694-739b-aea5-966c26f8ad90",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ],
    ),
    CursorType("date", "date", [*DATES, "5874897-12-31"]),
    CursorType("timestamp", "timestamp", TIMES),
    CursorType("timestamp(0)", "timestamp", ["2024-01-01 00:00:00", "2024-01-01 00:00:01"]),
    CursorType("timestamptz", "timestamptz", [text.replace(" BC", "+00 BC") for text in TIMES]),
]


@pytest.mark.parametrize("case", every(3, CURSOR_TYPES), ids=str)
def test_a_read_goes_on_from_exactly_the_value_where_it_stopped(source_db: Database, case: CursorType) -> None:
    source_db.execute(f"create table t (id int primary key, v {case.type} not null)")
    with source_db.connect() as connection:
        base = case.type.split(" collate")[0]
        for number, literal in enumerate(case.literals):
            connection.execute(f"insert into t values (%s, %s::{base})".encode(), [number, literal])
    # In the server's order: that of text is the collation's.
    ordered = source_db.fetch(f"select id, {case.canonical} from t order by t.v")
    assert len(ordered) == len(case.literals)
    cursor = None
    there: set[int] = set()
    for number, value in ordered:
        there.add(number)
        some = f"id = any('{there}'::int[])"
        got = read_increment(source_db.config, "t", cursor, cursor_field="v", filter=some)
        assert got.column("id") == [number], value
        assert got.warnings == []
        cursor = json.loads(json.dumps(got.cursor))
        assert (cursor["field"], cursor["type"], cursor["value"]) == ("v", case.family, value)
        again = read_increment(source_db.config, "t", cursor, cursor_field="v", filter=some)
        assert (again.table.num_rows, again.cursor) == (0, cursor)
    whole = read_increment(source_db.config, "t", cursor_field="v")
    assert whole.column("id") == [number for number, _ in ordered]


def test_equal_values_that_look_different_are_one_cursor(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (id int primary key, n numeric, m numeric(8,3), c char(5), v varchar(9));
        insert into t values (1, 1.0, 1, 'a', 'a'), (2, 1.00, 1, 'a ', 'b');
        """
    )
    for field, value in (("n", "1"), ("m", "1"), ("c", "a")):
        first = read_increment(source_db.config, "t", cursor_field=field, filter="id = 1")
        assert first.cursor["value"] == value
        second = read_increment(source_db.config, "t", first.cursor, cursor_field=field)
        assert second.column("id") == [2]
        assert second.cursor["seen"]["rows"] == 2
        assert read_increment(source_db.config, "t", second.cursor, cursor_field=field).table.num_rows == 0
    source_db.execute("alter table t alter n type numeric(20,10), alter v type varchar(99), alter c type char(9)")
    cursor = read_increment(source_db.config, "t", cursor_field="n").cursor
    source_db.execute("alter table t alter n type numeric; insert into t values (3, 1.000, 1, '', '')")
    assert read_increment(source_db.config, "t", cursor, cursor_field="n").column("id") == [3]


SETTINGS = (
    {"TimeZone": "America/St_Johns", "DateStyle": "German, DMY", "IntervalStyle": "iso_8601"},
    {"TimeZone": "Asia/Kathmandu", "DateStyle": "SQL, MDY", "standard_conforming_strings": "off"},
    {"TimeZone": "<+07>-07", "DateStyle": "Postgres, YMD", "extra_float_digits": "-15", "backslash_quote": "off"},
)


def test_settings_of_role_and_server_do_not_move_a_cursor(own_postgres: EmbeddedPostgres) -> None:
    name = unique_name("settings")
    own_postgres.create_database(name)
    database = Database(own_postgres, name)
    database.execute(
        """
        create table t (id int primary key, z timestamptz, p timestamp, d date, n numeric(9,2), s text);
        insert into t select n, '2024-03-31 00:59:59.999999+00'::timestamptz + n * interval '1 s',
            '2024-03-31 01:59:59.5'::timestamp + n * interval '1 s', date '2024-01-31' + n,
            n / 4.0, chr(92) || '''' || n
        from generate_series(1, 7) n;
        """
    )
    fields = ("z", "p", "d", "n", "s")
    cursors: dict[str, Any] = dict.fromkeys(fields)
    for number in range(1, 8):
        chosen = SETTINGS[number % len(SETTINGS)]
        for setting, value in chosen.items():
            if number < 4:
                database.execute(f"alter role etl set {setting} to '{value}'", superuser=True)
            else:
                database.execute("alter role etl reset all", superuser=True)
                database.execute(f"alter system set {setting} to '{value}'", superuser=True)
        database.execute("select pg_reload_conf()", superuser=True)
        for field in fields:
            got = read_increment(
                database.config, "t", cursors[field], cursor_field=field, filter=f"id <= {number}", write_mode="upsert"
            )
            assert got.column("id") == [number], (field, chosen)
            cursors[field] = got.cursor
    assert [cursor["value"] for cursor in cursors.values()] == [
        "2024-03-31 01:00:06.999999+00",
        "2024-03-31 02:00:06.5",
        "2024-02-07",
        "1.75",
        "\\'7",
    ]


def test_rows_without_a_place_in_the_order_are_counted_and_never_read(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (id int primary key, at timestamptz, n numeric, m numeric(4,1) not null, d date, i int);
        insert into t values (1, '-infinity', '-Infinity', 1, '-infinity', 1), (2, 'infinity', 'NaN', 'NaN', null, 2),
                             (3, null, 'Infinity', 3, 'infinity', null), (4, '2024-01-01', 5, 4, '2024-01-01', 4);
        """
    )
    excluded = {
        "at": ([1, 4], "2 rows are not read: their at is NULL or infinity"),
        "n": ([1, 4], "2 rows are not read: their n is NaN or infinity"),
        "m": ([1, 3, 4], "1 rows are not read: their m is NaN or infinity"),
        "d": ([1, 4], "2 rows are not read: their d is NULL or infinity"),
        "i": ([1, 2, 4], "1 rows are not read: their i is NULL"),
    }
    for field, (ids, warning) in excluded.items():
        first = read_increment(source_db.config, "t", cursor_field=field)
        assert first.column("id") == ids
        assert [warning in text for text in first.warnings] == [True]
        later = read_increment(source_db.config, "t", first.cursor, cursor_field=field)
        assert (later.table.num_rows, later.cursor, later.warnings) == (0, first.cursor, first.warnings)
        none = read_increment(source_db.config, "t", cursor_field=field, filter=f"id not in ({str(ids)[1:-1]})")
        assert (none.table.num_rows, none.cursor) == (0, None)


def test_the_filter_counts_for_rows_without_a_cursor_too(source_db: Database) -> None:
    source_db.execute("create table t (id int primary key, at date); insert into t values (1, null), (2, '2024-01-01')")
    got = read_increment(source_db.config, "t", cursor_field="at", filter="id > 1 or false -- all but the first")
    assert (got.column("id"), got.warnings) == ([2], [])


def test_an_empty_table_has_no_cursor_and_keeps_an_old_one(source_db: Database) -> None:
    source_db.execute("create table t (id int primary key, at date not null); insert into t values (1, '2024-01-01')")
    cursor = read_increment(source_db.config, "t", cursor_field="at").cursor
    source_db.execute("truncate t")
    assert read_increment(source_db.config, "t", cursor_field="at").cursors == [(0, None)]
    assert read_increment(source_db.config, "t", cursor, cursor_field="at").cursors == [(0, cursor)]
    # Rows behind the cursor are no news.
    source_db.execute("insert into t values (2, '2023-12-31')")
    assert read_increment(source_db.config, "t", cursor, cursor_field="at").cursors == [(0, cursor)]


def test_rows_come_in_the_order_of_their_values_where_they_cross_as_text(source_db: Database) -> None:
    source_db.execute(
        "create table t (id int primary key, n numeric);"
        "insert into t select row_number() over (), n from unnest(array[10, 9, 100, 2.50, -3, 1e20]::numeric[]) n"
    )
    got = read_increment(source_db.config, "t", cursor_field="n")
    assert got.column("n") == ["-3", "2.50", "9", "10", "100", "100000000000000000000"]


def test_only_the_named_columns_and_the_new_rows_are_asked_for(own_postgres: EmbeddedPostgres) -> None:
    name = unique_name("projection")
    own_postgres.create_database(name)
    database = Database(own_postgres, name)
    database.execute("alter role etl set log_statement to 'all'", superuser=True)
    database.execute(
        '''
        create table t (id int, secret text, at timestamptz not null, "Full ""Name""" text, tenant int,
                        primary key (tenant, id));
        insert into t values (1, 'hidden', '2024-01-01 00:00+00', 'Ann', 7);
        '''
    )
    columns = ['Full "Name"', "at", "id", "tenant"]
    stream: dict[str, Any] = {"columns": columns, "cursor_field": "at", "filter": "secret <> 'x'"}
    got = read_increment(database.config, "t", **stream)
    assert got.table.schema.names == columns
    read_increment(database.config, "t", got.cursor, **stream)
    # The log indents a statement's later lines.
    copies = own_postgres.log.read_text().replace("\n\t", "\n").split("COPY (\n")[1:]
    selected = 'SELECT "Full ""Name""", "at", "id", "tenant"\nFROM "public"."t"\nWHERE (\nsecret <> \'x\'\n)\n'
    column = '"public"."t"."at"'
    since = f"AND {column} OPERATOR(pg_catalog.>=) '2024-01-01 00:00:00+00'::pg_catalog.timestamptz\n"
    end = f"AND {column} OPERATOR(pg_catalog.<) 'infinity'::pg_catalog.timestamptz\nORDER BY {column}\n"
    assert [copy.split(") TO STDOUT")[0] for copy in copies] == [f"{selected}{end}", f"{selected}{since}{end}"]
