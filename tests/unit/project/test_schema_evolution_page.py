"""docs/schema-evolution.md and tests/evolution have one table between them: what one says, the other shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rapidbyte_dagster.config import SchemaEvolution
from rapidbyte_dagster.config.models import NewColumn, NullabilityChange, RemovedColumn, TypeChange
from tests.evolution.effects import EFFECTS, POLICY_VALUES, WRITE_MODES, Difference, Effect

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "schema-evolution.md").read_text()

Row = tuple[str, ...]


def told_on_the_page() -> list[Row]:
    """Change, axis, value, and the rest of each row; a row of any value once for each."""
    rows = []
    for axis, table in re.findall(r"^\| change \| `(\w+)` \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        for line in table.splitlines():
            change, value, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            values = POLICY_VALUES[axis] if value == "any" else [value.strip("`")]
            rows += [(change, axis, each, *rest) for each in values]
    return rows


def shown_by_the_tests() -> Iterator[Row]:
    for difference, effects in EFFECTS.items():
        for value, effect in effects.items():
            yield (difference.words, difference.kind.value, value, *words(effect))


def words(effect: Effect) -> Iterator[str]:
    yield effect.table.value
    yield from (getattr(effect.rows.value, mode) for mode in WRITE_MODES)
    yield "–" if effect.action is None else f"`{effect.action}`"
    yield effect.check.value


def test_the_page_says_what_the_tests_show() -> None:
    assert told_on_the_page() == list(shown_by_the_tests())


def test_every_value_of_every_axis_is_there_for_every_change() -> None:
    for difference in Difference:
        assert tuple(EFFECTS[difference]) == POLICY_VALUES[difference.kind]
    choices = (NewColumn, RemovedColumn, TypeChange, NullabilityChange)
    assert [set(values) for values in POLICY_VALUES.values()] == [{value.value for value in axis} for axis in choices]
    assert [str(axis) for axis in POLICY_VALUES] == list(SchemaEvolution.model_fields)


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 15
    assert named <= defined, sorted(named - defined)
