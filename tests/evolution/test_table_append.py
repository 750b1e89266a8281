"""The table of docs/schema-evolution.md: append."""

from __future__ import annotations

from tests.evolution.conftest import MakeTrial
from tests.evolution.scenarios import Cell
from tests.evolution.table import assert_holds, cells, each


@each(cells("append"))
def test_the_table_holds_for_append(make_trial: MakeTrial, cell: Cell) -> None:
    assert_holds(make_trial("append", shards=cell.way.shards), cell)
