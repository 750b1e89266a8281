"""Every case in every mode; in the quick selection each case in one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest


def taking_turns(cases: Iterable[object], modes: Sequence[str]) -> list[Any]:
    """Parameters of a case and a mode. A case that is a tuple is several parameters."""
    return list(_taking_turns(cases, modes))


def _taking_turns(cases: Iterable[object], modes: Sequence[str]) -> Iterator[Any]:
    for turn, case in enumerate(cases):
        for number, mode in enumerate(modes):
            values = case if isinstance(case, tuple) else (case,)
            marks = [] if number == turn % len(modes) else [pytest.mark.full]
            yield pytest.param(*values, mode, id=f"{'-'.join(map(str, values))}-{mode}", marks=marks)
