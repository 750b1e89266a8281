"""Every built-in type, its edge values and its arrays: what arrives is what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.roundtrip.builtin_types import EVERY_CASE, FAMILIES, WITHOUT_INPUT
from tests.roundtrip.movement import Pair, assert_moves
from tests.roundtrip.tables import SHEETS


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


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_value_of_every_type_arrives(tmp_path: Path, pair: Pair, family: str, sheet: str) -> None:
    table = f"{family}, {sheet}"
    SHEETS[sheet](FAMILIES[family]).create(pair.source, table)
    assert_moves(tmp_path, pair, table)
