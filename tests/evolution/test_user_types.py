"""Types that users define: enums, domains, ranges and composite types, known to both sides or to one."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import Kind
from rapidbyte_dagster.state import ChangeAction
from tests.evolution.conftest import MakeTrial
from tests.evolution.effects import WRITE_MODES
from tests.evolution.selection import taking_turns
from tests.evolution.trial import Trial

each_mode = pytest.mark.parametrize("write_mode", WRITE_MODES)

TYPES = (
    "CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TYPE {schema}.mood AS ENUM ('sad', 'ok');"
    "CREATE DOMAIN {schema}.short AS varchar(3) CHECK (VALUE <> 'bad');"
    "CREATE TYPE {schema}.span AS RANGE (subtype = int4);"
    "CREATE TYPE {schema}.place AS (x integer, y text)"
)

VALUES = (("mood", "ok"), ("short", "abc"), ("span", "[1,2)"), ("place", "(1,a)"), ("mood[]", "{ok,sad}"))


def moved(trial: Trial, type_: str, value: str) -> Trial:
    """A stream of one row, whose column `c` is of `type_` on both sides."""
    trial.at_source(f"{TYPES}; CREATE TABLE {{table}} (id integer PRIMARY KEY, c {type_})")
    trial.at_destination(TYPES)
    trial.at_source(f"INSERT INTO {{table}} VALUES (1, '{value}')")
    trial.run()
    return trial


@pytest.mark.parametrize(("type_", "value", "write_mode"), taking_turns(VALUES, WRITE_MODES))
def test_a_new_column_of_a_type_that_both_sides_know_is_of_that_type(
    make_trial: MakeTrial, type_: str, value: str, write_mode: str
) -> None:
    trial = moved(make_trial(write_mode), "integer", "1")
    trial.at_source(f"ALTER TABLE {{table}} ADD extra {{schema}}.{type_}; UPDATE {{table}} SET extra = '{value}'")
    [change] = trial.run().schema_changes
    assert change.stream == f"{trial.name}.{type_}"
    assert trial.catalog().column("extra").type == f"{trial.name}.{type_}"
    assert (value,) in trial.content(["extra"])


@pytest.mark.parametrize(("type_", "value", "write_mode"), taking_turns(VALUES, WRITE_MODES))
def test_whatever_becomes_text_is_widened_with_the_values_that_are_there(
    make_trial: MakeTrial, type_: str, value: str, write_mode: str
) -> None:
    trial = moved(make_trial(write_mode), f"{{schema}}.{type_}", value)
    trial.at_source("ALTER TABLE {table} ALTER c TYPE text; INSERT INTO {table} VALUES (2, 'anything')")
    trial.at_source("DELETE FROM {table} WHERE id = 1")
    [change] = trial.run({"type_change": "coerce"}).schema_changes
    assert change.action is ChangeAction.WIDENED
    assert trial.catalog().column("c").type == "text"
    there = [] if write_mode == "replace" else [("1", value)]
    assert trial.content(["id", "c"]) == [*there, ("2", "anything")]


@pytest.mark.parametrize(
    ("type_", "value", "fitting", "unfitting", "write_mode"),
    taking_turns(
        [("mood", "ok", "sad", "great"), ("short", "abc", "x", "bad"), ("span", "[1,2)", "empty", "x")], WRITE_MODES
    ),
)
def test_values_of_other_types_go_through_what_the_table_s_type_takes(
    make_trial: MakeTrial, type_: str, value: str, fitting: str, unfitting: str, write_mode: str
) -> None:
    trial = moved(make_trial(write_mode), f"{{schema}}.{type_}", value)
    trial.at_source(
        "ALTER TABLE {table} ALTER c TYPE varchar(20); DELETE FROM {table};"
        f"INSERT INTO {{table}} VALUES (2, '{fitting}'), (3, '{unfitting}')"
    )
    error = trial.fails({"type_change": "coerce"})
    assert error.kind is Kind.DATA
    assert "column c" in str(error)
    [change] = trial.run({"type_change": "null"}).schema_changes
    assert change.action is ChangeAction.NULLED
    there = [] if write_mode == "replace" else [("1", value)]
    assert trial.content(["id", "c"]) == [*there, ("2", fitting), ("3", None)]


@each_mode
def test_a_label_that_only_the_source_s_enum_has_is_a_row_s_fault(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode), "{schema}.mood", "ok")
    trial.at_source("ALTER TYPE {schema}.mood ADD VALUE 'great'")
    assert trial.run().schema_changes == ()
    trial.at_source("UPDATE {table} SET c = 'great'")
    error = trial.fails({"type_change": "null"})
    assert error.kind is Kind.DATA
    assert "great" in str(error)


@each_mode
def test_an_enum_that_the_destination_learned_meanwhile_is_still_text_where_it_became_text(
    make_trial: MakeTrial, write_mode: str
) -> None:
    trial = make_trial(write_mode)
    trial.at_source(f"{TYPES}; CREATE TABLE {{table}} (id integer PRIMARY KEY, c {{schema}}.mood)")
    trial.at_source("INSERT INTO {table} VALUES (1, 'ok')")
    trial.run()
    assert trial.catalog().column("c").type == "text"
    trial.at_destination(TYPES)
    assert trial.run({"type_change": "fail"}).schema_changes == ()
    assert trial.catalog().column("c").type == "text"
