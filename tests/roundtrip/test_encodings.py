"""Databases of other encodings: text crosses as UTF-8, and arrives as the same characters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database, unique_name
from tests.roundtrip.movement import Pair, assert_moves

TYPES = (
    "CREATE TYPE mood AS ENUM ('fröhlich', 'müde'); CREATE DOMAIN word AS text; CREATE TYPE pair AS (ä word, b mood);"
)
EVERY_LATIN1_CHARACTER = "".join(map(chr, [*range(1, 128), *range(0xA0, 0x100)]))


@contextmanager
def database_of(postgres: EmbeddedPostgres, encoding: str) -> Iterator[Database]:
    name = unique_name(f"in_{encoding.lower()}")
    with postgres.connect() as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER etl ENCODING {} TEMPLATE template0 LOCALE 'C'").format(
                sql.Identifier(name), sql.Literal(encoding)
            )
        )
    yield Database(postgres, name)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def latin1_db(postgres: EmbeddedPostgres) -> Iterator[Database]:
    with database_of(postgres, "LATIN1") as database:
        database.execute(TYPES)
        yield database


@pytest.fixture(scope="module")
def ascii_db(postgres: EmbeddedPostgres) -> Iterator[Database]:
    """Takes any bytes for text."""
    with database_of(postgres, "SQL_ASCII") as database:
        database.execute("CREATE DOMAIN word AS text")
        yield database


@pytest.fixture(scope="module")
def utf8_pair(pair: Pair) -> Pair:
    for database in (pair.source, pair.destination):
        database.execute(TYPES)
    return pair


def test_a_latin1_source_and_a_latin1_destination_keep_every_character(
    tmp_path: Path, latin1_db: Database, utf8_pair: Pair
) -> None:
    source_db, destination_db = utf8_pair.source, utf8_pair.destination
    definition = """
        CREATE TABLE "Größe" (n int PRIMARY KEY, "Länge" text, v varchar(250), c char(3), na name, j json, jb jsonb,
                              m mood, ms mood[], p pair, w word, ts text[], deep text[], vec tsvector, b bytea,
                              "ch" "char")
    """
    insert = """
        INSERT INTO "Größe" VALUES
            (1, %(all)s::text, %(all)s::text, 'ä', repeat('ü', 31), to_json(%(all)s::text), to_jsonb(%(all)s::text),
             'müde', '{müde,NULL}', ROW(%(all)s::text, 'fröhlich'), %(all)s::text, ARRAY[%(all)s::text, NULL],
             ARRAY[[%(all)s::text]], $$'ä b':1A$$, '\\x00e9', '\\351')
    """
    for database in (latin1_db, source_db):
        database.execute(definition)
        database.execute(insert, {"all": EVERY_LATIN1_CHARACTER})
        database.execute('INSERT INTO "Größe" (n) VALUES (2)')
    assert_moves(tmp_path, Pair(latin1_db, destination_db), "Größe")
    assert_moves(tmp_path, Pair(source_db, latin1_db), "Größe")
    assert destination_db.fetch('SELECT "Länge" FROM raw."Größe by append" WHERE n = 1') == [(EVERY_LATIN1_CHARACTER,)]


@pytest.mark.parametrize("column", ["text", "text[]", "word", "character varying(9)", "jsonb", "tsvector"])
def test_a_character_that_the_destination_has_not_is_an_error(
    tmp_path: Path, utf8_pair: Pair, latin1_db: Database, column: str
) -> None:
    value = {"text[]": '{"€"}', "jsonb": '"€"'}.get(column, "€")
    table = unique_name("euro")
    utf8_pair.source.execute(
        f"CREATE TABLE {table} (n int, odd {column}); INSERT INTO {table} VALUES (1, '{value}'), (2, NULL)"
    )
    with pytest.raises(RapidbyteError, match="LATIN1") as caught:
        run(make_pipeline(tmp_path, utf8_pair.source, latin1_db, [table]))
    assert caught.value.kind is Kind.DATA
    assert latin1_db.fetch_value("SELECT to_regclass(%s) IS NULL", [f"raw.{table}"])


@pytest.mark.parametrize(("encoding", "text"), [("EUC_JP", "日本語 ｶﾅ"), ("WIN1251", "Привет €"), ("LATIN9", "œ €")])
def test_other_encodings_arrive_and_come_back(
    tmp_path: Path, postgres: EmbeddedPostgres, destination_db: Database, encoding: str, text: str
) -> None:
    with database_of(postgres, encoding) as database:
        database.execute('CREATE TABLE t (n int PRIMARY KEY, a text, b text[], c int4range, "d" "char")')
        database.execute("INSERT INTO t VALUES (1, %s, ARRAY[%s, NULL], '[1,2)', 'x')", [text, text])
        assert_moves(tmp_path, Pair(database, destination_db), "t")
        assert destination_db.fetch('SELECT a, b FROM raw."t by append"') == [(text, [text, None])]
        destination_db.execute(
            'CREATE TABLE t (LIKE raw."t by append" INCLUDING ALL); INSERT INTO t TABLE raw."t by append"'
        )
        assert_moves(tmp_path, Pair(destination_db, database), "t")


@pytest.mark.parametrize("column", ["text", "text[]", "word", "json"])
def test_bytes_that_are_no_text_are_an_error(tmp_path: Path, ascii_db: Database, utf8_pair: Pair, column: str) -> None:
    """What is UTF-8 by chance arrives."""
    table = unique_name("bytes")
    ascii_db.execute(f"CREATE TABLE {table} (n int PRIMARY KEY, odd {column})")
    literal = {"text[]": r"E'{\303\274}'", "json": r"""E'"\303\274"'"""}.get(column, r"E'\303\274'")
    ascii_db.execute(f"INSERT INTO {table} VALUES (1, {literal})")
    assert_moves(tmp_path, Pair(ascii_db, utf8_pair.destination), table)
    ascii_db.execute(f"INSERT INTO {table} VALUES (2, {literal.replace('303', '377')})")
    for mode in ("append", "replace"):
        stream = {"name": table, "table": f"not_{mode}"}
        pipeline = make_pipeline(tmp_path, ascii_db, utf8_pair.destination, [stream], write_mode=mode, name=mode)
        with pytest.raises(RapidbyteError, match="UTF") as caught:
            run(pipeline)
        assert caught.value.kind is Kind.DATA
        assert utf8_pair.destination.fetch_value("SELECT to_regclass(%s) IS NULL", [f"raw.not_{mode}"])
