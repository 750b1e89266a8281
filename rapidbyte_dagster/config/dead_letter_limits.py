"""How many rows of a run may be left out before a check of the stream says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from rapidbyte_dagster.config.capabilities import Section
from rapidbyte_dagster.config.values import refuse

LARGEST_NUMBER = 2**53
"""More rows than a run has; JSON numbers beyond it lose digits."""

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%")
_PERCENT_SCHEMA = r"^\s*(100(\.0{1,6})?|0?[0-9]{1,2}(\.[0-9]{1,6})?)\s*%\s*$"
_ALLOWED = "a number of rows, or a share of the run's rows from 0% to 100% such as 0.1%"


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the rows that a run has seen."""

    percent: Decimal

    def __str__(self) -> str:
        return f"{self.percent}%"


Limit = int | Share


def _limit(value: object) -> Limit:
    if isinstance(value, Share):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_NUMBER:
        return value
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or (percent := Decimal(match[1])) > 100:
        refuse(_ALLOWED)
    return Share(percent)


LimitValue = Annotated[
    Limit,
    BeforeValidator(_limit),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": LARGEST_NUMBER},
                {"type": "string", "pattern": _PERCENT_SCHEMA},
            ]
        }
    ),
]


class DeadLetterLimits(Section):
    """What the asset check `dead_letters` allows. A key that is left out is the destination's, or has its default."""

    warn_above: LimitValue | None = Field(
        None,
        description="The check warns of more rows than this that a run left out: a number, or a share of its rows such"
        " as 0.1%. Default: 0.",
    )
    fail_above: LimitValue | None = Field(
        None, description="The check fails, with severity ERROR, of more rows than this. Default: it only warns."
    )

    def over(self, other: DeadLetterLimits) -> DeadLetterLimits:
        """This one key by key, and `other` where it says nothing."""
        return DeadLetterLimits(
            warn_above=other.warn_above if self.warn_above is None else self.warn_above,
            fail_above=other.fail_above if self.fail_above is None else self.fail_above,
        )

    def exceeded(self, rows: int, *, of: int | None) -> Literal["warn", "fail"] | None:
        """What is beyond its limit where `rows` were left out, of all `of` rows; None compares no shares."""
        if self.fail_above is not None and _is_beyond(rows, self.fail_above, of):
            return "fail"
        if self.warn_above is not None and _is_beyond(rows, self.warn_above, of):
            return "warn"
        return None


DEFAULT_LIMITS = DeadLetterLimits(warn_above=0)


def _is_beyond(rows: int, limit: Limit, of: int | None) -> bool:
    if isinstance(limit, int):
        return rows > limit
    # Both sides exact: a share has few digits.
    return of is not None and rows * 100 > limit.percent * of


def limit_that_never_warns(owners: Iterable[Mapping[str, Any]]) -> tuple[Limit, Limit] | None:
    """`warn_above` and `fail_above` where the first lies beyond the second, both of one kind.

    `owners` are the plain sections that may hold them, the first one that does counts. What is no limit is the models'
    to report.
    """
    sections = list(owners)
    warn, fail = (_given(name, sections) for name in ("warn_above", "fail_above"))
    if isinstance(warn, Share) and isinstance(fail, Share):
        return (warn, fail) if warn.percent > fail.percent else None
    if isinstance(warn, int) and isinstance(fail, int):
        return (warn, fail) if warn > fail else None
    return None


def _given(name: str, sections: list[Mapping[str, Any]]) -> Limit | None:
    found = next((section[name] for section in sections if section.get(name) is not None), None)
    try:
        return _limit(found)
    except PydanticCustomError:
        return None
