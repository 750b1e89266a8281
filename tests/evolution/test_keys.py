"""Primary keys that change: the table keeps its own, and a key is never without a value."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import Kind
from rapidbyte_dagster.state import ChangeAction, ChangeKind
from tests.evolution.conftest import MakeTrial
from tests.evolution.trial import Trial

SOURCE = (
    "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer PRIMARY KEY, code text NOT NULL, note text);"
    "INSERT INTO {table} VALUES (1, 'a', 'one'), (2, 'b', 'two')"
)
NEXT = "UPDATE {table} SET note = 'changed' WHERE id = 2; INSERT INTO {table} VALUES (3, 'c', 'three')"
OTHER_KEY = "ALTER TABLE {table} DROP CONSTRAINT events_pkey, ADD PRIMARY KEY (code)"
NO_KEY = "ALTER TABLE {table} DROP CONSTRAINT events_pkey"
AFTER = [("1", "a", "one"), ("2", "b", "changed"), ("3", "c", "three")]

FAIL_ALL = dict.fromkeys(("new_column", "removed_column", "type_change", "nullability_change"), "fail")


def moved(trial: Trial) -> Trial:
    trial.at_source(SOURCE)
    trial.run()
    return trial


def test_another_key_of_the_source_leaves_a_replaced_table_its_own(make_trial: MakeTrial) -> None:
    trial = moved(make_trial("replace"))
    before = trial.catalog()
    trial.at_source(OTHER_KEY + ";" + NEXT)
    # No axis decides about it.
    [change] = trial.run(FAIL_ALL).schema_changes
    assert (change.kind, change.column, change.policy, change.action, change.ddl) == (
        ChangeKind.PRIMARY_KEY,
        None,
        None,
        ChangeAction.LEFT,
        (),
    )
    assert "code" in (change.stream or "")
    assert "id" in (change.table or "")
    assert any(level == 30 and change.message in line for level, line in trial.lines)
    assert trial.catalog() == before
    assert trial.content(["id", "code", "note"]) == AFTER


def test_another_key_of_the_source_is_an_upsert_s_too_and_the_table_keeps_its_own_beside_it(
    make_trial: MakeTrial,
) -> None:
    trial = moved(make_trial("upsert"))
    trial.at_source(OTHER_KEY + ";" + NEXT)
    [change] = trial.run(FAIL_ALL).schema_changes
    assert (change.kind, change.action) == (ChangeKind.PRIMARY_KEY, ChangeAction.LEFT)
    assert any("PRIMARY KEY (id)" in constraint for constraint in trial.catalog().constraints)
    assert trial.content(["id", "code", "note"]) == AFTER
    # By which rows are found now.
    trial.at_source("UPDATE {table} SET id = 20 WHERE code = 'b'")
    trial.run()
    assert ("20", "b", "changed") in trial.content(["id", "code", "note"])
    assert len(trial.content(["id"])) == 3


@pytest.mark.parametrize("statement", [OTHER_KEY, NO_KEY])
def test_an_append_has_no_key_to_keep(make_trial: MakeTrial, statement: str) -> None:
    trial = moved(make_trial("append"))
    trial.at_source(statement)
    assert trial.run(FAIL_ALL).schema_changes == ()
    assert len(trial.content(["id"])) == 4


def test_a_key_that_the_source_dropped_stays_on_a_replaced_table(make_trial: MakeTrial) -> None:
    trial = moved(make_trial("replace"))
    before = trial.catalog()
    trial.at_source(NO_KEY + ";" + NEXT)
    trial.run(FAIL_ALL)
    assert trial.catalog() == before
    assert trial.content(["id", "code", "note"]) == AFTER


def test_rows_that_a_kept_key_refuses_are_a_data_error(make_trial: MakeTrial) -> None:
    trial = moved(make_trial("replace"))
    trial.at_source(NO_KEY + "; INSERT INTO {table} VALUES (1, 'again', 'x')")
    error = trial.fails()
    assert error.kind is Kind.DATA
    assert "events_pkey" in str(error)


def test_a_key_that_the_source_dropped_ends_an_upsert_by_it_before_a_row_moves(make_trial: MakeTrial) -> None:
    trial = moved(make_trial("upsert"))
    trial.at_source(NO_KEY + ";" + NEXT)
    error = trial.fails()
    assert error.kind in (Kind.SCHEMA, Kind.CONFIG)
    assert "key" in str(error)
    assert "primary_key" in (error.hint or "")
    # The pipeline names it, and all is well.
    trial.stream = {"primary_key": ["id"]}
    assert trial.run(FAIL_ALL).schema_changes == ()
    assert trial.content(["id", "code", "note"]) == AFTER


@pytest.mark.parametrize("write_mode", ["replace", "upsert"])
@pytest.mark.parametrize("policy", ["ignore", "add"])
def test_a_column_of_the_table_s_key_cannot_be_missing(make_trial: MakeTrial, write_mode: str, policy: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_source("ALTER TABLE {table} DROP id, ADD PRIMARY KEY (code)")
    error = trial.fails({"removed_column": policy})
    assert error.kind is Kind.SCHEMA
    assert all(word in str(error) for word in ("column id", "integer", f"removed_column: {policy}"))


@pytest.mark.parametrize("policy", ["add", "ignore"])
def test_a_key_that_was_renamed_is_no_column_that_can_be_added(make_trial: MakeTrial, policy: str) -> None:
    trial = moved(make_trial("upsert"))
    trial.at_source("ALTER TABLE {table} RENAME id TO number")
    error = trial.fails({"new_column": policy})
    assert error.kind is Kind.SCHEMA
    assert "number" in str(error)


@pytest.mark.parametrize("write_mode", ["replace", "upsert"])
def test_no_part_of_a_key_becomes_null(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_source("ALTER TABLE {table} ALTER id TYPE text")
    error = trial.fails({"type_change": "null"})
    assert error.kind is Kind.SCHEMA
    assert all(word in str(error) for word in ("column id", "integer", "text", "type_change: null", "key"))


@pytest.mark.parametrize("write_mode", ["replace", "upsert"])
def test_a_key_is_widened_together_with_its_index(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    before = trial.catalog()
    trial.at_source("ALTER TABLE {table} ALTER id TYPE bigint;" + NEXT.replace("(3", "(3000000000"))
    [change] = trial.run({"type_change": "coerce"}).schema_changes
    assert change.action is ChangeAction.WIDENED
    assert trial.catalog().column("id").type == "bigint"
    assert (trial.catalog().indexes, trial.catalog().constraints) == (before.indexes, before.constraints)
    assert trial.content(["id", "note"]) == [("1", "one"), ("2", "changed"), ("3000000000", "three")]


def test_a_key_whose_values_are_cast_finds_its_rows(make_trial: MakeTrial) -> None:
    trial = make_trial("upsert")
    trial.at_source(SOURCE.replace("id integer", "id bigint"))
    trial.run()
    trial.at_source("ALTER TABLE {table} ALTER id TYPE integer;" + NEXT)
    [change] = trial.run({"type_change": "coerce"}).schema_changes
    assert change.action is ChangeAction.CAST
    assert trial.catalog().column("id").type == "bigint"
    assert trial.content(["id", "code", "note"]) == AFTER


@pytest.mark.parametrize("write_mode", ["replace", "upsert"])
def test_a_key_that_may_be_null_at_the_source_is_no_difference(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode, stream={"primary_key": ["id"]})
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(NO_KEY + "; ALTER TABLE {table} ALTER id DROP NOT NULL")
    assert trial.run(FAIL_ALL).schema_changes == ()
    trial.at_source("INSERT INTO {table} VALUES (NULL, 'c', 'x')")
    error = trial.fails()
    assert error.kind is Kind.DATA
    assert "id" in str(error)
