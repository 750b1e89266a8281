"""Changes that the source cannot tell: for what is in them, or for their size. `on_data_error` decides about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.state import open_state
from tests.cdc.replication import Replication
from tests.postgres_server import Database, MakeDatabase

TABLES = """
    CREATE TABLE items (id int PRIMARY KEY, name text, tags text[], done boolean);
    CREATE TABLE others (id int PRIMARY KEY);
    INSERT INTO items VALUES (1, 'one', '{a}', true), (2, 'two', '{b}', false), (3, 'three', NULL, NULL);
"""

CHANGES = (
    r"INSERT INTO items VALUES (4, E'caf\xe9', '{x}', true), (5, 'five', NULL, true); INSERT INTO others VALUES (1)",
    r"UPDATE items SET tags = ARRAY[E'\xe9', NULL, E'a\x22'] WHERE id = 1; UPDATE items SET done = true WHERE id = 2",
    "DELETE FROM items WHERE id = 3; INSERT INTO others VALUES (2)",
)

MakeUnknown = Callable[..., Replication]


@pytest.fixture
def replicate_unknown(tmp_path: Path, make_database: MakeDatabase, destination: Database) -> MakeUnknown:
    """A pipeline out of a database that does not know its texts' encoding."""

    def make(on_data_error: str, **options: Any) -> Replication:
        source = make_database("ascii", encoding="SQL_ASCII")
        source.execute(f"ALTER DATABASE {source.name} SET synchronous_commit = on", superuser=True)
        sections = {"destination_section": {"on_data_error": on_data_error}}
        replication = Replication(tmp_path, source, destination, ("items", "others"), sections=sections, **options)
        source.execute(TABLES)
        replication.catch_up()
        return replication

    return make


def letters_of(replication: Replication) -> list[dict[str, Any]]:
    with open_state(replication.pipeline, {}) as state:
        found: list[dict[str, Any]] = state.dead_letters(replication.pipeline.name, "items").to_pylist()
    return found


def drop_slot(replication: Replication) -> None:
    """Before its database goes."""
    replication.source.execute("SELECT pg_drop_replication_slot('rapidbyte_replica')", superuser=True)


def test_changes_with_texts_that_are_not_utf8_become_dead_letters(replicate_unknown: MakeUnknown) -> None:
    replication = replicate_unknown("dlq")
    for change in CHANGES:
        replication.source.execute(change)
    results = replication.catch_up()
    assert (results["items"].rows, results["items"].dead_letters, results["items"].rejected) == (3, 2, 2)
    assert results["others"].dead_letters == 0
    assert replication.rows("items") == [(1, "one", ["a"], True), (2, "two", ["b"], True), (5, "five", None, True)]
    replication.assert_mirrors("others")
    inserted, updated = letters_of(replication)
    assert json.loads(inserted["record_json"]) == {
        "_rb_op": "insert", "id": 4, "name": r"\x636166e9", "tags": "{x}", "done": True
    }  # fmt: skip
    assert json.loads(inserted["types_json"]) == {
        "_rb_op": "text", "id": "integer", "name": "bytea", "tags": "text[]", "done": "boolean"
    }  # fmt: skip
    assert (inserted["error_category"], inserted["sqlstate"], inserted["column_name"]) == (
        "invalid_text",
        "22021",
        "name",
    )
    assert "column name (text) of public.items holds bytes that are not UTF-8: 0xe9 at byte 4 (id 4)" in str(
        inserted["error_message"]
    )
    assert json.loads(updated["record_json"])["tags"] == r'{"\\xe9",NULL,"\\x6122"}'
    assert json.loads(updated["types_json"])["tags"] == "bytea[]"
    # They are done with.
    assert replication.catch_up()["items"].dead_letters == 0
    assert len(letters_of(replication)) == 2
    drop_slot(replication)


def test_changes_with_texts_that_are_not_utf8_are_counted_where_they_are_skipped(
    replicate_unknown: MakeUnknown,
) -> None:
    replication = replicate_unknown("skip")
    for change in CHANGES:
        replication.source.execute(change)
    lines: list[str] = []
    result = replication.catch_up(on_log=lambda level, line: lines.append(line) if level == 30 else None)["items"]
    assert (result.rejected, result.dead_letters) == (2, 0)
    assert [row[0] for row in replication.rows("items")] == [1, 2, 5]
    assert any("2 changes were left out" in line for line in lines)
    assert not any("caf" in line for line in lines)
    drop_slot(replication)


def test_letters_of_a_history_have_its_columns(replicate_unknown: MakeUnknown) -> None:
    replication = replicate_unknown("dlq", write_mode="append")
    for change in CHANGES:
        replication.source.execute(change)
    assert replication.catch_up()["items"].dead_letters == 2
    inserted, updated = (json.loads(letter["record_json"]) for letter in letters_of(replication))
    assert (inserted["_rb_op"], updated["_rb_op"]) == ("insert", "update")
    [beside] = replication.rows("items", "_rb_lsn::text, _rb_seq, _rb_commit_ts::text", "1, 2, 3")[3:4]
    assert (inserted["_rb_lsn"], inserted["_rb_seq"]) == (beside[0], 1)
    assert inserted["_rb_unchanged"] is None
    parsed = "SELECT %s::timestamptz = _rb_commit_ts FROM raw.items WHERE id = 5"
    assert replication.destination.fetch_value(parsed, [inserted["_rb_commit_ts"]]) is True
    drop_slot(replication)


def test_a_text_that_is_not_utf8_stops_its_stream_and_no_other_where_nothing_else_is_said(
    replicate_unknown: MakeUnknown,
) -> None:
    replication = replicate_unknown("fail")
    for change in CHANGES:
        replication.source.execute(change)
    outcome = replication.run().streams["items"]
    assert isinstance(outcome, RapidbyteError)
    assert outcome.kind is Kind.DATA
    assert "stream items: column name (text) of public.items holds bytes that are not UTF-8" in str(outcome)
    replication.assert_mirrors("others")
    drop_slot(replication)


@pytest.mark.parametrize("on_data_error", ["dlq", pytest.param("skip", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("megabytes", "limit"),
    [
        pytest.param(40, "64kB", id="not to be received"),
        pytest.param(40, "1GB", id="not to be received at its end", marks=pytest.mark.full),
        pytest.param(25, "1GB", id="not to be turned into columns", marks=pytest.mark.full),
    ],
)
def test_a_change_larger_than_the_memory_is_set_aside_with_its_key(
    tmp_path: Path, source: Database, destination: Database, on_data_error: str, megabytes: int, limit: str
) -> None:
    sections = {"resources": {"max_memory": "48mb"}, "destination_section": {"on_data_error": on_data_error}}
    replication = Replication(tmp_path, source, destination, ("items", "others"), sections=sections)
    source.execute(f"ALTER DATABASE {source.name} SET logical_decoding_work_mem = '{limit}'", superuser=True)
    source.execute(TABLES)
    replication.catch_up()
    source.execute(
        "INSERT INTO items SELECT i, 'item' FROM generate_series(1000, 4000) i;"
        f"UPDATE items SET name = repeat('x', {megabytes * 1_000_000}) WHERE id = 2;"
        "INSERT INTO others VALUES (1); DELETE FROM items WHERE id = 1"
    )
    source.execute("INSERT INTO items VALUES (7, 'after')")
    result = replication.catch_up()["items"]
    assert result.rejected == 1
    replication.assert_mirrors("others")
    rows = replication.rows("items", "id, name")
    assert rows == source.fetch("SELECT id, CASE id WHEN 2 THEN 'two' ELSE name END FROM items ORDER BY id")
    if on_data_error == "dlq":
        [letter] = letters_of(replication)
        assert (letter["error_category"], letter["record_json"]) == ("oversized", "null")
        assert f"a change of public.items has {megabytes}0000" in letter["error_message"]
        assert "(id 2)" in letter["error_message"]


def test_a_change_is_set_aside_once_though_the_run_begins_again_without_another_stream(
    replicate_unknown: MakeUnknown,
) -> None:
    replication = replicate_unknown("dlq")
    replication.streams = ("items", {"name": "others", "truncate": "fail"})
    for change in CHANGES:
        replication.source.execute(change)
    # What others got before it stops is applied already, and has to be taken back.
    replication.source.execute(
        "INSERT INTO others VALUES (3); ALTER TABLE others ADD n int; INSERT INTO others VALUES (4); TRUNCATE others"
    )
    results = replication.run().streams
    assert isinstance(results["others"], RapidbyteError)
    assert getattr(results["items"], "dead_letters", None) == 2
    assert len(letters_of(replication)) == 2
    drop_slot(replication)
