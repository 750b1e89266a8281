"""What a cell leaves behind: the words of `effects.py`, computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import Enum

from rapidbyte_dagster.state import ChangeAction, ChangeKind
from tests.evolution.catalog import CatalogColumn
from tests.evolution.columns import Column
from tests.evolution.effects import EFFECTS, Difference, Effect, Rows, Table
from tests.evolution.scenarios import Cell

BEFORE = (("1", "one"), ("2", "two"), ("3", "three"))
AFTER = (("2", "two"), ("3", "changed"), ("4", "four"))
"""The source's rows: `id` and `v`."""

TABLES_OWN = "7"

Row = tuple[str | None, ...]


class Outcome(Enum):
    COMMITS = "commits"
    IS_REFUSED = "is refused"
    FAILS_AT_A_ROW = "fails at a row"


def effect_on(cell: Cell, column: Column) -> Effect:
    difference = column.difference
    if difference is Difference.NOT_NULL_IMPOSSIBLE and cell.way.write_mode == "replace":
        # No row stays.
        difference = Difference.NOT_NULL
    return EFFECTS[difference][cell.policy[difference.kind]]


def outcome(cell: Cell) -> Outcome:
    effects = [(column, effect_on(cell, column)) for column in cell.scenario.columns]
    if any(effect.rows is Rows.NONE for _, effect in effects):
        return Outcome.IS_REFUSED
    if any(effect.rows is Rows.CAST and not column.fits for column, effect in effects):
        return Outcome.FAILS_AT_A_ROW
    return Outcome.COMMITS


def columns(cell: Cell, before: tuple[CatalogColumn, ...]) -> tuple[CatalogColumn, ...]:
    """Those of the table after the run that `before` were those of."""
    found = {column.name: column for column in before}
    for column in cell.scenario.columns:
        table = effect_on(cell, column).table
        if table in (Table.GAINS, Table.GAINS_NOT_NULL):
            every_row_has_it = cell.way.write_mode == "replace" and table is Table.GAINS_NOT_NULL
            found[column.name] = CatalogColumn(column.name, column.type_after, every_row_has_it)
        elif table is Table.GAINS_TEXT:
            found[column.name] = CatalogColumn(column.name, "text", False)
        elif table is Table.RELAXES:
            found[column.name] = replace(found[column.name], not_null=False)
        elif table is Table.WIDENS:
            found[column.name] = replace(found[column.name], type=column.type_after)
        elif table is Table.TIGHTENS:
            found[column.name] = replace(found[column.name], not_null=True)
    return tuple(found.values())


def rows(cell: Cell, names: tuple[str, ...]) -> list[Row]:
    """The values of the table's columns `names`, sorted as `Trial.content` does."""
    columns = {column.name: column for column in cell.scenario.columns}
    stored = [_row(cell, names, BEFORE, _stored, i) for i in range(3)]
    inserted = [_row(cell, names, AFTER, _written, i) for i in range(3)]
    return sorted(_by_mode(cell, names, columns, stored, inserted), key=repr)


def _by_mode(
    cell: Cell, names: tuple[str, ...], columns: dict[str, Column], stored: list[Row], inserted: list[Row]
) -> Iterator[Row]:
    if cell.way.write_mode == "append":
        yield from stored
        yield from inserted
    elif cell.way.write_mode == "replace":
        yield from inserted
    else:
        yield stored[0]
        for old, new in ((stored[1], inserted[0]), (stored[2], inserted[1])):
            brought = [i for i, name in enumerate(names) if name not in columns or columns[name].after is not None]
            yield old if all(old[i] == new[i] for i in brought) else new
        yield inserted[2]


def _row(
    cell: Cell,
    names: tuple[str, ...],
    common: Sequence[tuple[str, str]],
    value: Callable[[Cell, Column, int], str | None],
    i: int,
) -> Row:
    found: dict[str, str | None] = dict(zip(("id", "v"), common[i], strict=True))
    found.update((column.name, value(cell, column, i)) for column in cell.scenario.columns)
    return tuple(found[name] for name in names)


def _stored(cell: Cell, column: Column, i: int) -> str | None:
    table = effect_on(cell, column).table
    if table is Table.WIDENS and column.widened is not None:
        return column.widened[i]
    return column.old[i]


def _written(cell: Cell, column: Column, i: int) -> str | None:
    match effect_on(cell, column).rows:
        case Rows.NULL:
            return None
        case Rows.FILLED:
            return TABLES_OWN
        case Rows.CAST | Rows.CAST_OR_NULL:
            return column.fitted[i]
    return column.new[i]


def changes(cell: Cell, schema: str) -> list[dict[str, object]]:
    """What is told of the run, without the DDL's and the message's text; sorted by column."""
    found: list[dict[str, object]] = []
    for column in cell.scenario.columns:
        effect = effect_on(cell, column)
        if effect.action is None:
            continue
        stream, table = _sides(column, schema)
        found.append(
            {
                "kind": column.difference.kind,
                "column": column.name,
                "stream": stream,
                "table": table,
                "policy": cell.policy[column.difference.kind],
                "action": effect.action,
                "altered": effect.table is not Table.STAYS and effect.action is not ChangeAction.REFUSED,
            }
        )
    return sorted(found, key=lambda change: str(change["column"]))


def _sides(column: Column, schema: str) -> tuple[str | None, str | None]:
    match column.difference.kind:
        case ChangeKind.NEW_COLUMN:
            return column.type_after.replace("{schema}", schema), None
        case ChangeKind.REMOVED_COLUMN:
            return None, column.type_before
        case ChangeKind.TYPE_CHANGE:
            return column.type_after, column.type_before
    return ("nullable", "not null") if column.difference is Difference.NULLABLE else ("not null", "nullable")
