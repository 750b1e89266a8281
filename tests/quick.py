"""Which cases of a test are in the quick selection, and which are left to `--full`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def few(values: Iterable[Any]) -> list[Any]:
    """Parameters of which only the first is in the quick selection. A value that is a tuple is several parameters."""
    return _chosen(values, lambda number: number == 0)


def every(step: int, values: Iterable[Any]) -> list[Any]:
    """Parameters of which one in `step` is in the quick selection. A value that is a tuple is several parameters."""
    return _chosen(values, lambda number: number % step == 0)


def _chosen(values: Iterable[Any], is_quick: Callable[[int], bool]) -> list[Any]:
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)), marks=[] if is_quick(number) else [pytest.mark.full]
        )
        for number, value in enumerate(values)
    ]
