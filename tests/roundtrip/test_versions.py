"""Between PostgreSQL 18 and older versions, both ways; and what only the system's was built with.

The servers from pip have neither contrib's extensions nor XML. Skipped where the system has no PostgreSQL, or pip no
PostgreSQL 16 for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from demo.embedded_postgres import EmbeddedPostgres, Installation
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError, SourceError
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database, TlsServer, unique_name
from tests.roundtrip.builtin_types import EVERY_CASE, FAMILIES, Case
from tests.roundtrip.movement import Pair, assert_moves
from tests.roundtrip.tables import SHEETS
from tests.roundtrip.ways import assert_is_followed

INFINITE_INTERVALS_SINCE = 170000


@pytest.fixture(scope="module")
def old_pair(tls_postgres: TlsServer) -> Iterator[Pair]:
    """Two databases of the system's server."""
    names = [unique_name("old_source"), unique_name("old_destination")]
    for name in names:
        tls_postgres.server.create_database(name)
    yield Pair(*(tls_postgres.database(name) for name in names))
    for name in names:
        tls_postgres.server.drop_database(name)


@pytest.fixture(scope="module")
def pair_16() -> Iterator[Pair]:
    """Two databases of a PostgreSQL 16, which `make` puts beside the other packages."""
    programs = Path(sys.prefix) / "postgresql-16" / "pgserver" / "pginstall" / "bin"
    if not (programs / "postgres").exists():
        pytest.skip("PostgreSQL 16 is not installed: make roundtrip")
    with EmbeddedPostgres(durable=False, installation=Installation(programs)) as server:
        names = ["source", "destination"]
        for name in names:
            server.create_database(name)
        yield Pair(*(Database(server, name) for name in names))


def is_older(database: Database) -> bool:
    return bool(database.fetch_value("SELECT current_setting('server_version_num')::int") < INFINITE_INTERVALS_SINCE)


def known_to(database: Database, cases: Sequence[Case]) -> list[Case]:
    """The types and literals that the server can read."""
    known = []
    with database.connect() as connection:
        for case in cases:
            literals = []
            for text in case.literals:
                try:
                    quoted = text.replace("'", "''")
                    connection.execute(f"SELECT '{quoted}'::{case.type}, ARRAY['{quoted}'::{case.type}]".encode())
                except psycopg.Error:
                    continue
                literals.append(text)
            if literals:
                known.append(Case(case.type, tuple(literals)))
    return known


@pytest.mark.parametrize(
    ("older", "sheet"),
    [
        pytest.param(
            older,
            sheet,
            id=f"{older}, {sheet}",
            marks=[] if older == "old_pair" and sheet != "flat arrays" else [pytest.mark.full],
        )
        for older in ("old_pair", "pair_16")
        for sheet in SHEETS
    ],
)
def test_every_value_that_both_versions_know_arrives_both_ways(
    tmp_path: Path, pair: Pair, older: str, sheet: str, request: pytest.FixtureRequest
) -> None:
    old_pair: Pair = request.getfixturevalue(older)
    cases = known_to(old_pair.source, EVERY_CASE)
    assert len(cases) > len(EVERY_CASE) * 0.9
    for source, destination in ((old_pair.source, pair.destination), (pair.source, old_pair.destination)):
        table = f"{older} {sheet}"
        SHEETS[sheet](cases).create(source, table)
        assert_moves(tmp_path, Pair(source, destination), table)


@pytest.mark.parametrize(
    ("older", "sheet", "family"),
    [
        pytest.param(
            older,
            sheet,
            family,
            id=f"{older}, {sheet}, {family}",
            marks=[] if (older, sheet, family) == ("old_pair", "scalars", "times") else [pytest.mark.full],
        )
        for older in ("old_pair", "pair_16")
        for sheet in SHEETS
        for family in FAMILIES
    ],
)
def test_every_value_that_both_versions_know_is_followed_both_ways(
    tmp_path: Path, pair: Pair, older: str, sheet: str, family: str, request: pytest.FixtureRequest
) -> None:
    old_pair: Pair = request.getfixturevalue(older)
    cases = known_to(old_pair.source, FAMILIES[family])
    for source, destination in ((old_pair.source, pair.destination), (pair.source, old_pair.destination)):
        table = f"{older} {sheet} {family}"
        SHEETS[sheet](cases).create(source, table)
        assert_is_followed(tmp_path, Pair(source, destination), table)


def test_an_infinite_interval_is_an_error_where_there_is_none(
    tmp_path: Path, source_db: Database, old_pair: Pair
) -> None:
    if not is_older(old_pair.destination):
        pytest.skip("the system's server knows infinite intervals")
    for number, column in enumerate(("interval", "interval[]")):
        source_db.execute(
            f"CREATE TABLE t{number} AS"
            f" SELECT 1 AS n, '{'{infinity}' if number else 'infinity'}'::{column} AS \"the column\""
        )
        with pytest.raises(DestinationError, match="the column") as caught:
            run(make_pipeline(tmp_path, source_db, old_pair.destination, [f"t{number}"]))
        assert caught.value.kind is Kind.DATA


def test_the_longest_finite_interval_of_an_older_server_does_not_become_infinite(
    tmp_path: Path, old_pair: Pair, destination_db: Database
) -> None:
    """It has the very bits that mean infinity since PostgreSQL 17."""
    if not is_older(old_pair.source):
        pytest.skip("the system's server knows infinite intervals")
    for number, months in enumerate((2**31 - 1, -(2**31))):
        table = f"longest{number}"
        old_pair.source.execute(f'CREATE TABLE {table} (n int, "the column" interval, vs interval[])')
        with (
            old_pair.source.connect() as connection,
            connection.cursor().copy(f'COPY {table} ("the column") FROM STDIN (FORMAT binary)'.encode()) as copy,
        ):
            micros = 2**63 - 1 if months > 0 else 2**63
            bits = micros.to_bytes(8, "big") + months.to_bytes(4, "big", signed=True) * 2
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\0\x01\0\0\0\x10" + bits + b"\xff\xff")
        old_pair.source.execute(f'UPDATE {table} SET vs = ARRAY["the column"]')
        for columns in (["the column"], ["vs"]):
            with pytest.raises(SourceError, match=columns[0]) as caught:
                run(make_pipeline(tmp_path, old_pair.source, destination_db, [{"name": table, "columns": columns}]))
            assert caught.value.kind is Kind.DATA


EXTENSIONS = {
    "hstore": [Case("ext.hstore", ("", '"a"=>"1", "b, \\"\\\\"=>NULL, ""=>""', "ü=>🌍"))],
    "citext": [Case("ext.citext", ("", "Ab", "NULL", "aB"))],
    "ltree": [
        Case("ext.ltree", ("", "Top.Science.Astronomy")),
        Case("ext.lquery", ("*.!a@*|b%{1,}.c", "*{2,3}")),
        Case("ext.ltxtquery", ("a@ & (b | !c*%)",)),
    ],
    "cube": [Case("ext.cube", ("(0.1,2),(3,1e-300)", "(1)", "()"))],
    "seg": [Case("ext.seg", ("1.50", "~6.5 .. >8", "0(+-)0.1", ".. 7"))],
    "isn": [Case("ext.isbn13", ("978-0-393-04002-9",)), Case("ext.issn", ("1436-4522",))],
    "intarray": [Case("ext.query_int", ("1&(2|!3)",))],
    "lo": [Case("ext.lo", ("0", "4294967295"))],
    "earthdistance": [Case("ext.earth", ("(6378168,0,0)",))],
}
XML = [
    Case(
        "xml",
        (
            "",
            "text",
            "<a>ü &amp; 'x' \"y\"</a>",
            "<!-- c --><a/><b/>",
            '<?xml version="1.0"?><a/>',
            '<?xml version="1.0" encoding="LATIN1" standalone="yes"?>\n<a> \n</a>',
            "<!DOCTYPE a><a/>",
            "<a><![CDATA[<&]]></a>",
        ),
    )
]


PGVECTOR = [
    Case("vector", ("[0.1,-0,1e-45]", "[3.4028235e38]")),
    Case("vector(3)", ("[1,2,3]",)),
    Case("halfvec(2)", ("[0.1,65504]",)),
    Case("sparsevec(9)", ("{1:0.1,9:-2}/9", "{}/9")),
]

FOLLOWED = pytest.mark.parametrize(
    "assert_arrives", [assert_moves, pytest.param(assert_is_followed, marks=pytest.mark.full)], ids=["once", "followed"]
)


@FOLLOWED
@pytest.mark.parametrize("sheet", SHEETS)
def test_types_of_extensions_arrive(
    tmp_path: Path, old_pair: Pair, sheet: str, assert_arrives: Callable[[Path, Pair, str], object]
) -> None:
    available = [name for [name] in old_pair.source.fetch("SELECT name::text FROM pg_available_extensions")]
    installed = [name for name in EXTENSIONS if name in available]
    if not installed:
        pytest.skip("the system's server has no contrib")
    for database in (old_pair.source, old_pair.destination):
        database.execute(
            "CREATE SCHEMA IF NOT EXISTS ext; GRANT ALL ON SCHEMA ext TO etl; SET search_path = ext;"
            + "".join(f"CREATE EXTENSION IF NOT EXISTS {name} CASCADE;" for name in installed),
            superuser=True,
        )
    table = unique_name("extensions")
    SHEETS[sheet]([case for name in installed for case in EXTENSIONS[name]]).create(old_pair.source, table)
    assert_arrives(tmp_path, old_pair, table)


@FOLLOWED
def test_xml_arrives(tmp_path: Path, old_pair: Pair, assert_arrives: Callable[[Path, Pair, str], object]) -> None:
    for sheet in SHEETS.values():
        table = unique_name("xml")
        sheet(XML).create(old_pair.source, table)
        assert_arrives(tmp_path, old_pair, table)


@FOLLOWED
def test_the_types_of_pgvector_arrive(
    tmp_path: Path, pair: Pair, assert_arrives: Callable[[Path, Pair, str], object]
) -> None:
    if not pair.source.fetch("SELECT FROM pg_available_extensions WHERE name = 'vector'"):
        pytest.skip("pgvector is not installed")
    for database in (pair.source, pair.destination):
        database.execute("CREATE EXTENSION IF NOT EXISTS vector", superuser=True)
    for sheet in SHEETS.values():
        table = unique_name("pgvector")
        sheet(PGVECTOR).create(pair.source, table)
        assert_arrives(tmp_path, pair, table)


def test_an_extensions_type_that_the_destination_does_not_know_is_named_with_what_to_do(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    if not source_db.fetch("SELECT FROM pg_available_extensions WHERE name = 'vector'"):
        pytest.skip("pgvector is not installed")
    source_db.execute("CREATE EXTENSION vector", superuser=True)
    source_db.execute("CREATE TABLE t (n int, embedding vector(3))")
    with pytest.raises(RapidbyteError, match=r"embedding.*public\.vector\(3\)") as caught:
        run(make_pipeline(tmp_path, source_db, destination_db, ["t"]))
    assert caught.value.kind is Kind.SCHEMA
    assert "extension" in (caught.value.hint or "")
