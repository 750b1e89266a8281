"""Which statements transform-sql takes: one row in, at most one row out, of nothing but that row."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pyarrow as pa
import pytest

from rapidbyte_dagster.errors import ConfigError, Kind
from rapidbyte_dagster.transforms.duckdb_engine import Engine, EngineError
from rapidbyte_dagster.transforms.statement import Statement

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no DuckDB 2 for Python 3.10")

COLUMNS = ["id", "Name", "price", "created", "tags", "order"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(64 * 1024 * 1024, lambda: None)
    yield engine
    engine.close()


OTHER_ROWS = "its result depends on more than one row"
NOT_THE_ROW = "its result depends on something else than the row"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        # More than one row.
        ("SELECT sum(id) AS s FROM stream", OTHER_ROWS),
        ("SELECT count(*) AS n FROM stream", OTHER_ROWS),
        ("SELECT any_value(id) AS n FROM stream", OTHER_ROWS),
        ("SELECT id FROM stream WHERE price > avg(price)", OTHER_ROWS),
        ("SELECT count(*) FILTER (WHERE id > 1) AS n FROM stream", OTHER_ROWS),
        ("SELECT upper(string_agg(Name, ',')) AS n FROM stream", OTHER_ROWS),
        ("SELECT DISTINCT id FROM stream", OTHER_ROWS),
        ("SELECT DISTINCT ON (id) id FROM stream", OTHER_ROWS),
        ("SELECT row_number() OVER () AS n FROM stream", OTHER_ROWS),
        ("SELECT row_number() AS n FROM stream", OTHER_ROWS),
        ("SELECT sum(id) OVER (ORDER BY id) AS n FROM stream", OTHER_ROWS),
        ("SELECT lag(id) OVER (ORDER BY id) AS n FROM stream", OTHER_ROWS),
        ("SELECT id FROM stream QUALIFY row_number() OVER () = 1", OTHER_ROWS),
        ("SELECT id FROM stream GROUP BY id", OTHER_ROWS),
        ("SELECT id FROM stream GROUP BY ALL", OTHER_ROWS),
        ("SELECT id FROM stream GROUP BY GROUPING SETS ((id))", OTHER_ROWS),
        ("SELECT id FROM stream HAVING id > 1", OTHER_ROWS),
        ("SELECT id FROM stream LIMIT 1", OTHER_ROWS),
        ("SELECT id FROM stream OFFSET 1", OTHER_ROWS),
        ("SELECT id FROM stream LIMIT 10%", OTHER_ROWS),
        ("SELECT id FROM stream USING SAMPLE 3", OTHER_ROWS),
        ("SELECT id FROM stream TABLESAMPLE 10%", OTHER_ROWS),
        ("SELECT id FROM stream ORDER BY id", "in the order in which they come"),
        # Several rows of one.
        ("SELECT unnest(tags) AS tag FROM stream", "other rows than the one it is given"),
        ("SELECT regexp_split_to_table(Name, ',') AS tag FROM stream", "other rows than the one it is given"),
        # Other relations.
        ("SELECT a.id FROM stream a JOIN stream b USING (id)", "a join"),
        ("SELECT a.id FROM stream a, stream b", "a join"),
        ("SELECT id FROM stream UNION ALL SELECT id FROM stream", "there is no other relation"),
        ("WITH x AS (SELECT 1) SELECT id FROM stream", "there is no other relation"),
        ("SELECT (SELECT 1) AS n FROM stream", "a subquery"),
        ("SELECT id FROM stream WHERE id IN (SELECT 1)", "a subquery"),
        ("SELECT id FROM stream WHERE EXISTS (SELECT 1)", "a subquery"),
        ("SELECT id FROM (SELECT id FROM stream)", "a subquery"),
        ("SELECT id FROM users", "there is no relation but `stream`"),
        ("SELECT id FROM main.stream", "there is no relation but `stream`"),
        ("SELECT id FROM stream AS s(id)", "there is no relation but `stream`"),
        ("SELECT * FROM duckdb_settings()", "there is no relation but `stream`"),
        ("SELECT id FROM information_schema.tables", "there is no relation but `stream`"),
        ("SELECT 1 AS n", "it has no FROM stream"),
        ("VALUES (1)", "it is no SELECT FROM a relation"),
        ("DESCRIBE stream", "it is no SELECT FROM a relation"),
        ("PIVOT stream ON id USING sum(price)", "it is no SELECT"),
        # Files, and whatever is outside.
        ("SELECT * FROM '/etc/passwd'", "there is no relation but `stream`"),
        ("SELECT * FROM read_csv('/etc/passwd')", "there is no relation but `stream`"),
        ("SELECT read_text('/etc/passwd') AS t FROM stream", "other rows than the one it is given"),
        ("SELECT getenv('HOME') AS t FROM stream", "there is no function getenv"),
        ("COPY stream TO '/tmp/x'", "it is no SELECT"),
        ("ATTACH '/tmp/x.db'", "it is no SELECT"),
        ("INSTALL httpfs", "it is no SELECT"),
        ("LOAD httpfs", "it is no SELECT"),
        ("SET threads = 8", "it is no SELECT"),
        ("PRAGMA version", "it is no SELECT"),
        ("CREATE TABLE t AS SELECT id FROM stream", "it is no SELECT"),
        ("DELETE FROM stream", "it is no SELECT"),
        ("EXPLAIN SELECT id FROM stream", "it is no SELECT"),
        ("SELECT id FROM stream; DROP TABLE stream", "only SELECT|it is no SELECT|it has 2 statements"),
        ("SELECT id FROM stream; SELECT id FROM stream", "it has 2 statements"),
        (";", "it is empty"),
        ("SELEC id FROM stream", "syntax error"),
        # Anything but the row.
        ("SELECT random() AS r FROM stream", NOT_THE_ROW),
        ("SELECT gen_random_uuid() AS r FROM stream", NOT_THE_ROW),
        ("SELECT uuidv7() AS r FROM stream", NOT_THE_ROW),
        ("SELECT now() AS t FROM stream", NOT_THE_ROW),
        ("SELECT current_date AS t FROM stream", NOT_THE_ROW),
        ("SELECT id FROM stream WHERE created > current_timestamp", NOT_THE_ROW),
        ("SELECT current_localtimestamp() AS t FROM stream", NOT_THE_ROW),
        ("SELECT today() AS t FROM stream", NOT_THE_ROW),
        ("SELECT age(created) AS t FROM stream", NOT_THE_ROW),
        ("SELECT ago(INTERVAL 1 DAY) AS t FROM stream", NOT_THE_ROW),
        ("SELECT nextval('s') AS n FROM stream", NOT_THE_ROW),
        ("SELECT current_setting('memory_limit') AS n FROM stream", NOT_THE_ROW),
        ("SELECT getvariable('x') AS n FROM stream", NOT_THE_ROW),
        ("SELECT txid_current() AS n FROM stream", NOT_THE_ROW),
        ("SELECT current_user AS n FROM stream", NOT_THE_ROW),
        ("SELECT error('no') AS n FROM stream", NOT_THE_ROW),
        ("SELECT list_transform(tags, lambda t: random()) AS n FROM stream", NOT_THE_ROW),
        ("SELECT CASE WHEN id > 1 THEN random() END AS n FROM stream", NOT_THE_ROW),
        ("SELECT * REPLACE (random() AS id) FROM stream", NOT_THE_ROW),
        ("SELECT $1 AS n FROM stream", "a parameter"),
        # Columns.
        ("SELECT mail FROM stream", "there is no column 'mail' in the stream, which has: id, Name, price"),
        ("SELECT other.id FROM stream", "there is no column 'other.id'"),
        ("SELECT stream FROM stream", "there is no column 'stream'"),
        ("SELECT * EXCLUDE (mail) FROM stream", "there is no column 'mail'"),
        ("SELECT #1 FROM stream", "a column by its number"),
        ("SELECT COLUMNS('i.*') FROM stream", "name the columns"),
        ("SELECT id + 1 FROM stream", r"\(id \+ 1\) has no name: give it one with AS"),
        ("SELECT id, id FROM stream", "two columns of the result are called 'id'"),
        ("SELECT *, price AS id FROM stream", "two columns of the result are called 'id'"),
    ],
)
def test_what_depends_on_anything_but_the_row_is_refused(engine: Engine, query: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Statement(engine, query).bind(COLUMNS)
    assert caught.value.kind is Kind.CONFIG
    assert caught.value.info.message.startswith("query: ")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("SELECT * FROM stream", COLUMNS),
        ("FROM stream SELECT id", ["id"]),
        ("select ID, NAME, stream.price from stream", ["id", "Name", "price"]),
        ("SELECT s.*, s.id AS again FROM stream AS s WHERE s.id > 1", [*COLUMNS, "again"]),
        ("SELECT * EXCLUDE (price) REPLACE (id + 1 AS id) RENAME (Name AS title) FROM stream", ["id", "title"]),
        ("SELECT \"order\" || 'x' AS x FROM stream", ["x"]),
        ("SELECT CASE WHEN id > 1 THEN 'a' ELSE 'b' END AS x, coalesce(Name, '') AS y FROM stream", ["x", "y"]),
        (
            "SELECT nullif(id, 1) AS a, split_part(Name, ',', 1) AS b, if(id > 1, 2, 3) AS c FROM stream",
            ["a", "b", "c"],
        ),
        (
            "SELECT list_filter(tags, lambda t: t > Name) AS x, [t FOR t IN tags IF t > 'a'] AS y FROM stream",
            ["x", "y"],
        ),
        ("SELECT age(created, TIMESTAMP '2020-01-01') AS x, created AT TIME ZONE 'UTC' AS y FROM stream", ["x", "y"]),
        ("SELECT TRY(1 // id) AS x, TRY_CAST(Name AS INTEGER) AS y FROM stream", ["x", "y"]),
        ("SELECT regexp_extract(Name, '(a+)', 1) AS x, md5(Name) AS y FROM stream WHERE Name ~ 'a'", ["x", "y"]),
        ("SELECT id FROM stream WHERE id BETWEEN 1 AND 2 AND NOT Name IN ('a', 'b') OR price IS NULL", ["id"]),
    ],
)
def test_what_depends_on_the_row_alone_is_taken(engine: Engine, query: str, names: list[str]) -> None:
    bound = Statement(engine, query).bind(COLUMNS)
    found = [output.name for output in bound.outputs]
    assert found[: len(names)] == names or set(names) <= set(found)
    assert set(bound.used) <= set(COLUMNS)


def test_columns_that_stay_as_they_are_are_told_from_computed_ones(engine: Engine) -> None:
    bound = Statement(engine, "SELECT price AS cost, id + 1 AS id FROM stream WHERE Name <> ''").bind(COLUMNS)
    assert [(output.name, output.source) for output in bound.outputs] == [("cost", "price"), ("id", None)]
    assert bound.used == ("id", "Name")


def test_names_that_differ_in_their_case_only_are_found_as_they_are_written(engine: Engine) -> None:
    columns = ["id", "ID"]
    bound = Statement(engine, 'SELECT "ID" AS a, id AS b FROM stream').bind(columns)
    assert [output.source for output in bound.outputs] == ["ID", "id"]
    with pytest.raises(ConfigError, match="'Id' may be any of: id, ID"):
        Statement(engine, "SELECT Id FROM stream").bind(columns)
    with pytest.raises(ConfigError, match="computes with 'id' and 'ID', which DuckDB cannot tell apart"):
        Statement(engine, 'SELECT id + "ID" AS x FROM stream').bind(columns)


@pytest.mark.parametrize(
    "expression",
    [
        "a + b * c",
        "NOT a AND b OR c",
        "a::decimal(10, 2)",
        "CASE a WHEN 1 THEN 'x' ELSE 'y' END",
        "a NOT BETWEEN 1 AND 2",
        "a IN (1, 2, NULL)",
        "a IS NOT DISTINCT FROM b",
        "s NOT ILIKE 'a%'",
        "s SIMILAR TO 'x'",
        "d ->> '$.x'",
        "a[1:2]",
        "list_transform(l, lambda x, i: x + i)",
        "a + INTERVAL (b) DAY",
        "extract(year FROM d)",
        "substring(a FROM 1 FOR 2)",
        "trim(BOTH 'x' FROM a)",
        "d AT TIME ZONE 'UTC'",
        "'it''s' || \"weird \"\" name\"",
        "- 5 ** 2",
        "a // b % c",
        "~a & b << 2",
        "'\\xff'::blob",
        "a COLLATE nocase = 'x'",
        "(a, b) = (1, 2)",
        "$$x$$ || e'\\n'",
        "1e10 + 1.50 + 1_000",
    ],
)
def test_the_text_of_an_expression_means_what_its_tree_means(engine: Engine, expression: str) -> None:
    """DuckDB is given texts that are made of trees: to read them again must give the same trees."""
    [tree] = engine.parse(f"SELECT {expression}")["statements"][0]["node"]["select_list"]
    [again] = engine.parse(f"SELECT {engine.unparse(tree)}")["statements"][0]["node"]["select_list"]
    assert without_places(again) == without_places(tree)


def without_places(tree: object) -> object:
    if isinstance(tree, list):
        return [without_places(each) for each in tree]
    if isinstance(tree, dict):
        return {key: without_places(value) for key, value in tree.items() if not key.startswith("query_location")}
    return tree


def test_no_function_of_the_catalog_looks_at_the_clock_or_at_chance(engine: Engine) -> None:
    """Whatever can be called without an argument, and is taken, is a constant."""
    engine.functions("upper")
    names = [
        name
        for name, found in engine._functions.items()
        if name.isidentifier() and any(each.kind in ("scalar", "macro") and not each.parameters for each in found)
    ]
    assert {"pi", "now", "random"} <= set(names)
    taken = []
    for name in names:
        try:
            Statement(engine, f"SELECT {name}() AS x FROM stream").bind(COLUMNS)
        except ConfigError:
            continue
        with contextlib.suppress(EngineError):
            engine.query(f"SELECT {name}()", pa.record_batch({"id": [1]}))
            taken.append(name)
    assert set(taken) == CONSTANTS, "look at what the others do"


CONSTANTS = {"current_role", "current_user", "inet_client_addr", "inet_client_port", "inet_server_addr"} | {
    *("inet_server_port", "pg_my_temp_schema", "pi", "session_user", "version"),
    # Empty lists, objects and rows.
    *("add", "array_cat", "array_concat", "json_array", "json_object", "list_cat", "list_concat", "list_pack"),
    *("list_value", "map", "row", "struct_pack", "unpivot_list"),
}
"""`current_user` is 'duckdb'."""
