"""A table that several pairs of connectors move side by side."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database


@pytest.mark.parametrize("write_mode", ["append", "replace", "upsert"])
def test_a_table_in_shards_arrives_like_one_in_one_piece(
    tmp_path: Path, source_db: Database, destination_db: Database, write_mode: str
) -> None:
    source_db.execute(
        "create table t (id int primary key, v text, a int[]);"
        "insert into t select n, repeat('x', 300), array[n] from generate_series(1, 20000) n;"
        "update t set a = '{{1,2},{3,4}}' where id = 19999"
    )
    pipeline = make_pipeline(tmp_path, source_db, destination_db, [{"name": "t", "shards": 3}], write_mode=write_mode)
    first = run(pipeline)
    assert first.rows == 20_000
    content = "select * from {}t order by id"
    assert destination_db.fetch(content.format("raw.")) == source_db.fetch(content.format(""))
    if write_mode == "append":
        return
    source_db.execute("update t set v = 'new' where id % 3 = 0; insert into t values (0, 'late', null)")
    run(pipeline)
    assert destination_db.fetch(content.format("raw.")) == source_db.fetch(content.format(""))


@pytest.mark.full
@pytest.mark.parametrize(("write_mode", "shards"), [("replace", 2), ("append", 0)])
def test_a_large_table_is_divided_by_itself_unless_its_rows_would_be_written_twice(
    tmp_path: Path, source_db: Database, destination_db: Database, write_mode: str, shards: int
) -> None:
    source_db.execute(
        "create unlogged table t (id int, v text); alter table t alter v set storage plain;"
        "insert into t select n, repeat('x', 8000) from generate_series(1, 70000) n; analyze t"
    )
    assert source_db.fetch_value("select pg_relation_size('t')") > 512 * 1024 * 1024
    lines: list[str] = []
    pipeline = make_pipeline(
        tmp_path, source_db, destination_db, ["t"], write_mode=write_mode, resources={"parallelism": 2}
    )
    assert run(pipeline, on_log=lambda _, line: lines.append(line)).rows == 70_000
    assert destination_db.fetch("select count(*), count(distinct id), sum(length(v)) from raw.t") == [
        (70_000, 70_000, 560_000_000)
    ]
    told = f"the table is read in {shards} shards at once"
    assert (told in lines) == bool(shards)


def test_more_shards_than_the_pipeline_may_use_are_told_of(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("create table t as select n as id from generate_series(1, 5000) n")
    lines: list[str] = []
    pipeline = make_pipeline(
        tmp_path, source_db, destination_db, [{"name": "t", "shards": 9}], resources={"parallelism": 2}
    )
    assert run(pipeline, on_log=lambda _, line: lines.append(line)).rows == 5000
    assert any("shards: 9 is more than there can be: resources.parallelism allows 2" in line for line in lines)
    assert "the table is read in 2 shards at once" in lines


@pytest.mark.parametrize(
    ("stream", "write_mode", "parallelism", "why"),
    [
        ({}, "append", 2, "an append is only divided into a number of `shards` that the file names"),
        ({}, "replace", 1, "resources.parallelism, which the pipeline's streams share, allows 1 each"),
        ({"shards": 2}, "replace", 1, "resources.parallelism allows 1"),
        ({}, "replace", 2, "it has 0 MB, and parts of 256 MB are worth a session"),
        ({"shards": 2}, "append", 2, "there is too little to divide: a value of partition_key"),
    ],
)
def test_a_partition_key_that_divides_nothing_is_told_of(
    tmp_path: Path,
    source_db: Database,
    destination_db: Database,
    stream: dict[str, int],
    write_mode: str,
    parallelism: int,
    why: str,
) -> None:
    source_db.execute("create table t as select 7 as id from generate_series(1, 100)")
    pipeline = make_pipeline(
        tmp_path,
        source_db,
        destination_db,
        [{"name": "t", "partition_key": "id", **stream}],
        write_mode=write_mode,
        resources={"parallelism": parallelism},
    )
    warnings: list[str] = []
    run(pipeline, on_log=lambda level, line: warnings.append(line) if level >= logging.WARNING else None)
    assert warnings == [f"the table is read in one piece, and not divided by its partition_key: {why}"]


def test_a_small_table_that_nobody_asked_to_divide_is_read_in_one_piece_without_a_warning(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("create table t as select 7 as id")
    lines: list[tuple[int, str]] = []
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["t"], write_mode="replace")
    run(pipeline, on_log=lambda level, line: lines.append((level, line)))
    assert [level for level, line in lines if "in one piece" in line] == [logging.DEBUG]
