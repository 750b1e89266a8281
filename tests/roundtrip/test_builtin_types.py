"""Every built-in type, its edge values and its arrays: what arrives is what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres_server import unique_name
from tests.roundtrip.builtin_types import EVERY_CASE, FAMILIES, WITHOUT_INPUT
from tests.roundtrip.increments import WAYS, Way, assert_follows
from tests.roundtrip.movement import Pair, assert_moves
from tests.roundtrip.shards import assert_moves_in_shards
from tests.roundtrip.tables import SHEETS
from tests.roundtrip.upserts import assert_single_changes_are_seen, assert_upserts


def test_no_type_of_the_server_is_left_out(pair: Pair) -> None:
    rows = pair.source.fetch(
        """
        SELECT t.typname::text FROM pg_type t
        WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'e', 'd', 'c', 'r', 'm')
          AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
          AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid)
        """
    )
    covered = pair.source.fetch(
        "SELECT DISTINCT t.typname::text FROM unnest(%s::text[]) AS name JOIN pg_type t ON t.oid = name::regtype",
        [[case.type for case in EVERY_CASE]],
    )
    assert {name for [name] in rows} == {name for [name] in covered} | set(WITHOUT_INPUT)


EACH_SHEET = pytest.mark.parametrize(
    ("family", "sheet"),
    [
        pytest.param(family, sheet, id=f"{family}, {sheet}", marks=[] if sheet == "scalars" else [pytest.mark.full])
        for family in FAMILIES
        for sheet in SHEETS
    ],
)


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_value_of_every_type_arrives(tmp_path: Path, pair: Pair, family: str, sheet: str) -> None:
    table = f"{family}, {sheet}"
    SHEETS[sheet](FAMILIES[family]).create(pair.source, table)
    assert_moves(tmp_path, pair, table)


@EACH_SHEET
def test_every_value_of_every_type_is_upserted(tmp_path: Path, pair: Pair, family: str, sheet: str) -> None:
    table = f"{family}, {sheet}, upserted"
    SHEETS[sheet](FAMILIES[family]).create(pair.source, table)
    assert_upserts(tmp_path, pair, table)


@EACH_SHEET
def test_a_change_of_a_single_value_is_upserted(tmp_path: Path, pair: Pair, family: str, sheet: str) -> None:
    table = f"{family}, {sheet}, changed"
    SHEETS[sheet](FAMILIES[family]).create(pair.source, table)
    assert_single_changes_are_seen(tmp_path, pair, table)


@pytest.mark.parametrize(
    ("family", "sheet", "way"),
    [
        pytest.param(
            family,
            sheet,
            way,
            id=f"{family}, {sheet}, {way}",
            marks=[] if sheet == "scalars" and way is WAYS[number % len(WAYS)] else [pytest.mark.full],
        )
        for number, family in enumerate(FAMILIES)
        for sheet in SHEETS
        for way in WAYS
    ],
)
def test_every_value_of_every_type_arrives_run_by_run(
    tmp_path: Path, pair: Pair, family: str, sheet: str, way: Way
) -> None:
    table = f"{family}, {sheet}, {way}"
    SHEETS[sheet](FAMILIES[family]).create(pair.source, table)
    assert_follows(tmp_path, pair, table, way)


@pytest.mark.parametrize(
    ("family", "sheet", "partition_key"),
    [
        pytest.param(
            family,
            sheet,
            partition_key,
            id=f"{family}, {sheet}, by {partition_key or 'blocks'}",
            marks=[] if sheet == "scalars" and family in ("numbers", "times") and partition_key else [pytest.mark.full],
        )
        for family in FAMILIES
        for sheet in SHEETS
        for partition_key in (None, "n")
    ],
)
def test_every_value_of_every_type_arrives_in_shards(
    tmp_path: Path, pair: Pair, family: str, sheet: str, partition_key: str | None
) -> None:
    table = unique_name("sharded")
    SHEETS[sheet](FAMILIES[family]).create(pair.source, table)
    assert_moves_in_shards(tmp_path, pair, table, partition_key=partition_key)
