"""Every type that can be a cursor, over the ends of its range; and every one that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.errors import RapidbyteError
from tests.pipelines import run
from tests.postgres_server import unique_name
from tests.roundtrip.builtin_types import EVERY_CASE, Case
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.increments import USABLE, assert_resumes, incremental_pipeline
from tests.roundtrip.movement import LANDING, Pair

QUICK = {"numeric", "text", "timestamptz"}
CURSORS = [case for case in EVERY_CASE if USABLE.fullmatch(case.type)]
OTHERS = [case for case in EVERY_CASE if not USABLE.fullmatch(case.type)]


@pytest.mark.parametrize(
    ("case", "write_mode"),
    [
        pytest.param(
            case,
            mode,
            id=f"{number}, {case.type}, {mode}",
            marks=[] if case.type in QUICK and mode == "append" else [pytest.mark.full],
        )
        for number, case in enumerate(CURSORS)
        for mode in ("append", "upsert")
    ],
)
def test_a_stream_resumes_after_each_value_of_its_cursor(
    tmp_path: Path, pair: Pair, case: Case, write_mode: str
) -> None:
    assert assert_resumes(tmp_path, pair, case, write_mode) > 2


@pytest.mark.full
@pytest.mark.parametrize("case", [pytest.param(case, id=f"{n}, {case.type}") for n, case in enumerate(OTHERS)])
def test_a_type_without_such_an_order_is_no_cursor(tmp_path: Path, pair: Pair, case: Case) -> None:
    table = unique_name("unusable")
    pair.source.execute(
        f'CREATE TABLE {table} (n int PRIMARY KEY, "The Cursor" {case.type}\n); ALTER TABLE {table} OWNER TO etl',
        superuser=True,
    )
    with pytest.raises(RapidbyteError, match="The Cursor"):
        run(incremental_pipeline(tmp_path, pair, table, table, "The Cursor", "append"))
    assert pair.destination.fetch_value("SELECT to_regclass(%s) IS NULL", [f"raw.{table}"])


@pytest.mark.parametrize(
    ("definition", "tie_breaker"),
    [("", None), (", PRIMARY KEY (k)", None), (", PRIMARY KEY (n, k)", None), (", PRIMARY KEY (n)", "k")],
    ids=["whole rows", "key", "composite key", "tie-breaker"],
)
def test_rows_that_arrays_tell_apart_arrive_once_whatever_shape_later_ones_have(
    tmp_path: Path, pair: Pair, definition: str, tie_breaker: str | None
) -> None:
    """Arrays of one dimension travel in another form when others come along."""
    table = unique_name("arrays")
    pair.source.execute(
        f"CREATE TABLE {table} (c int, n int NOT NULL, k int[] NOT NULL{definition});"
        f"INSERT INTO {table} VALUES (1, 1, '{{1}}'), (1, 2, '{{2,NULL}}')"
    )
    pipeline = incremental_pipeline(tmp_path, pair, table, table, "c", "append", tie_breaker=tie_breaker)
    for arrays in ("{3}", "{{4},{5}}", "[0:1]={6,7}", "{}", None):
        run(pipeline)
        assert_same(Table(pair.source, "public", table), Table(pair.destination, LANDING, table), keyed=False)
        if arrays:
            pair.source.execute(f"INSERT INTO {table} SELECT 1, count(*) + 1, '{arrays}' FROM {table}")


def test_a_row_that_changes_back_under_the_same_cursor_arrives_as_it_is(tmp_path: Path, pair: Pair) -> None:
    """What was sent of a cursor value counts only as long as it is there."""
    table = unique_name("back")
    pair.source.execute(
        f"CREATE TABLE {table} (n int PRIMARY KEY, c int, v text); INSERT INTO {table} VALUES (1, 1, 'a')"
    )
    pipeline = incremental_pipeline(tmp_path, pair, table, table, "c", "upsert")
    for value, rows in (("a", 1), ("b", 1), ("a", 1), ("a", 0), ("b", 1), ("c", 1), ("b", 1)):
        pair.source.execute(f"UPDATE {table} SET v = '{value}'")
        assert run(pipeline).rows == rows
        assert_same(Table(pair.source, "public", table), Table(pair.destination, LANDING, table))
