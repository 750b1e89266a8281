"""Every type that can be a key as the key of an upsert."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.errors import SchemaError
from tests.pipelines import make_pipeline, run
from tests.postgres_server import unique_name
from tests.roundtrip.builtin_types import EVERY_CASE, FAMILIES, Case
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.keys import create_composite, create_keyed
from tests.roundtrip.movement import Pair
from tests.roundtrip.upserts import assert_upserts

WITHOUT_ORDER = {
    *("json", "jsonpath", "xid", "cid", "aclitem", "refcursor", "txid_snapshot", "pg_snapshot"),
    *("point", "lseg", "box", "path", "polygon", "circle", "line"),
}
"""Types that no index can say equality of."""

EVERY_TYPE = [
    pytest.param(case, array, id=f"{number}, {case.type}{', in arrays' if array else ''}")
    for number, case in enumerate(EVERY_CASE)
    for array in (False, True)
    if case.type not in WITHOUT_ORDER
]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "shapes"])
def test_all_types_of_a_family_together_are_a_key(tmp_path: Path, pair: Pair, family: str) -> None:
    table = f"{family} as a key"
    key = create_composite(pair.source, table, [case for case in FAMILIES[family] if case.type not in WITHOUT_ORDER])
    assert assert_upserts(tmp_path, pair, table).primary_key == key


@pytest.mark.full
@pytest.mark.parametrize(("case", "array"), EVERY_TYPE)
def test_every_type_with_an_order_is_a_key(tmp_path: Path, pair: Pair, case: Case, array: bool) -> None:
    table = unique_name("key")
    rows = create_keyed(pair.source, table, case, array=array)
    assert rows > 1
    result = assert_upserts(tmp_path, pair, table)
    assert (result.rows, result.primary_key) == (rows, ("k",))


@pytest.mark.full
@pytest.mark.parametrize("type_name", sorted(WITHOUT_ORDER))
def test_a_type_without_an_order_is_no_key(tmp_path: Path, pair: Pair, type_name: str) -> None:
    table = unique_name("unordered")
    pair.source.execute(f"CREATE TABLE {table} (k {type_name} NOT NULL, v text)")
    stream = {"name": table, "primary_key": ["k"]}
    pipeline = make_pipeline(tmp_path, pair.source, pair.destination, [stream], write_mode="upsert")
    with pytest.raises(SchemaError, match="no default operator class"):
        run(pipeline)
    assert pair.destination.fetch_value("SELECT to_regclass(%s) IS NULL", [f"raw.{table}"])


EQUAL = {
    "numeric": ("1.0", "1.00"),
    "real": ("0", "-0"),
    "double precision": ("-0", "0"),
    "interval": ("1 mon 1 day", "31 days"),
    "bpchar": ("a", "a  "),
    "jsonb": ('{"a": 1.0}', '{"a": 1.00}'),
    "numrange": ("[1.0,2)", "[1.00,2.00)"),
    "nummultirange": ("{[1.0,2)}", "{[1.00,2.00)}"),
    "numeric[]": ("{1.0,NULL}", "{1.00,NULL}"),
    "double precision[]": ("{0,NaN}", "{-0,NaN}"),
    "amount": ("1.0", "1.00"),
    "amounts": ("(1.0,0)", "(1.00,-0)"),
}
"""Values that the type's `=` calls equal though they are not the same."""

EACH_EQUAL = pytest.mark.parametrize(
    "type_name",
    [
        pytest.param(name, marks=[] if name in ("numeric", "bpchar", "amounts") else [pytest.mark.full])
        for name in EQUAL
    ],
)


@pytest.fixture(scope="module")
def typed_pair(pair: Pair) -> Pair:
    for database in (pair.source, pair.destination):
        database.execute("CREATE DOMAIN amount AS numeric; CREATE TYPE amounts AS (n numeric, f float8)")
    return pair


@EACH_EQUAL
def test_a_key_that_is_equal_but_not_the_same_becomes_what_the_source_has(
    tmp_path: Path, typed_pair: Pair, type_name: str
) -> None:
    first, second = EQUAL[type_name]
    table = unique_name("equal")
    typed_pair.source.execute(
        f"CREATE TABLE {table} (v text, k {type_name} PRIMARY KEY); INSERT INTO {table} VALUES ('same', '{first}')"
    )
    pipeline = make_pipeline(tmp_path, typed_pair.source, typed_pair.destination, [table], write_mode="upsert")
    for value in (first, second, first):
        typed_pair.source.execute(f"UPDATE {table} SET k = '{value}'")
        run(pipeline)
        assert_same(Table(typed_pair.source, "public", table), Table(typed_pair.destination, "raw", table))


@EACH_EQUAL
def test_of_equal_keys_the_one_that_comes_last_wins(tmp_path: Path, typed_pair: Pair, type_name: str) -> None:
    first, second = EQUAL[type_name]
    table = unique_name("equal")
    typed_pair.source.execute(
        f"CREATE TABLE {table} (n int, k {type_name});"
        f"INSERT INTO {table} VALUES (1, '{first}'), (2, '{second}'), (3, '{first}'), (4, '{second}')"
    )
    stream = {"name": table, "primary_key": ["k"]}
    pipeline = make_pipeline(tmp_path, typed_pair.source, typed_pair.destination, [stream], write_mode="upsert")
    typed_pair.source.execute(
        f"CREATE TABLE {table}_last (n int, k {type_name} PRIMARY KEY);"
        f"INSERT INTO {table}_last SELECT * FROM {table} WHERE n = 4"
    )
    for _ in range(2):
        run(pipeline)
        assert_same(Table(typed_pair.source, "public", f"{table}_last"), Table(typed_pair.destination, "raw", table))
