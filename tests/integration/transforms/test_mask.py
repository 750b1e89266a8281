"""transform-mask between two real databases: what PostgreSQL itself makes of each value is what it is held against."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import check_pipeline, replay_dead_letters
from rapidbyte_dagster.errors import ConfigError, Kind, RapidbyteError, Stage
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database

SALT = "pepper & salt, 32 bytes of each."
ENVIRON = {"MASK_SALT": SALT}
MEGABYTE = 1024 * 1024

VALUES: Mapping[str, list[str]] = {
    "boolean": ["true", "false"],
    "smallint": ["'-32768'", "0"],
    "integer": ["2147483647"],
    "bigint": ["4111111111111111", "-1"],
    "real": ["1e-7", "'-Infinity'", "0.1"],
    "double precision": ["1e-4", "123456789012345680", "-0.0", "'NaN'", "1e300"],
    "numeric(12,4)": ["12.5", "-0.0005", "0", "'NaN'"],
    "numeric(70,2)": ["12345678901234567890123456789012345678901234567890.12"],
    "numeric": ["1.50", "1e-20"],
    "text": ["''", "'naïve 🐘 text'", "'4111 1111 1111 1234'", "repeat('long ', 50)"],
    "varchar(20)": ["'a b'", "'日本語テキスト'"],
    "char(12)": ["'padded'", "''"],
    "name": ["'Name'"],
    "bytea": ["'\\x00ff'", "''"],
    "date": ["'2024-02-29'", "'infinity'", "'0044-03-15 BC'"],
    "time": ["'24:00:00'", "'01:02:03.4'"],
    "timestamp": ["'2024-02-29 01:02:03.000004'", "'-infinity'"],
    "timestamptz": ["'2024-02-29 01:02:03+02'", "'0044-03-15 12:00:00+00 BC'"],
    "interval": ["'1 year 2 mons -3 days 04:05:06.7'", "'-1 day'", "'0'", "'infinity'"],
    "uuid": ["'00000000-0000-4000-8000-0000000000ff'"],
    "jsonb": ["'{\"a\": [1, null]}'"],
    "json": ["'{\"a\" : 1}'"],
    "inet": ["'192.168.0.1/24'"],
    "mood": ["'happy'"],
    "nick": ["'nick'"],
    "text[]": ["array['a b', null, '', 'NULL', '\"']", "'{}'"],
    "integer[]": ["array[1, null]", "array[[1, 2], [3, 4]]"],
    "timestamptz[]": ["array['2024-02-29 01:02:03+02'::timestamptz]"],
    "uuid[]": ["array['00000000-0000-4000-8000-0000000000ff'::uuid]"],
    "numeric(12,4)[]": ["array[1.5, 'NaN']"],
    "double precision[]": ["array[0.1, 1e20]"],
    "bytea[]": ["array['\\x00'::bytea]"],
    "boolean[]": ["array[true, false]"],
}
"""A type of PostgreSQL's, and values of it. Each column has NULLs beside."""

COLUMNS = {f"c{place}": type_name for place, type_name in enumerate(VALUES)}
ROWS = max(map(len, VALUES.values())) + 1
STRINGS = {"text", "varchar(20)", "char(12)", "name"}


def create_every_type(database: Database) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('happy'); CREATE DOMAIN nick AS varchar(10)")
    columns = ", ".join(f"{name} {type_name}" for name, type_name in COLUMNS.items())
    database.execute(f"CREATE TABLE people (id bigint PRIMARY KEY, {columns})")
    for row in range(ROWS):
        values = [known[row] if row < len(known) else "NULL" for known in VALUES.values()]
        database.execute(f"INSERT INTO people VALUES ({row}, {', '.join(values)})")


def as_texts(database: Database, expression: str, columns: Iterable[str] = COLUMNS) -> list[tuple[Any, ...]]:
    """`expression`, with `{}` for the text of a column, of these columns of every row."""
    told = ", ".join(expression.format(f"{name}::text") for name in columns)
    settings = "-c TimeZone=UTC -c IntervalStyle=postgres -c DateStyle=ISO"
    with psycopg.connect(database.dsn, options=settings, client_encoding="utf8") as connection:
        return connection.execute(f"SELECT {told} FROM people ORDER BY id".encode()).fetchall()


def masked(
    folder: Path,
    source: Database,
    destination: Database,
    columns: Mapping[str, Any],
    *,
    salt: str | None = None,
    **options: Any,
) -> Pipeline:
    config: dict[str, Any] = {"columns": dict(columns)} | ({} if salt is None else {"salt": salt})
    limits = options.pop("limits", None)
    streams = options.pop("streams", ["people"])
    transforms = [{"use": "mask", "config": config} | ({"limits": limits} if limits else {})]
    return make_pipeline(folder, source, destination, streams, transforms=transforms, **options)


def loaded(database: Database, expression: str = "{}", columns: Iterable[str] = COLUMNS) -> list[tuple[Any, ...]]:
    told = ", ".join(expression.format(name) for name in columns)
    return database.fetch(f"SELECT {told} FROM raw.people ORDER BY id")


def test_a_hash_is_that_of_the_text_whatever_the_type(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    create_every_type(source_db)
    pipeline = masked(
        tmp_path, source_db, destination_db, {"id": "hash"} | dict.fromkeys(COLUMNS, "hash"), salt="${MASK_SALT}"
    )
    lines: list[str] = []
    run(pipeline, environ=ENVIRON, on_log=lambda level, message: lines.append(message))
    assert hashes(destination_db) == {tuple(map(digest, row)) for row in as_texts(source_db, "{}")}
    keys = {key for (key,) in destination_db.fetch("SELECT id FROM raw.people")}
    assert keys == {digest(str(row)) for row in range(ROWS)}
    types = destination_db.fetch(
        "SELECT DISTINCT data_type FROM information_schema.columns WHERE table_schema = 'raw' AND table_name = 'people'"
    )
    assert types == [("text",)]
    assert not any(SALT in line for line in lines)


def test_a_row_that_is_replayed_is_masked_as_any_other(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    create_every_type(source_db)
    [span] = [name for name in COLUMNS if COLUMNS[name] == "interval"]
    # Longer than Arrow has room for, so that the source sets the row aside.
    source_db.execute(f"UPDATE people SET {span} = '3000000:00:00' WHERE id = 0")
    # Texts that are not UTF-8 are told as bytes too: where the table has texts, somebody looks at such letters first.
    columns = [name for name in COLUMNS if not COLUMNS[name].startswith("bytea")]
    pipeline = masked(
        tmp_path,
        source_db,
        destination_db,
        dict.fromkeys(columns, "hash"),
        salt="${MASK_SALT}",
        destination_section={"on_data_error": "dlq"},
    )
    assert run(pipeline, environ=ENVIRON).dead_letters == 1
    expected = [tuple(map(digest, row)) for row in as_texts(source_db, "{}", columns)]
    assert loaded(destination_db, columns=columns) == expected[1:]
    with open_state(pipeline, ENVIRON) as state:
        replay_dead_letters(pipeline, pipeline.streams[0], state=state, run_id="replay", environ=ENVIRON)
    assert loaded(destination_db, columns=columns) == expected


def digest(text: str | None) -> str | None:
    return None if text is None else hmac.new(SALT.encode(), text.encode(), hashlib.sha256).hexdigest()


def hashes(database: Database) -> set[tuple[Any, ...]]:
    return set(database.fetch(f"SELECT {', '.join(COLUMNS)} FROM raw.people"))


@pytest.mark.parametrize(
    ("action", "expression"),
    [
        ({"truncate": 3}, "left({}, 3)"),
        ({"keep_last": 4}, "repeat('*', greatest(0, char_length({0}) - 4)) || right({0}, 4)"),
    ],
    ids=["truncate", "keep_last"],
)
def test_texts_are_shortened_by_their_characters(
    tmp_path: Path, source_db: Database, destination_db: Database, action: Mapping[str, int], expression: str
) -> None:
    create_every_type(source_db)
    run(masked(tmp_path, source_db, destination_db, dict.fromkeys(COLUMNS, action)))
    assert loaded(destination_db, "{}::text") == as_texts(source_db, expression)
    types = dict(
        destination_db.fetch(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'raw.people'::regclass"
        )
    )
    kept = {"varchar(20)": "character varying(20)", "char(12)": "character(12)", "name": "name"}
    assert {name: types[name] for name in COLUMNS} == {name: kept.get(COLUMNS[name], "text") for name in COLUMNS}


def test_what_is_redacted_is_one_text_or_null(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    create_every_type(source_db)
    source_db.execute("UPDATE people SET c1 = 1; ALTER TABLE people ALTER c1 SET NOT NULL")
    destination_db.execute("CREATE TYPE mood AS ENUM ('happy'); CREATE DOMAIN nick AS varchar(10)")
    actions: dict[str, Any] = dict.fromkeys(COLUMNS, "redact")
    [text, char] = [name for name in COLUMNS if COLUMNS[name] in ("text", "char(12)")]
    run(masked(tmp_path, source_db, destination_db, actions | {text: {"redact": "–"}}))
    replacements = {text: "–", char: "[redacted]"}
    for before, after in zip(as_texts(source_db, "{}"), loaded(destination_db), strict=True):
        for name, value, outcome in zip(COLUMNS, before, after, strict=True):
            is_text = COLUMNS[name] in STRINGS and value is not None
            assert outcome == (replacements.get(name, "[redacted]") if is_text else None), name
    not_null = "SELECT attname FROM pg_attribute WHERE attrelid = 'raw.people'::regclass AND attnotnull AND attnum > 0"
    assert destination_db.fetch(not_null) == [("id",)]


def test_a_hashed_key_still_tells_rows_apart(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    source_db.execute("CREATE TABLE people (id uuid PRIMARY KEY, note text)")
    source_db.execute("INSERT INTO people SELECT gen_random_uuid(), 'note ' || i FROM generate_series(1, 1000) i")
    pipeline = masked(tmp_path, source_db, destination_db, {"id": "hash"}, salt="${MASK_SALT}", write_mode="upsert")
    run(pipeline, environ=ENVIRON)
    source_db.execute("UPDATE people SET note = 'changed' WHERE note LIKE '%7'")
    run(pipeline, environ=ENVIRON)
    counted = "SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE note = 'changed') FROM raw.people"
    assert destination_db.fetch(counted) == [(1000, 1000, 100)]


def test_a_key_is_not_destroyed_and_a_column_that_is_missing_is_told_before_a_row_moves(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(
        "CREATE TABLE people (id int PRIMARY KEY, email text); INSERT INTO people VALUES (1, 'a@b.example')"
    )
    for columns, message in (
        (
            {"id": "redact"},
            "columns.id: id is part of the key of stream people, and redact would make different keys the same",
        ),
        ({"emial": "redact"}, "columns.emial: stream people has no column emial"),
    ):
        pipeline = masked(tmp_path, source_db, destination_db, columns)
        with pytest.raises(RapidbyteError) as caught:
            run(pipeline)
        assert (caught.value.info.kind, caught.value.info.message) == (Kind.CONFIG, message)
        found = [finding for finding in check_pipeline(pipeline, {}) if finding.level == "error"]
        assert [(finding.stage, finding.stream, finding.message) for finding in found] == [
            (Stage.TRANSFORM, "people", message)
        ]
    assert destination_db.fetch_value("SELECT to_regclass('raw.people')") is None


def test_what_the_destination_refuses_is_kept_behind_the_mask(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("CREATE TABLE people (id int, email text)")
    source_db.execute("INSERT INTO people SELECT i, 'person' || i || '@b.example' FROM generate_series(1, 100) i")
    destination_db.execute("CREATE SCHEMA raw; CREATE TABLE raw.people (id int CHECK (id <> 7), email text)")
    pipeline = masked(
        tmp_path,
        source_db,
        destination_db,
        {"email": {"keep_last": 10}},
        destination_section={"on_data_error": "dlq"},
    )
    result = run(pipeline)
    assert (result.rows, result.dead_letters) == (99, 1)
    with open_state(pipeline, {}) as state:
        [letter] = state.dead_letters("shop", "people").to_pylist()
    assert '"*******@b.example"' in letter["record_json"]
    assert "person" not in str(letter)


def test_long_values_are_masked_or_fail_as_what_they_are(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("CREATE TABLE people (id int, a text, b text, c text)")
    source_db.execute("INSERT INTO people SELECT 1, repeat('é', 2000000), repeat('b', 4000000), repeat('c', 4000000)")
    columns = {"a": "hash", "b": {"truncate": 20}, "c": {"keep_last": 4}}
    streams = [{"name": "people"}]
    run(masked(tmp_path, source_db, destination_db, columns, salt=SALT, streams=streams))
    [values] = destination_db.fetch("SELECT a, b, c FROM raw.people")
    assert values == (digest("é" * 2_000_000), "b" * 20, "*" * 3_999_996 + "cccc")
    small = masked(
        tmp_path, source_db, destination_db, columns, salt=SALT, streams=streams, limits={"max_memory": 12 * MEGABYTE}
    )
    with pytest.raises(RapidbyteError) as caught:
        run(small)
    assert caught.value.info.kind is Kind.RESOURCE
    assert destination_db.fetch_value("SELECT count(*) FROM raw.people") == 1


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "transforms[0].config.columns: required, but missing"),
        ({"columns": {}}, "transforms[0].config.columns: found a mapping; allowed: at least 1 key"),
        ({"columns": {"email": "hash"}}, "transforms[0].config.salt: required, but missing"),
        (
            {"columns": {"email": "hsh"}},
            "transforms[0].config.columns.email: found 'hsh'; allowed: hash, redact; did you mean 'hash'?",
        ),
        (
            {"columns": {"email": {"truncate": 0}}},
            "transforms[0].config.columns.email.truncate: found the number 0; allowed: at least 1",
        ),
        (
            {"columns": {"email": {"keep": 4}}},
            "transforms[0].config.columns.email.keep: unknown key; allowed: redact, truncate, keep_last",
        ),
        (
            {"columns": {"email": 4}},
            "transforms[0].config.columns.email: found the number 4; allowed: a text or a mapping (put it in quotes)",
        ),
        (
            {"columns": {"email": "hash"}, "salt": "short"},
            "transforms[0].config.salt: found a value that is not shown here; allowed: at least 16 characters",
        ),
    ],
)
def test_a_config_that_is_wrong_is_told_when_it_is_loaded(
    tmp_path: Path, config: Mapping[str, Any], problem: str
) -> None:
    database = {"host": "h", "user": "u", "database": "d"}
    with pytest.raises(ConfigError) as caught:
        make_pipeline(tmp_path, database, database, ["people"], transforms=[{"use": "mask", "config": dict(config)}])
    assert any(re.search(rf"shop\.yaml:\d+: {re.escape(problem)}", line) for line in str(caught.value).splitlines())
