"""Cases of a matrix as parameters of tests: all of them, and the few that stand for them in the quick selection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from tests.recovery.cells import Cell
from tests.recovery.failpoints import Failpoint


@dataclass(frozen=True)
class Case:
    cell: Cell
    failpoint: Failpoint
    quick: bool


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


def assert_quick_stands_for_all(cases: Iterable[Case]) -> None:
    """Each failpoint and each cell is in the quick selection at least once."""
    cases = list(cases)
    quick = [case for case in cases if case.quick]
    assert {case.failpoint.name for case in quick} == {case.failpoint.name for case in cases}
    assert {case.cell.name for case in quick} == {case.cell.name for case in cases}
