"""One column of a source table, before it changes and after."""

from __future__ import annotations

from dataclasses import dataclass

from tests.evolution.effects import Difference

Three = tuple[str | None, str | None, str | None]
"""Values of three rows, as the text that PostgreSQL prints and reads."""


@dataclass(frozen=True)
class Column:
    """One column of the source, before and after.

    Its rows are 1, 2 and 3 in the first run; then row 1 is deleted, row 3 is changed, and row 4 is new.
    """

    name: str
    difference: Difference
    before: str | None
    """Its definition; None while it is not there."""
    after: str | None
    old: Three = (None, None, None)
    """Of the rows 1, 2 and 3 in the first run."""
    new: Three = (None, None, None)
    """Of the rows 2, 3 and 4 in the second."""
    cast: Three | None = None
    """What the type that the table has makes of `new`, None where nothing; without it, the same."""
    widened: Three | None = None
    """What the type after makes of `old`; without it, the same."""
    destination: str = ""
    """SQL on the destination's `{table}` between the runs."""

    @property
    def type_before(self) -> str:
        return _type_of(self.before or "")

    @property
    def type_after(self) -> str:
        return _type_of(self.after or "")

    @property
    def fitted(self) -> Three:
        return self.new if self.cast is None else self.cast

    @property
    def fits(self) -> bool:
        return [value is None for value in self.fitted] == [value is None for value in self.new]


def _type_of(definition: str) -> str:
    return definition.removesuffix(" NOT NULL")
