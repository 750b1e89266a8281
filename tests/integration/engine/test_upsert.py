"""Upserts from a pipeline file to the destination's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database


def test_runs_one_after_the_other_keep_the_destination_like_the_source(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(
        "create table events (at timestamptz, id bigint, part text, amount numeric, address inet,"
        " primary key (part, id));"
        "insert into events select now() + i * interval '1 s', i, 'p' || i % 3, i / 7.0, '10.0.0.1'"
        " from generate_series(1, 20000) i"
    )
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["events"], write_mode="upsert")
    first = run(pipeline)
    assert first.primary_key == ("part", "id")
    content = "select * from {}events order by part, id"
    assert destination_db.fetch(content.format("raw.")) == source_db.fetch(content.format(""))

    before = dict(destination_db.fetch("select (part, id)::text, xmin::text from raw.events"))
    source_db.execute(
        "update events set amount = -1 where id % 5 = 0;"
        "insert into events select now(), i, 'new', null, null from generate_series(1, 1000) i"
    )
    second = run(pipeline)
    assert second.rows == 21_000
    assert destination_db.fetch(content.format("raw.")) == source_db.fetch(content.format(""))
    after = dict(destination_db.fetch("select (part, id)::text, xmin::text from raw.events"))
    assert sum(after[key] != xmin for key, xmin in before.items()) == 4_000


def test_rows_that_left_the_source_stay_in_the_destination(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("create table users (id int primary key, name text); insert into users values (1, 'a'), (2, 'b')")
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["users"], write_mode="upsert")
    run(pipeline)
    source_db.execute("delete from users where id = 1; update users set name = 'B'")
    run(pipeline)
    assert destination_db.fetch("select * from raw.users order by id") == [(1, "a"), (2, "B")]


def test_an_upsert_without_any_key_moves_no_row(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    source_db.execute("create table users (id int, name text); insert into users values (1, 'a')")
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["users"], write_mode="upsert")
    with pytest.raises(RapidbyteError, match="without a key") as raised:
        run(pipeline)
    assert raised.value.kind is Kind.CONFIG
    assert destination_db.fetch_value("select to_regclass('raw.users') is null") is True


def test_a_named_key_of_a_stream_without_one_of_its_own(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("create table users (id int, name text); insert into users values (1, 'a'), (1, 'b'), (2, 'c')")
    stream = {"name": "users", "primary_key": ["id"]}
    result = run(make_pipeline(tmp_path, source_db, destination_db, [stream], write_mode="upsert"))
    assert result.primary_key == ("id",)
    assert destination_db.fetch("select id from raw.users order by id") == [(1,), (2,)]
