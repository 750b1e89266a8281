"""Values of captured rows are what a read of the table brings, be they sent in binary form or as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.integration.source.capturing import MARKS, Captured, Capturing, CapturingHost, capturing
from tests.integration.source.reading import plain, read_stream
from tests.postgres_server import Database, MakeDatabase
from tests.roundtrip.builtin_types import EVERY_CASE, FAMILIES, Case
from tests.roundtrip.tables import SHEETS

NATIVE = {
    *(
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "real",
        "double precision",
        "numeric",
        "text",
        "name",
        "bytea",
        "date",
    ),
    *("time", "timestamp", "timestamptz", "interval", "uuid", "json", "jsonb"),
}


def is_binary(case: Case) -> bool:
    """Whether the connector knows the type's binary form."""
    name = case.type.split("(")[0]
    if name == "time" and case.type.endswith("with time zone"):
        return False
    return name in NATIVE or name in {"character varying", "varchar", "character", "char", "bpchar"}


def column(captured: Captured, stream: str, name: str) -> list[tuple[str, str]]:
    """The values as they lie in the buffers, each with its type."""
    found: list[tuple[str, str]] = []
    for batch_stream, _, batch in captured.host.batches:
        if batch_stream == stream:
            values = batch.column(name)
            found += [(str(values.type), repr(value)) for value in plain(values)]
    return found


def fill(database: Database, table: str, sheet: str, cases: Sequence[Case]) -> Iterator[Capturing]:
    """A table like one of these cases, whose rows are captured as they are inserted."""
    SHEETS[sheet](cases).create(database, "seed")
    database.execute(f"CREATE TABLE {table} (LIKE seed INCLUDING ALL)")
    database.execute("CREATE TABLE beside (id int PRIMARY KEY, host inet)")
    with capturing(database, [table, "beside"]) as slot:
        database.execute(f"INSERT INTO {table} SELECT * FROM seed ORDER BY n", superuser=False)
        yield slot


def assert_same(slot: Capturing, captured: Captured, table: str, form: str) -> None:
    assert [text for _, text in captured.host.logs if "values" in text][-1].endswith(f"values {form}")
    read = read_stream(slot.database.config, table).table.sort_by("n")
    for name in read.schema.names:
        expected = read.column(name).combine_chunks()
        got = column(captured, table, name)
        assert len(got) == read.num_rows
        # A column whose values do not all fit into a list is text from the first one on that does not.
        kind = str(expected.type)
        same = [(kind, repr(value)) for value in plain(expected)]
        first = next((i for i, (got_kind, _) in enumerate(got) if got_kind == kind), len(got))
        assert got[first:] == same[first:], name
        assert first == 0 or "list" in got[0][0] or kind == "string", name
        assert captured.field_metadata(table, name).items() >= {
            (key.decode(), value.decode()) for key, value in (read.schema.field(name).metadata or {}).items()
        }
    assert captured.schema(table).names == [*MARKS, *read.schema.names]


@pytest.mark.parametrize("sheet", ["scalars", "flat arrays", pytest.param("deep arrays", marks=pytest.mark.full)])
def test_values_are_the_same_in_binary_form_and_as_text(source_db: Database, sheet: str) -> None:
    cases = [case for case in EVERY_CASE if is_binary(case)]
    assert len(cases) > 30
    for slot in fill(source_db, "t", sheet, cases):
        position = slot.position
        binary = slot.catch_up("t", host=CapturingHost(commits=False), confirm=False)
        assert_same(slot, binary, "t", "in binary form")
        slot.position = position
        assert_same(slot, slot.catch_up("t", "beside"), "t", "as text")


@pytest.mark.parametrize("sheet", [pytest.param(sheet, marks=pytest.mark.full) for sheet in SHEETS])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_value_of_every_type_is_captured_as_it_is_read(source_db: Database, family: str, sheet: str) -> None:
    for slot in fill(source_db, "t", sheet, FAMILIES[family]):
        captured = slot.catch_up("t")
        form = [text for _, text in captured.host.logs if "values" in text][-1].split("values ")[1]
        assert_same(slot, captured, "t", form)


def test_types_of_users_are_captured_as_they_are_read(source_db: Database) -> None:
    source_db.execute(
        """
        CREATE TYPE mood AS ENUM ('sad', 'it''s ok');
        CREATE DOMAIN price AS numeric(12,2) CHECK (value > 0);
        CREATE DOMAIN dear AS price;
        CREATE DOMAIN code AS char(5);
        CREATE TYPE point3 AS (x int, y text);
        CREATE TABLE seed (n int PRIMARY KEY, a mood, b mood[], c price, d dear, e code, f numeric, g numeric[]);
        INSERT INTO seed VALUES
            (1, 'sad', '{sad,NULL,"it''s ok"}', 1.5, 2.25, 'ab', 1.1000, '{1.10,NULL,NaN}');
        INSERT INTO seed VALUES (2, 'it''s ok');
        CREATE TABLE t (LIKE seed INCLUDING ALL);
        CREATE TABLE beside (id int PRIMARY KEY, p point3, r regclass)
        """
    )
    with capturing(source_db, ["t", "beside"]) as slot:
        position = slot.position
        source_db.execute(
            "INSERT INTO t SELECT * FROM seed; INSERT INTO beside VALUES (1, '(1,\"a b\")', 'public.seed')"
        )
        binary = slot.catch_up("t", host=CapturingHost(commits=False), confirm=False)
        assert_same(slot, binary, "t", "in binary form")
        slot.position = position
        text = slot.catch_up("t", "beside")
        [change] = text.of("beside")
        assert change.values == {"id": 1, "p": '(1,"a b")', "r": "public.seed"}
        assert_same(slot, text, "t", "as text")


def test_text_that_is_not_utf8_fails_with_the_column_and_the_bytes(make_database: MakeDatabase) -> None:
    database = make_database("ascii", encoding="SQL_ASCII")
    database.execute("CREATE TABLE t (id int PRIMARY KEY, note text, tags text[])")
    with capturing(database, ["t"]) as slot:
        database.execute("INSERT INTO t VALUES (1, 'Grüße', '{é}')")
        assert slot.catch_up("t").changes[0].values == {"id": 1, "note": "Grüße", "tags": ["é"]}
        database.execute(r"INSERT INTO t VALUES (2, E'caf\xe9')")
        with pytest.raises(
            Exception, match=r"column note \(text\) of public.t holds bytes that are not UTF-8: 0xe9 at byte 4"
        ):
            slot.catch_up("t")
        assert slot.catch_up({"name": "t", "columns": ["id"]}).changes[0].values == {"id": 2}
