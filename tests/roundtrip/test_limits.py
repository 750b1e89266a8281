"""The values of docs/types.md that cannot cross: an error that names the column, and nothing of the run is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.errors import Kind, SourceError
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database, unique_name
from tests.roundtrip.movement import Pair, assert_moves

# Counted from 1970, these two are the numbers that mean infinity and -infinity.
COLLISIONS = ("294247-01-10 04:00:54.775807", "294247-01-10 04:00:54.775808")
TOO_LONG = (
    "2562047:47:16.854776",
    "-2562047:47:16.854776",
    "3000000 hours",
    "1 mon -2147483648 days -2562047788:00:54",
)
# In a later batch than the first, which is at the destination by then.
FIRST = (COLLISIONS[0], TOO_LONG[0])
BEYOND = [
    *(("interval", literal) for literal in TOO_LONG),
    *(("timestamp", literal) for literal in COLLISIONS),
    *(("timestamptz", f"{literal}+00") for literal in COLLISIONS),
]


@pytest.mark.parametrize("array", [False, True], ids=["alone", "in an array"])
@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize(("type_name", "literal"), BEYOND)
def test_a_value_that_cannot_cross_stops_the_run_and_names_its_column(
    tmp_path: Path, pair: Pair, type_name: str, literal: str, mode: str, array: bool
) -> None:
    table = unique_name("beyond")
    value = f"ARRAY['{literal}'::{type_name}]" if array else f"'{literal}'::{type_name}"
    pair.source.execute(
        f'CREATE TABLE {table} AS SELECT i AS n, CASE WHEN i = 70000 THEN {value} END AS "The Column"'
        " FROM generate_series(1, 70001) i"
    )
    with pytest.raises(SourceError, match="The Column") as caught:
        run(make_pipeline(tmp_path, pair.source, pair.destination, [table], write_mode=mode))
    assert caught.value.kind is Kind.DATA
    assert "columns" in (caught.value.hint or "")
    assert pair.destination.fetch_value("SELECT to_regclass(%s) IS NULL", [f"raw.{table}"])


def test_what_was_there_before_such_a_value_stays(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("CREATE TABLE t (n int PRIMARY KEY, v interval); INSERT INTO t VALUES (1, '1 day')")
    for mode in ("append", "replace"):
        pipeline = make_pipeline(
            tmp_path, source_db, destination_db, [{"name": "t", "table": mode}], name=mode, write_mode=mode
        )
        run(pipeline)
        source_db.execute("UPDATE t SET v = '3000000 hours', n = n + 1")
        before = destination_db.fetch(f"SELECT ctid::text, xmin::text, t::text FROM raw.{mode} t")
        with pytest.raises(SourceError, match="v"):
            run(pipeline)
        assert destination_db.fetch(f"SELECT ctid::text, xmin::text, t::text FROM raw.{mode} t") == before
        assert (
            destination_db.fetch_value("SELECT sequence FROM raw._rapidbyte_watermarks WHERE pipeline = %s", [mode])
            == 1
        )
        source_db.execute("UPDATE t SET v = '1 day'")


def test_they_cross_as_text_as_the_hint_says(tmp_path: Path, pair: Pair) -> None:
    """And inside of whatever crosses as text anyway."""
    for database in (pair.source, pair.destination):
        database.execute(
            "CREATE DOMAIN lasting AS interval; CREATE TYPE when_and_how_long AS (w timestamp, h interval)"
        )
    pair.source.execute("CREATE TABLE moments (n serial, w timestamp, h interval)")
    for moment, length in zip(COLLISIONS, TOO_LONG[:2], strict=True):
        pair.source.execute(f"INSERT INTO moments (w, h) VALUES ('{moment}', '{length}')")
    pair.source.execute(
        """
        CREATE VIEW moments_as_text AS
        SELECT n, w::text AS w, h::text AS h, h::lasting AS d, ROW(w, h)::when_and_how_long AS c,
               ARRAY[[w], [w]] AS ws, ARRAY[[h], [NULL::interval]] AS hs, tsrange(w, w, '[]') AS r
        FROM moments
        """
    )
    with pytest.raises(SourceError, match=r"column [wh] "):
        assert_moves(tmp_path, pair, "moments")
    assert_moves(tmp_path, pair, "moments_as_text")
    assert_moves(tmp_path, pair, "moments", columns=["n"])
