"""The table of docs/schema-evolution.md: replace."""

from __future__ import annotations

from tests.evolution.conftest import MakeTrial
from tests.evolution.scenarios import Cell
from tests.evolution.table import assert_holds, cells, each


@each(cells("replace"))
def test_the_table_holds_for_replace(make_trial: MakeTrial, cell: Cell) -> None:
    assert_holds(make_trial("replace", shards=cell.way.shards), cell)
