"""Which cases of a test are in the quick selection, and which are left to `--full`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def few(values: Iterable[Any], quick: int = 1) -> list[Any]:
    """Parameters of which only the first `quick` are in the quick selection. A value that is a tuple is several
    parameters."""
    return [
        value
        if number < quick
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.full)
        for number, value in enumerate(values)
    ]


def every(step: int, values: Iterable[Any]) -> list[Any]:
    """Parameters of which one in `step` is in the quick selection. A value that is a tuple is several parameters."""
    return [
        value
        if number % step == 0
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.full)
        for number, value in enumerate(values)
    ]
