"""Cases of a matrix as parameters of tests: all of them, and the few that stand for them in the quick selection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count

import pytest

from tests.recovery.cells import Cell
from tests.recovery.failpoints import FINAL, Failpoint

HARDEST = "COMMIT done, not acknowledged"
"""The failpoint that no mode gets right by chance."""


@dataclass(frozen=True)
class Case:
    cell: Cell
    failpoint: Failpoint
    quick: bool = False


def with_quick_ones(cases: Iterable[Case]) -> list[Case]:
    """Each failpoint is in the quick selection once, in one cell after the other.

    A cell that would have none gets the hardest one.
    """
    cases = list(cases)
    quick: set[int] = set()
    names = list(dict.fromkeys(case.failpoint.name for case in cases))
    for turn, name in enumerate(names):
        found = [number for number, case in enumerate(cases) if case.failpoint.name == name]
        quick.add(found[turn % len(found)])
    covered = {cases[number].cell.name for number in quick}
    quick.update(
        number
        for number, case in enumerate(cases)
        if case.cell.name not in covered and case.failpoint.name == HARDEST and case.failpoint.nth == FINAL
    )
    return [replace(case, quick=number in quick) for number, case in enumerate(cases)]


def half(cases: Iterable[Case]) -> list[Case]:
    """With every other one of the quick ones, where these and the other tests have all failpoints between them."""
    turns = count()
    return [replace(case, quick=case.quick and next(turns) % 2 == 0) for case in cases]


def each(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """For a test that takes `cell` and `failpoint`."""
    params = [
        pytest.param(
            case.cell,
            case.failpoint,
            id=f"{case.cell}: {case.failpoint}",
            marks=[] if case.quick else [pytest.mark.full],
        )
        for case in cases
    ]
    return pytest.mark.parametrize(("cell", "failpoint"), params)
