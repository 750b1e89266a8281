"""The cells of the table: every scenario under every policy in every write mode, in one piece and in shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from rapidbyte_dagster.errors import Kind
from rapidbyte_dagster.state import ChangeAction, ChangeKind, SchemaChange
from tests.evolution import expected
from tests.evolution.columns import Column
from tests.evolution.effects import WRITE_MODES, Check, Rows
from tests.evolution.expected import Outcome, outcome
from tests.evolution.scenarios import (
    RENAMED,
    SEVERAL,
    SINGLE_TYPES,
    TABLE,
    UNDONE,
    Cell,
    Scenario,
    Way,
    policies,
)
from tests.evolution.trial import Trial

SCENARIOS = (*TABLE, RENAMED, *SINGLE_TYPES, SEVERAL, UNDONE)

FOLLOWING = {"new_column": "add", "removed_column": "ignore", "type_change": "coerce", "nullability_change": "allow"}
"""The policy that follows the source."""

WAYS = tuple(Way(mode, shards) for shards in (1, 2) for mode in WRITE_MODES)

PAD = " " + "." * 500
"""Of the source's rows, so that each has a block of its own and the table can be divided."""


def cells(write_mode: str) -> Iterator[Cell]:
    """Those of one write mode. The quick ones have every change, and every type change once by itself."""
    for turn, (scenario, policy) in enumerate((s, p) for s in SCENARIOS for p in policies(s)):
        for way in WAYS:
            if way.write_mode == write_mode:
                cell = Cell(scenario, policy, way)
                yield replace(cell, quick=_is_quick(cell, turn))


def _is_quick(cell: Cell, turn: int) -> bool:
    follows = cell.policy.items() <= FOLLOWING.items()
    # Policies and ways take turns at different paces, so that all of them meet.
    its_turn = cell.way == WAYS[(turn + turn // len(WAYS)) % len(WAYS)]
    if cell.scenario in TABLE:
        return its_turn
    if cell.scenario in SINGLE_TYPES:
        return its_turn and follows
    return (its_turn or follows) and sum(value == "fail" for value in cell.policy.values()) < 2


def each(cells: Iterable[Cell]) -> pytest.MarkDecorator:
    """For a test that takes `cell`."""
    params = [pytest.param(cell, id=str(cell), marks=[] if cell.quick else [pytest.mark.full]) for cell in cells]
    return pytest.mark.parametrize("cell", params)


def assert_holds(trial: Trial, cell: Cell) -> None:
    make_source(trial, cell.scenario)
    trial.run(cell.policy)
    prepare_destination(trial, cell.scenario)
    change_source(trial, cell.scenario)
    before = trial.catalog()
    match outcome(cell):
        case Outcome.IS_REFUSED:
            assert_is_refused(trial, cell)
            return
        case Outcome.FAILS_AT_A_ROW:
            error = trial.fails(cell.policy)
            assert error.kind is Kind.DATA
            unfitting = [column for column in cell.scenario.columns if not column.fits]
            assert any(all(words in str(error) for words in _blamed(column)) for column in unfitting)
            return
    result = trial.run(cell.policy)
    after = trial.catalog()
    columns = expected.columns(cell, before.columns)
    assert after.columns == columns
    assert (after.indexes, after.constraints) == (before.indexes, before.constraints)
    assert trial.words() == expected.rows(cell, after.names)
    assert [(column.name, column.type, column.nullable) for column in result.columns] == [
        (column.name, column.type, not column.not_null) for column in columns
    ]
    assert_tells(trial, cell, result.schema_changes)
    assert trial.heard("in 2 shards") == (cell.way.shards == 2)
    history = trial.schema_state().history
    assert [event.changes for event in history] == ([result.schema_changes] if result.schema_changes else [])
    assert all((event.run_id, event.sequence) == (result.checkpoint.run_id, 2) for event in history)


def _blamed(column: Column) -> tuple[str, ...]:
    return f"column {column.name} is {column.type_before}", f"{column.type_after} in the stream", "type_change: coerce"


def assert_is_refused(trial: Trial, cell: Cell) -> None:
    error = trial.fails(cell.policy)
    assert error.kind is Kind.SCHEMA
    refused = [c for c in cell.scenario.columns if expected.effect_on(cell, c).rows is Rows.NONE]
    said = str(error)
    for column in refused:
        assert column.name in said
        if column.difference.kind in ("new_column", "removed_column", "type_change"):
            assert all(type_.split(".")[-1] in said for type_ in (column.type_before, column.type_after))
        assert f"{column.difference.kind}: {cell.policy[column.difference.kind]}" in said
    if all(cell.policy[column.difference.kind] == "fail" for column in refused):
        told = {change.column for change in trial.reports[-1] if change.action is ChangeAction.REFUSED}
        assert told == {column.name for column in refused}


def assert_tells(trial: Trial, cell: Cell, changes: tuple[SchemaChange, ...]) -> None:
    assert (changes,) == tuple(trial.reports[-1:]) or (changes, trial.reports) == ((), [])
    told = [
        {
            **change.model_dump(include={"kind", "column", "stream", "table", "policy", "action"}),
            "altered": bool(change.ddl),
        }
        for change in sorted(changes, key=lambda change: str(change.column))
    ]
    assert told == expected.changes(cell, trial.name)
    for change in changes:
        assert change.column is not None
        assert change.column in change.message
        if change.kind is not ChangeKind.NULLABILITY_CHANGE:
            assert all(type_ in change.message for type_ in (change.stream, change.table) if type_)
        assert all(statement.startswith("ALTER TABLE") for statement in change.ddl)
        assert trial.heard(change.message)
    for words in cell.scenario.said:
        assert any(words in change.message for change in changes)
    warned = [line for level, line in trial.lines if level >= 30]
    for change in changes:
        effect = next(expected.effect_on(cell, c) for c in cell.scenario.columns if c.name == change.column)
        assert any(change.message in line for line in warned) == (effect.check is not Check.PASSES)


# The source's table


def make_source(trial: Trial, scenario: Scenario) -> None:
    there = [column for column in scenario.columns if column.before is not None]
    definitions = "".join(f", {_quoted(column.name)} {column.before}" for column in there)
    rows = [
        _insert(key, word, there, [(column.type_before, column.old[i]) for column in there])
        for i, (key, word) in enumerate(expected.BEFORE)
    ]
    trial.at_source(
        f"CREATE SCHEMA {{schema}}; {scenario.setup};"
        f"CREATE TABLE {{table}} (id integer PRIMARY KEY, v text{definitions}) WITH (fillfactor = 10);" + ";".join(rows)
    )


def change_source(trial: Trial, scenario: Scenario) -> None:
    """From the columns and rows before to those after, as somebody would who migrates a table that is in use."""
    there = [column for column in scenario.columns if column.after is not None]
    statements = [f"ALTER TABLE {{table}} {clause}" for column in scenario.columns for clause in _migration(column)]
    statements.append("DELETE FROM {table}")
    statements += [
        _insert(key, word, there, [(column.type_after, column.new[i]) for column in there])
        for i, (key, word) in enumerate(expected.AFTER)
    ]
    statements += [
        f"ALTER TABLE {{table}} ALTER {_quoted(column.name)} SET NOT NULL"
        for column in there
        if column.after != column.type_after
    ]
    trial.at_source(";".join(statements))


def _migration(column: Column) -> Iterator[str]:
    name = _quoted(column.name)
    if column.before is None:
        yield f"ADD {name} {column.type_after}"
    elif column.after is None:
        yield f"DROP {name}"
    else:
        yield f"ALTER {name} DROP NOT NULL"
        if column.type_after != column.type_before:
            yield f"ALTER {name} TYPE {column.type_after} USING NULL"


def prepare_destination(trial: Trial, scenario: Scenario) -> None:
    for column in scenario.columns:
        if column.destination:
            trial.at_destination(column.destination)


def _insert(key: str, word: str, columns: list[Column], values: list[tuple[str, str | None]]) -> str:
    names = "".join(f", {_quoted(column.name)}" for column in columns)
    literals = "".join(", NULL" if value is None else f", {_literal(value)}::{type_}" for type_, value in values)
    return f"INSERT INTO {{table}} (id, v{names}) VALUES ({key}, '{word}{PAD}'{literals})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
