"""The table of docs/schema-evolution.md: upsert."""

from __future__ import annotations

from tests.evolution.conftest import MakeTrial
from tests.evolution.scenarios import Cell
from tests.evolution.table import assert_holds, cells, each


@each(cells("upsert"))
def test_the_table_holds_for_upsert(make_trial: MakeTrial, cell: Cell) -> None:
    assert_holds(make_trial("upsert", shards=cell.way.shards), cell)
