"""Streams that commit on their way: the table changes with the first commit, and its history with that."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import DestinationError, Kind, SourceError
from rapidbyte_dagster.state import ChangeAction
from tests.evolution.background import Background, until
from tests.evolution.conftest import MakeTrial
from tests.evolution.trial import Trial

SOURCE = (
    "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer PRIMARY KEY, n integer, note text);"
    "INSERT INTO {table} SELECT i, i, 'old' FROM generate_series(1, 5) i"
)
LATER = "INSERT INTO {table} SELECT i, i, 'new' FROM generate_series(6, 25) i"
STREAM = {"sync_mode": "incremental", "cursor_field": "id"}
RESOURCES = {"resources": {"checkpoint_interval_rows": 5, "max_retries": 0, "parallelism": 2}}

each_mode = pytest.mark.parametrize("write_mode", ["append", "upsert"])


@pytest.fixture
def make_incremental(make_trial: MakeTrial) -> MakeTrial:
    def make(write_mode: str, **options: object) -> Trial:
        return make_trial(write_mode, stream=STREAM, options=RESOURCES, **options)

    return make


def sequences(trial: Trial) -> list[int]:
    return [event.sequence for event in trial.schema_state().history]


@each_mode
def test_the_first_commit_changes_the_table_and_the_others_find_it_changed(
    make_incremental: MakeTrial, write_mode: str
) -> None:
    trial = make_incremental(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source("ALTER TABLE {table} ADD extra text DEFAULT 'x', ALTER n TYPE bigint; " + LATER)
    result = trial.run({"type_change": "coerce"})
    assert result.checkpoint.sequence > 4
    assert len(trial.reports) == 1
    assert sequences(trial) == [2]
    assert [(change.column, change.action) for change in result.schema_changes] == [
        ("n", ChangeAction.WIDENED),
        ("extra", ChangeAction.ADDED),
    ]
    # A row at the stored cursor that is not as it was arrives once more, where that is one row.
    again = {"5"} if write_mode == "upsert" else set()
    assert len(trial.content(["id"])) == 25
    assert {id for id, extra in trial.content(["id", "extra"]) if extra == "x"} == {
        str(i) for i in range(6, 26)
    } | again


@each_mode
def test_what_a_run_did_to_the_table_before_it_failed_is_not_forgotten(
    make_incremental: MakeTrial, write_mode: str
) -> None:
    trial = make_incremental(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(
        "ALTER TABLE {table} ADD extra text DEFAULT 'x', ALTER n TYPE jsonb USING to_json(n);"
        + LATER.replace("i, i,", "i, CASE WHEN i = 20 THEN '[]' ELSE to_json(i) END,")
    )
    with pytest.raises(DestinationError, match="column n") as caught:
        trial.run({"type_change": "coerce"})
    assert caught.value.kind is Kind.DATA
    assert len(trial.content(["id"])) in range(6, 20)
    assert trial.catalog().names == ("id", "n", "note", "extra")
    assert sequences(trial) == [2]

    trial.at_source("UPDATE {table} SET n = '0' WHERE id = 20")
    result = trial.run({"type_change": "coerce"})
    assert [(change.column, change.action) for change in result.schema_changes] == [("n", ChangeAction.CAST)]
    assert len(trial.content(["id"])) == 25
    [first, *_] = trial.schema_state().history
    assert {change.column for change in first.changes} == {"n", "extra"}
    assert sum(bool(change.ddl) for event in trial.schema_state().history for change in event.changes) == 1


@each_mode
def test_a_run_that_fails_before_its_first_commit_leaves_the_table_as_it_was(
    make_incremental: MakeTrial, write_mode: str
) -> None:
    trial = make_incremental(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(
        "ALTER TABLE {table} ADD extra text DEFAULT 'x', ALTER n TYPE jsonb USING to_json(n);"
        + LATER.replace("i, i,", "i, '[]',")
    )
    assert trial.fails({"type_change": "coerce"}).kind is Kind.DATA


@each_mode
def test_the_policy_is_asked_before_the_first_batch(make_incremental: MakeTrial, write_mode: str) -> None:
    trial = make_incremental(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source("ALTER TABLE {table} ADD extra text;" + LATER)
    assert trial.fails({"new_column": "fail"}).kind is Kind.SCHEMA
    assert len(trial.reports) == 1


@each_mode
def test_a_run_without_new_rows_changes_the_table_too(make_incremental: MakeTrial, write_mode: str) -> None:
    trial = make_incremental(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source("ALTER TABLE {table} ADD extra text")
    result = trial.run()
    # A row at the stored cursor that is not as it was arrives once more, where that is one row.
    assert result.rows == (1 if write_mode == "upsert" else 0)
    assert len(trial.content(["id"])) == 5
    assert trial.catalog().names == ("id", "n", "note", "extra")
    assert sequences(trial) == [result.checkpoint.sequence]


@each_mode
def test_a_cursor_that_changed_its_type_is_refused_before_the_table_changes(
    make_incremental: MakeTrial, write_mode: str
) -> None:
    trial = make_incremental(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source("ALTER TABLE {table} ALTER id TYPE numeric, ADD extra text")
    error = trial.fails({"type_change": "coerce"})
    assert isinstance(error, SourceError) or error.kind is Kind.SCHEMA
    assert "id" in str(error)


@each_mode
def test_values_that_do_not_fit_are_null_in_every_commit(make_incremental: MakeTrial, write_mode: str) -> None:
    trial = make_incremental(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(
        "ALTER TABLE {table} ALTER n TYPE jsonb USING to_json(n);"
        + LATER.replace("i, i,", "i, CASE WHEN i % 10 = 0 THEN '[]' ELSE to_json(i) END,")
    )
    trial.run({"type_change": "null"})
    assert trial.content(["id", "n"]) == sorted(
        ((str(i), None if i in (10, 20) else str(i)) for i in range(1, 26)), key=repr
    )


@each_mode
def test_an_attempt_that_goes_on_where_another_one_broke_tells_what_that_one_did(
    make_incremental: MakeTrial, write_mode: str
) -> None:
    trial = make_incremental(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source("ALTER TABLE {table} ADD extra text DEFAULT 'x';" + LATER)
    # The third commit of the first attempt does not come to its end.
    trial.at_destination(
        "CREATE TABLE {schema}.gate (closed boolean); INSERT INTO {schema}.gate VALUES (true);"
        "CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF EXISTS (SELECT FROM {schema}.gate) THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END';"
        "CREATE TRIGGER wait BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.id = 18) EXECUTE FUNCTION {schema}.wait()"
    )
    trial.options = {"resources": {**RESOURCES["resources"], "max_retries": 1}}
    run = Background(trial)
    until(lambda: trial.destination.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1)
    trial.at_destination("DELETE FROM {schema}.gate")
    trial.destination.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'", superuser=True
    )
    result = run.result()
    assert result.attempts == 2
    assert [(change.column, change.action) for change in result.schema_changes] == [("extra", ChangeAction.ADDED)]
    assert [event.changes for event in trial.schema_state().history] == [result.schema_changes]
    assert len(trial.content(["id"])) == 25
