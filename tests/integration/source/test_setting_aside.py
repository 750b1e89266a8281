"""Rows that cannot be read because of what is in them: they fail the read, are counted, or are told as dead letters."""

from __future__ import annotations

from typing import Any

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.integration.source.reading import (
    Collected,
    Increment,
    open_argument,
    open_source,
    read_increment,
    read_stream,
    stream_argument,
)
from tests.postgres_server import Database, MakeDatabase
from tests.quick import few

ROWS = 10_000
BAD = 5_000
CAFE = r"'\x636166e9'::bytea"
"""The text `café` in Latin-1."""

MEGABYTE = 1024 * 1024
SMALL_MEMORY = 64 * MEGABYTE


@pytest.fixture
def ascii_db(make_database: MakeDatabase) -> Database:
    """A database that takes any bytes for text."""
    return make_database("ascii", encoding="SQL_ASCII")


@pytest.fixture
def notes(ascii_db: Database) -> Database:
    """10,000 rows, one of them with bytes that are not UTF-8."""
    ascii_db.execute(
        f"""
        create table notes (id int primary key, at timestamp not null, note text, tags text[], price numeric(12,2));
        insert into notes
        select n, timestamp '2024-01-01' + n / 10 * interval '1 s',
            case when n = {BAD} then convert_from({CAFE}, 'SQL_ASCII') else 'naïve ' || n end, '{{x,é}}', n / 100.0
        from generate_series(1, {ROWS}) n
        """
    )
    return ascii_db


WITHOUT_BAD = [n for n in range(1, ROWS + 1) if n != BAD]
THE_LETTER = {
    "record": {
        "id": BAD,
        "at": "2024-01-01 00:08:20",
        "note": r"\x636166e9",
        "tags": "{x,é}",
        "price": "50.00",
    },
    "types": {
        "id": "integer",
        "at": "timestamp without time zone",
        "note": "bytea",
        "tags": "text[]",
        "price": "numeric(12,2)",
    },
    "message": "column note (text) holds bytes that are not UTF-8: 0xe9 at byte 4",
    "category": "invalid_text",
    "sqlstate": "22021",
    "column": "note",
}


def test_a_text_that_is_not_utf8_is_told_as_its_bytes_and_the_other_rows_are_read(notes: Database) -> None:
    host = Collected()
    read = read_stream(notes.config, "notes", host=host, on_data_error="dlq")
    assert read.column("id") == WITHOUT_BAD
    assert read.column("note")[0] == "naïve 1"
    assert host.told == [THE_LETTER]
    assert host.rejected == 0, "the letter tells of it"
    assert host.warnings == []


def test_a_row_that_is_skipped_is_counted_and_warned_of_once(notes: Database) -> None:
    notes.execute(f"update notes set tags = array[convert_from({CAFE}, 'SQL_ASCII')] where id in (1, 2)")
    host = Collected()
    read = read_stream(notes.config, "notes", host=host, on_data_error="skip")
    assert read.rows == ROWS - 3
    assert (host.rejected, host.told) == (3, [])
    [warning] = host.warnings
    assert warning.startswith(
        "reading public.notes: 3 rows were left out because of what is in them; of the first, column"
    )


def test_a_row_that_must_not_be_left_out_fails_the_read_and_is_named(notes: Database) -> None:
    host = Collected()
    with pytest.raises(RapidbyteError) as caught:
        read_stream(notes.config, "notes", host=host, on_data_error="fail")
    error = caught.value
    assert (error.kind, error.info.sqlstate) == (Kind.DATA, "22021")
    assert error.info.message == f"reading public.notes: {THE_LETTER['message']}"
    assert error.info.detail == f"the row with id {BAD}"
    assert "mend the row" in (error.hint or "")
    assert (host.barriers, host.told) == ([], [])


@pytest.mark.parametrize("write_mode", ["append", "upsert"])
@pytest.mark.parametrize("on_data_error", ["skip", "dlq"])
@pytest.mark.parametrize("max_batch_rows", few([7, None]))
def test_an_incremental_read_goes_on_behind_a_row_that_is_set_aside(
    notes: Database, write_mode: str, on_data_error: str, max_batch_rows: int | None
) -> None:
    host = Collected()

    def read(cursor: Any = None) -> Increment:
        return read_increment(
            notes.config,
            "notes",
            cursor,
            host=host,
            cursor_field="at",
            write_mode=write_mode,
            on_data_error=on_data_error,
            max_batch_rows=max_batch_rows,
        )

    first = read()
    assert first.column("id") == WITHOUT_BAD
    counts = (host.rejected, len(host.told))
    assert counts == ((1, 0) if on_data_error == "skip" else (0, 1))
    if on_data_error == "dlq":
        # It comes before the barrier that covers it.
        [(barriers, letter)] = host.letters
        before = max((rows for rows, _ in first.cursors[:barriers]), default=0)
        assert letter == THE_LETTER
        assert before < BAD <= first.cursors[barriers][0] + 1
    # From each cursor on, exactly the rows behind it are read: none is lost with the bad one, nor does that come again.
    for rows, cursor in [*first.cursors[BAD // 7 - 2 : BAD // 7 + 2], first.cursors[-1]]:
        host = Collected()
        again = read(cursor)
        assert again.column("id") == WITHOUT_BAD[rows:]
        if rows != BAD - 1:
            assert host.rejected + len(host.told) == (1 if rows < BAD - 1 else 0)


@pytest.mark.parametrize("write_mode", ["append", "upsert"])
def test_the_last_row_is_set_aside_once(notes: Database, write_mode: str) -> None:
    """Its value of the cursor is the stream's then, and it is among the rows of that value that need no reading."""
    settings: dict[str, Any] = {"cursor_field": "at", "write_mode": write_mode, "on_data_error": "dlq"}
    notes.execute(f"delete from notes where id <> {BAD}")
    host = Collected()
    cursor = read_increment(notes.config, "notes", host=host, **settings).cursor
    assert (cursor["value"], cursor["seen"]["rows"]) == ("2024-01-01 00:08:20", 1)
    assert host.told == [THE_LETTER]
    notes.execute(f"insert into notes select id + 1, at, 'beside it', tags, price from notes where id = {BAD}")
    host = Collected()
    again = read_increment(notes.config, "notes", cursor, host=host, **settings)
    assert (again.column("id"), host.told) == ([BAD + 1], [])
    # A row that was mended is another one to an upsert; an append has to be told by the cursor.
    notes.execute(f"update notes set note = 'mended' where id = {BAD}")
    mended = read_increment(notes.config, "notes", again.cursor, host=Collected(), **settings)
    assert mended.column("note") == (["mended"] if write_mode == "upsert" else [])


@pytest.mark.parametrize("on_data_error", ["skip", "dlq"])
@pytest.mark.parametrize("max_batch_rows", [1, None])
def test_a_row_that_a_lag_reads_again_is_told_once(
    notes: Database, on_data_error: str, max_batch_rows: int | None
) -> None:
    """For as long as the lag reaches back to it, and whether the cursor moves in the meantime or not."""
    notes.execute(f"delete from notes where id not between {BAD} - 20 and {BAD} + 20")
    notes.execute(f"update notes set note = convert_from({CAFE}, 'SQL_ASCII') where id = {BAD} + 11")

    def read(cursor: Any) -> tuple[Increment, int]:
        host = Collected()
        settings: dict[str, Any] = {"cursor_field": "at", "cursor_lag": 2, "write_mode": "upsert"}
        increment = read_increment(
            notes.config,
            "notes",
            cursor,
            host=host,
            on_data_error=on_data_error,
            max_batch_rows=max_batch_rows,
            **settings,
        )
        return increment, host.rejected + len(host.told)

    first, told = read(None)
    assert (first.table.num_rows, told) == (39, 2)
    # The last rows are of 00:08:22, so that the lag begins with the bad row itself.
    second, told = read(first.cursor)
    assert (second.table.num_rows, told, second.cursor) == (19, 0, first.cursor)
    for _, cursor in second.cursors:
        assert read(cursor)[1] == 0
    # One of its kind beside it, a mended one, and one that is bad in another way.
    notes.execute(
        f"""
        insert into notes select {BAD} + 30, at, note, tags, price from notes where id = {BAD};
        update notes set note = 'mended' where id = {BAD} + 11;
        """
    )
    third, told = read(second.cursor)
    assert (third.table.num_rows, told) == (20, 1)
    assert (third.cursor["value"], third.cursor["aside"] != second.cursor["aside"]) == (second.cursor["value"], True)
    assert read(third.cursor)[1] == 0
    # A second later the lag reaches neither of them any more.
    notes.execute(
        f"insert into notes select {BAD} + 31, timestamp '2024-01-01 00:08:23', 'new', tags, price from notes limit 1"
    )
    fourth, told = read(third.cursor)
    assert (fourth.table.num_rows, told, fourth.cursor.get("aside")) == (21, 0, None)
    assert read(fourth.cursor)[0].table.num_rows == 12


def test_rows_that_are_all_set_aside_have_their_barriers_too(notes: Database) -> None:
    notes.execute(f"update notes set note = convert_from({CAFE}, 'SQL_ASCII')")
    host = Collected()
    settings: dict[str, Any] = {"cursor_field": "at", "write_mode": "append", "on_data_error": "skip"}
    read = read_increment(notes.config, "notes", host=host, max_batch_rows=1000, **settings)
    assert read.table.num_rows == 0
    assert host.rejected == ROWS
    assert len(read.cursors) == 11
    assert max(payload.get("rejected", 0) for _, payload in host.barriers) == 1000


def test_a_cursor_that_is_not_text_is_an_error_whatever_the_policy(notes: Database) -> None:
    settings: dict[str, Any] = {"cursor_field": "note", "write_mode": "append", "on_data_error": "dlq"}
    with pytest.raises(RapidbyteError, match="cursor_field note holds bytes that are not UTF-8") as caught:
        read_increment(notes.config, "notes", host=Collected(), **settings)
    assert caught.value.kind is Kind.DATA


def test_a_tie_breaker_that_is_not_text_tells_rows_apart_all_the_same(notes: Database) -> None:
    notes.execute("alter table notes drop constraint notes_pkey")
    settings: dict[str, Any] = {
        "cursor_field": "at",
        "tie_breaker_field": "note",
        "write_mode": "append",
        "on_data_error": "dlq",
    }
    host = Collected()
    first = read_increment(notes.config, "notes", host=host, filter=f"id <= {BAD}", **settings)
    assert (first.table.num_rows, len(host.told)) == (BAD - 1, 1)
    host = Collected()
    second = read_increment(notes.config, "notes", first.cursor, host=host, **settings)
    assert (second.table.num_rows, host.told) == (ROWS - BAD, [])


def test_json_enums_and_other_types_of_text_are_looked_at_too(ascii_db: Database) -> None:
    ascii_db.execute(
        f"""
        create domain word as text;
        create table t (id int, j json, b jsonb, v varchar(9), c char(4), x word, raw bytea);
        insert into t select n, '{{"a": 1}}', '{{"a": 1}}', 'a', 'a', 'a', '\\xff' from generate_series(0, 6) n;
        update t set j = ('"' || convert_from({CAFE}, 'SQL_ASCII') || '"')::json where id = 1;
        update t set b = ('"' || convert_from({CAFE}, 'SQL_ASCII') || '"')::jsonb where id = 2;
        update t set v = convert_from({CAFE}, 'SQL_ASCII') where id = 3;
        update t set c = convert_from({CAFE}, 'SQL_ASCII') where id = 4;
        update t set x = convert_from({CAFE}, 'SQL_ASCII') where id = 5;
        """
    )
    host = Collected()
    read = read_stream(ascii_db.config, "t", host=host, on_data_error="dlq")
    assert sorted(read.column("id")) == [0, 6]
    told = {letter["record"]["id"]: letter for letter in host.told}
    quoted = r"\x22636166e922"
    found = [(told[n]["column"], told[n]["record"][told[n]["column"]]) for n in range(1, 6)]
    cafe = r"\x636166e9"
    assert found == [("j", quoted), ("b", quoted), ("v", cafe), ("c", cafe), ("x", cafe)]
    assert told[1]["record"] == {
        "id": 1, "j": quoted, "b": '{"a": 1}', "v": "a", "c": "a   ", "x": "a", "raw": r"\xff",
    }  # fmt: skip
    assert told[1]["types"]["j"] == "bytea"
    assert told[2]["types"]["j"] == "json"
    assert (told[2]["types"]["x"], told[5]["types"]["x"]) == ("public.word", "bytea")


# Everything that a record can hold, by what PostgreSQL itself prints.
VALUES = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "7"],
    "integer": ["-2147483648", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["1.5", "-0", "Infinity", "-Infinity", "NaN", "3.4028235e38", "1e-45", "123456", "999999", "1234567",
             "0.0001", "0.00001", "1e6", "16777216", "0.1"],
    "double precision": ["1e-323", "-0", "Infinity", "NaN", "1.7976931348623157e308", "0.1", "123456789012345",
                         "1234567890123456", "1e15", "999999999999999", "1e14", "0.0001", "0.00001234", "-2.5e-7",
                         "1e100"],
    "numeric(12,4)": ["0", "1.1234", "-1.001", "0.0001", "99999999.9999", "10000", "NaN"],
    "numeric(38,10)": ["0.0000000001", "-1234567890123456789012345678.0123456789", "10000000000000000"],
    "numeric(5,0)": ["12345", "0", "-10000"],
    "numeric(76,70)": ["0.0000000000000000000000000000000000000000000000000000000000000000000001", "1"],
    "numeric": ["1.50", "1e200"],
    "text": ["''", "a\"b\\c", "é\u2028\x01"],
    "bytea": ["", r"\x00ff"],
    "date": ["2024-02-29", "0001-01-01 BC", "infinity", "5874897-12-31"],
    "time": ["24:00", "04:05:06.7", "00:00"],
    "timestamp": ["2024-01-02 03:04:05.678", "0044-03-15 12:00 BC", "-infinity", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["2024-01-02 03:04:05.678+02", "0044-03-15 12:00+00 BC"],
    "interval": ["0", "1 year 2 mons -3 days 04:05:06.789", "-1 day", "-1 day +01:00", "-01:00:00.000001",
                 "1 year -1 mon +2 days", "100 hours", "infinity", "1 mon", "-14 mons", "2 days -00:00:01"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "json": ['{"a": [1, "é"]}'],
    "jsonb": ['{"b": 1.50, "a": null}'],
    "inet": ["10.0.0.1/8"],
    "integer[]": ["{}", "{1,NULL,-3}"],
    "text[]": ["{}", '{NULL,"NULL","",null,"a b","c,d","e\\"f","g\\\\h","{i}",é,"\t"}'],
    "numeric(12,4)[]": ["{1.5,NaN}"],
    "timestamptz[]": ["{2024-01-02 03:04:05+00}"],
    "boolean[]": ["{t,f,NULL}"],
    "bytea[]": [r'{"\\x00ff",NULL}'],
    "interval[]": ["{1 year 2 days,01:00}"],
    "double precision[]": ["{1e20,0.5}"],
}  # fmt: skip
WHOLE = {"smallint", "integer", "bigint"}


@pytest.mark.parametrize("kind", VALUES)
def test_a_record_has_the_text_that_postgresql_prints(source_db: Database, kind: str) -> None:
    source_db.execute(f"create table t (id int primary key, v {kind}, bad interval)")
    literals = [*VALUES[kind], None]
    with source_db.connect() as connection:
        for number, literal in enumerate(literals):
            connection.execute(
                b"insert into t values (%s, %s, '2562047788:00:54.775807')",
                [number, "" if literal == "''" else literal],
            )
        connection.execute(
            "set timezone to 'UTC'; set intervalstyle to postgres; set extra_float_digits to 3; set datestyle to iso"
        )
        printed = [text for (text,) in connection.execute("select v::text from t order by id").fetchall()]
    host = Collected()
    assert read_stream(source_db.config, "t", host=host, on_data_error="dlq").rows == 0
    letters = sorted(host.told, key=lambda letter: letter["record"]["id"])
    told = [letter["record"]["v"] for letter in letters]
    if kind in WHOLE:
        assert all(type(value) is int for value in told[:-1])
        told = [None if value is None else str(value) for value in told]
    if kind == "boolean":
        told = [None if value is None else str(value).lower() for value in told]
    assert told == printed
    [(declared,)] = source_db.fetch(
        "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass and attname = 'v'"
    )
    assert {letter["types"]["v"] for letter in letters} == {declared}
    assert letters[0] == {
        "record": {"id": 0, "v": letters[0]["record"]["v"], "bad": "2562047788:00:54.775807"},
        "types": {"id": "integer", "v": declared, "bad": "interval"},
        "message": "column bad (interval) has a value that Arrow's type for it cannot hold",
        "category": "out_of_range",
        "sqlstate": None,
        "column": "bad",
    }


def test_a_value_outside_of_arrows_range_leaves_the_columns_beside_it_alone(source_db: Database) -> None:
    source_db.execute(
        """
        create table t (id int, a text, b int[], c boolean, d text[], bad interval, z numeric(12,4));
        insert into t select n, 'a' || n, array[n, null], n % 2 = 0, array['x' || n], case when n % 3 = 0
            then interval '2562047788:00:54.775807' else n * interval '1 s' end, n from generate_series(1, 30) n;
        insert into t select n, null, null, null, null, case when n % 3 = 0
            then interval '2562047788:00:54.775807' end, null from generate_series(31, 60) n;
        """
    )
    host = Collected()
    read = read_stream(source_db.config, "t", host=host, on_data_error="dlq")
    expected = source_db.fetch("select id, a, b, c, d, (z * 10000)::bigint from t where id % 3 <> 0 order by id")
    columns = [read.column(name) for name in ("id", "a", "b", "c", "d", "z")]
    assert list(zip(*columns, strict=True)) == expected
    assert [letter["record"]["id"] for letter in host.told] == list(range(3, 61, 3))


def test_many_letters_go_in_calls_of_a_few_megabytes(source_db: Database) -> None:
    source_db.execute(
        "create table t as select n as id, repeat('x', 10000) as filler, interval '2562047788:00:54.775807' as bad"
        " from generate_series(1, 1000) n"
    )

    class Counting(Collected):
        calls = 0

        def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
            self.calls += 1
            super().emit_dlq_batch(payload)

    host = Counting()
    assert read_stream(source_db.config, "t", host=host, on_data_error="dlq").rows == 0
    assert [letter["record"]["id"] for letter in host.told] == list(range(1, 1001))
    assert 5 < host.calls < 20


# Rows that are too large. A row lies in memory twice: as it came, and in its columns.

LARGE = 40 * MEGABYTE


@pytest.fixture
def blobs(source_db: Database) -> Database:
    """Ten rows, of which the fifth is larger than what a small memory can take."""
    source_db.execute(
        """
        create table blobs (part text, id int, body text, at timestamp not null, primary key (id, part));
        alter table blobs alter body set storage external
        """
    )
    source_db.execute(
        f"""
        insert into blobs select 'a "b"', n, repeat('x', case when n = 5 then {LARGE} else 1000 end),
            timestamp '2024-01-01' + n / 4 * interval '1 s' from generate_series(1, 10) n
        """
    )
    return source_db


OTHERS = [1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_a_row_that_does_not_fit_into_memory_is_told_by_its_key(blobs: Database) -> None:
    host = Collected()
    read = read_stream(blobs.config, "blobs", host=host, max_memory=SMALL_MEMORY, on_data_error="dlq")
    assert read.column("id") == OTHERS
    [letter] = host.told
    assert letter["record"] is None
    assert letter["types"] == {
        "part": "text", "id": "integer", "body": "text", "at": "timestamp without time zone",
    }  # fmt: skip
    assert letter["category"] == "oversized"
    assert letter["message"].startswith("a row of 41943")
    assert letter["message"].endswith('is too large for the connector\'s memory (id 5, part a "b")')


def test_a_row_that_does_not_fit_into_memory_is_skipped(blobs: Database) -> None:
    host = Collected()
    read = read_stream(blobs.config, "blobs", host=host, max_memory=SMALL_MEMORY, on_data_error="skip")
    assert read.column("id") == OTHERS
    assert host.rejected == 1


@pytest.mark.parametrize("megabytes", [20, 40, 100, 300])
def test_a_row_that_does_not_fit_into_memory_fails_the_read_with_its_size(blobs: Database, megabytes: int) -> None:
    blobs.execute(f"update blobs set body = repeat('x', {megabytes * MEGABYTE}) where id = 5")
    with pytest.raises(RapidbyteError, match=r"reading public\.blobs: a row of \d+ bytes is too large") as caught:
        read_stream(blobs.config, "blobs", max_memory=32 * MEGABYTE)
    assert caught.value.kind is Kind.RESOURCE
    assert "resources.max_memory" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "megabytes", [pytest.param(size, marks=[] if size % 8 == 0 else [pytest.mark.full]) for size in range(4, 34, 2)]
)
def test_whatever_the_size_a_row_is_read_or_set_aside(blobs: Database, megabytes: int) -> None:
    """Also where it fits into memory once, and not twice; and what comes behind it is read."""
    blobs.execute(f"update blobs set body = repeat('x', {megabytes * MEGABYTE}) where id in (3, 5, 7)")
    host = Collected()
    read = read_stream(blobs.config, "blobs", host=host, max_memory=SMALL_MEMORY, on_data_error="dlq")
    told = sorted(
        int(letter["message"].partition("(id ")[2].partition(",")[0])
        for letter in host.told
        if letter["record"] is None
    )
    told += [letter["record"]["id"] for letter in host.told if letter["record"] is not None]
    assert sorted([*read.column("id"), *told]) == list(range(1, 11))
    assert told in ([], [3, 5, 7])
    for letter in host.told:
        assert letter["category"] == "oversized"


@pytest.mark.parametrize("large", [1, 10])
def test_the_first_and_the_last_row_can_be_too_large_too(blobs: Database, large: int) -> None:
    """COPY's header lies in front of the first."""
    blobs.execute(f"update blobs set id = id + 100 where id = {large}; update blobs set id = {large} where id = 5")
    blobs.execute("create view ordered as select id, part, body, at from blobs order by id")
    host = Collected()
    read = read_stream(blobs.config, "ordered", host=host, max_memory=SMALL_MEMORY, on_data_error="dlq")
    assert read.rows == 9
    [letter] = host.told
    assert letter["category"] == "oversized"


@pytest.mark.parametrize("write_mode", ["append", "upsert"])
@pytest.mark.parametrize("tie_breaker_field", [None, "id"])
@pytest.mark.parametrize("last", few([10, 5]))
def test_an_incremental_read_goes_on_behind_a_row_that_is_too_large(
    blobs: Database, write_mode: str, tie_breaker_field: str | None, last: int
) -> None:
    """Its key and its cursor are taken from what goes by, or the hash of all of it."""
    settings: dict[str, Any] = {
        "cursor_field": "at",
        "tie_breaker_field": tie_breaker_field,
        "write_mode": write_mode,
        "on_data_error": "dlq",
        "max_memory": SMALL_MEMORY,
    }
    host = Collected()
    first = read_increment(blobs.config, "blobs", host=host, filter=f"id <= {last}", **settings)
    assert sorted(first.column("id")) == [n for n in OTHERS if n <= last]
    assert len(host.told) == 1
    host = Collected()
    second = read_increment(blobs.config, "blobs", first.cursor, host=host, **settings)
    assert sorted(second.column("id")) == [n for n in OTHERS if n > last]
    assert host.told == []


@pytest.mark.parametrize("has_key", [True, False])
def test_the_hash_of_a_row_that_went_by_is_that_of_a_row_that_was_kept(blobs: Database, has_key: bool) -> None:
    """A memory that was too small once, and is larger now, must not make the row come again."""
    if not has_key:
        blobs.execute("alter table blobs drop constraint blobs_pkey")
    settings: dict[str, Any] = {"cursor_field": "at", "write_mode": "append", "on_data_error": "dlq"}
    host = Collected()
    cursor = read_increment(
        blobs.config, "blobs", host=host, max_memory=SMALL_MEMORY, filter="id <= 5", **settings
    ).cursor
    assert len(host.told) == 1
    again = read_increment(blobs.config, "blobs", cursor, host=Collected(), **settings)
    assert sorted(again.column("id")) == [6, 7, 8, 9, 10]


def test_a_row_told_apart_by_what_is_too_large_itself_is_an_error(blobs: Database) -> None:
    blobs.execute("alter table blobs drop constraint blobs_pkey; update blobs set body = id || body")
    settings: dict[str, Any] = {
        "cursor_field": "at",
        "tie_breaker_field": "body",
        "write_mode": "append",
        "on_data_error": "dlq",
    }
    with pytest.raises(
        RapidbyteError, match=r"a row of \d+ bytes .* and its column body, which tells it from others"
    ) as caught:
        read_increment(blobs.config, "blobs", host=Collected(), max_memory=SMALL_MEMORY, **settings)
    assert caught.value.kind is Kind.RESOURCE


def test_a_row_of_which_the_letter_would_be_too_large_is_told_without_it(ascii_db: Database) -> None:
    """Hexadecimal digits and their quoting take more than the row."""
    ascii_db.execute(
        "create table t (id int primary key, body bytea, note text); alter table t alter body set storage external"
    )
    ascii_db.execute(
        f"insert into t select n, decode(repeat('ff', {12 * MEGABYTE}), 'hex'), convert_from({CAFE}, 'SQL_ASCII')"
        " from generate_series(1, 3) n"
    )
    small = Collected()
    assert read_stream(ascii_db.config, "t", host=small, max_memory=SMALL_MEMORY, on_data_error="dlq").rows == 0
    assert [letter["record"] for letter in small.told] == [None] * 3
    assert [letter["message"][-6:] for letter in small.told] == ["(id 1)", "(id 2)", "(id 3)"]
    assert {letter["category"] for letter in small.told} == {"invalid_text"}
    large = Collected()
    assert read_stream(ascii_db.config, "t", host=large, on_data_error="dlq").rows == 0
    assert [len(letter["record"]["body"]) for letter in large.told] == [2 + 24 * MEGABYTE] * 3


def test_a_shard_may_not_leave_rows_out(notes: Database) -> None:
    with open_source(Collected(), notes.config) as instance:
        instance.call("rb_open", open_argument(notes.config, "notes"))
        asked = {"stream": stream_argument("notes", on_data_error="skip"), "cursor": None, "max_batch_bytes": 1 << 20}
        shard = {"snapshot": "1", "as_text": [], "part": {"blocks": {"from": None, "before": None}}}
        with pytest.raises(RapidbyteError, match="rows of a shard cannot be left out"):
            instance.call("rb_read", {**asked, "shard": shard})
