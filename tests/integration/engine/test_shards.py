"""A table that several pairs of connectors move side by side."""

from __future__ import annotations

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
