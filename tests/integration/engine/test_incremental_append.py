"""Rows that come again are added again: an append keeps every version that a run has read."""

from __future__ import annotations

from pathlib import Path

from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database


def test_a_row_that_changed_is_added_as_it_is_now(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at int NOT NULL, v text); INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')"
    )
    stream = {"name": "t", "sync_mode": "incremental", "cursor_field": "at"}
    pipeline = make_pipeline(tmp_path, source_db, destination_db, [stream])
    assert run(pipeline).rows == 2
    source_db.execute("UPDATE t SET at = 3, v = 'changed' WHERE id = 1")
    assert run(pipeline).rows == 1
    assert run(pipeline).rows == 0
    assert destination_db.fetch("SELECT id, v FROM raw.t ORDER BY at") == [(1, "a"), (2, "b"), (1, "changed")]


def test_a_full_refresh_adds_all_rows_again(tmp_path: Path, source_db: Database, destination_db: Database) -> None:
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    pipeline = make_pipeline(tmp_path, source_db, destination_db, ["t"])
    run(pipeline)
    run(pipeline)
    assert destination_db.fetch("SELECT id FROM raw.t ORDER BY 1") == [(1,), (1,), (2,), (2,)]
