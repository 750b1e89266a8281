"""A stream is held against its table as it is now, whatever the last run left there or wrote down."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import Kind
from rapidbyte_dagster.state import ChangeAction, ChangeKind, SchemaChange
from tests.evolution.conftest import MakeTrial
from tests.evolution.effects import WRITE_MODES
from tests.evolution.trial import Trial

SOURCE = (
    "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer PRIMARY KEY, n integer NOT NULL, note text);"
    "INSERT INTO {table} VALUES (1, 10, 'a'), (2, 20, 'b')"
)
NEXT = "UPDATE {table} SET note = 'B' WHERE id = 2; INSERT INTO {table} VALUES (3, 30, 'c')"

each_mode = pytest.mark.parametrize("write_mode", WRITE_MODES)


def moved(trial: Trial, statements: str = SOURCE) -> Trial:
    trial.at_source(statements)
    assert trial.run().schema_changes == ()
    return trial


def told(changes: tuple[SchemaChange, ...]) -> list[tuple[ChangeKind, str | None, ChangeAction]]:
    return [(change.kind, change.column, change.action) for change in changes]


def forget(trial: Trial) -> None:
    """Deletes the state store."""
    for file in (trial.folder / ".rapidbyte").iterdir():
        file.unlink()


@each_mode
def test_a_stream_like_its_table_changes_nothing_and_tells_nothing(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    before = trial.catalog()
    trial.at_source(NEXT)
    assert trial.run().schema_changes == ()
    assert trial.reports == []
    assert trial.catalog() == before
    assert trial.schema_state().history == ()
    assert len(trial.schema_state().versions) == 1


@each_mode
def test_a_column_that_somebody_dropped_from_the_table_is_new(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_destination("ALTER TABLE {table} DROP note")
    trial.at_source(NEXT)
    result = trial.run()
    assert told(result.schema_changes) == [(ChangeKind.NEW_COLUMN, "note", ChangeAction.ADDED)]
    assert trial.catalog().names == ("id", "n", "note")
    there = [("1", "10", None), ("2", "20", None)] if write_mode == "append" else []
    assert trial.content(["id", "n", "note"]) == sorted(
        [*there, ("1", "10", "a"), ("2", "20", "B"), ("3", "30", "c")], key=repr
    )


@each_mode
def test_a_type_that_somebody_changed_in_the_table_is_a_change(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_destination("ALTER TABLE {table} ALTER n TYPE smallint")
    error = trial.fails()
    assert error.kind is Kind.SCHEMA
    assert all(word in str(error) for word in ("column n", "smallint", "integer", "type_change: fail"))
    result = trial.run({"type_change": "coerce"})
    [change] = result.schema_changes
    assert (change.table, change.stream, change.action) == ("smallint", "integer", ChangeAction.WIDENED)
    assert trial.catalog().column("n").type == "integer"


@each_mode
def test_a_column_that_somebody_added_to_the_table_stays_and_is_told_of_each_time(
    make_trial: MakeTrial, write_mode: str
) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_destination("ALTER TABLE {table} ADD remark text; UPDATE {table} SET remark = 'mine'")
    expected = [(ChangeKind.REMOVED_COLUMN, "remark", ChangeAction.IGNORED)]
    trial.at_source(NEXT)
    assert told(trial.run().schema_changes) == expected
    assert told(trial.run().schema_changes) == expected
    assert [told(event.changes) for event in trial.schema_state().history] == [expected]
    remarks = dict(trial.content(["id", "remark"]))
    if write_mode == "upsert":
        # The stream never had the column: it is somebody's, also of rows that are updated.
        assert remarks == {"1": "mine", "2": "mine", "3": None}
    elif write_mode == "replace":
        assert set(remarks.values()) == {None}


def test_an_upsert_empties_what_the_stream_used_to_bring_and_no_more(make_trial: MakeTrial) -> None:
    trial = moved(make_trial("upsert"))
    trial.at_destination("ALTER TABLE {table} ADD remark text; UPDATE {table} SET remark = 'mine'")
    trial.run()
    trial.at_source("ALTER TABLE {table} DROP note; UPDATE {table} SET n = 21 WHERE id = 2")
    trial.run()
    assert trial.content(["id", "n", "note", "remark"]) == [("1", "10", "a", "mine"), ("2", "21", None, "mine")]
    # Known from all runs, not only from the last one.
    trial.at_destination("UPDATE {table} SET note = 'again'")
    trial.at_source("UPDATE {table} SET n = n + 1")
    trial.run()
    assert trial.content(["n", "note", "remark"]) == [("11", None, "mine"), ("22", None, "mine")]


@each_mode
@pytest.mark.parametrize("policy", ["ignore", "fail"])
def test_columns_that_the_table_fills_by_itself_are_its_own(
    make_trial: MakeTrial, write_mode: str, policy: str
) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_destination(
        "ALTER TABLE {table} ADD serial bigint GENERATED ALWAYS AS IDENTITY, ADD arrived date NOT NULL DEFAULT"
        " '2024-01-02', ADD twice integer GENERATED ALWAYS AS (n * 2) STORED"
    )
    before = trial.catalog()
    trial.at_source(NEXT)
    result = trial.run({"removed_column": policy})
    assert result.schema_changes == ()
    assert trial.catalog() == before
    assert set(trial.content(["arrived", "twice"])) == {("2024-01-02", str(n)) for n in (20, 40, 60)}
    assert len(set(trial.content(["serial"]))) == len(trial.content(["id"]))


@each_mode
def test_not_null_that_somebody_dropped_from_the_table_comes_back(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_destination("ALTER TABLE {table} ALTER n DROP NOT NULL")
    [change] = trial.run().schema_changes
    assert (change.kind, change.stream, change.table, change.action) == (
        ChangeKind.NULLABILITY_CHANGE,
        "not null",
        "nullable",
        ChangeAction.TIGHTENED,
    )
    assert trial.catalog().column("n").not_null


@each_mode
def test_not_null_that_somebody_set_on_the_table_is_dropped(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_destination("ALTER TABLE {table} ALTER note SET NOT NULL")
    assert trial.fails({"nullability_change": "fail"}).kind is Kind.SCHEMA
    assert told(trial.run().schema_changes) == [(ChangeKind.NULLABILITY_CHANGE, "note", ChangeAction.RELAXED)]
    assert not trial.catalog().column("note").not_null


@each_mode
def test_what_a_run_settled_is_no_news_to_the_next_one(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_source(
        "ALTER TABLE {table} ADD added text NOT NULL DEFAULT 'x', ALTER n DROP NOT NULL, ALTER n TYPE bigint,"
        " ALTER note TYPE varchar(3)"
    )
    policy = {"type_change": "coerce"}
    first = trial.run(policy)
    assert sorted(told(first.schema_changes), key=repr) == sorted(
        [
            (ChangeKind.NEW_COLUMN, "added", ChangeAction.ADDED),
            (ChangeKind.TYPE_CHANGE, "n", ChangeAction.WIDENED),
            (ChangeKind.NULLABILITY_CHANGE, "n", ChangeAction.RELAXED),
        ],
        key=repr,
    )
    trial.at_source(NEXT.replace("'c'", "'c', 'y'"))
    assert trial.run(policy).schema_changes == ()
    assert trial.run({}).schema_changes == ()
    assert len(trial.schema_state().history) == 1


@each_mode
def test_not_null_that_rows_keep_from_coming_is_told_once(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode), SOURCE + "; INSERT INTO {table} VALUES (3, 30, NULL)")
    trial.at_source("DELETE FROM {table} WHERE id = 3; ALTER TABLE {table} ALTER note SET NOT NULL")
    action = ChangeAction.TIGHTENED if write_mode == "replace" else ChangeAction.LEFT
    assert told(trial.run().schema_changes) == [(ChangeKind.NULLABILITY_CHANGE, "note", action)]
    assert trial.catalog().column("note").not_null == (write_mode == "replace")
    assert trial.run().schema_changes == ()


@each_mode
@pytest.mark.parametrize("policy", ["null", "coerce"])
def test_values_that_are_cast_are_told_of_each_time_and_written_down_once(
    make_trial: MakeTrial, write_mode: str, policy: str
) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_source("ALTER TABLE {table} ALTER n TYPE jsonb USING to_json(n)")
    action = ChangeAction.NULLED if policy == "null" else ChangeAction.CAST
    for _ in range(2):
        [change] = trial.run({"type_change": policy}).schema_changes
        assert (change.stream, change.table, change.action) == ("jsonb", "integer", action)
    history = trial.schema_state().history
    assert len(history) == (2 if policy == "null" else 1)
    assert [bool(change.ddl) for event in history for change in event.changes] == [True, False][: len(history)] or (
        policy == "coerce"
    )


@each_mode
def test_a_change_is_found_without_any_state_of_earlier_runs(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    forget(trial)
    trial.at_source("ALTER TABLE {table} ADD extra text; UPDATE {table} SET extra = 'x'")
    assert trial.fails({"new_column": "fail"}).kind is Kind.SCHEMA
    assert told(trial.run().schema_changes) == [(ChangeKind.NEW_COLUMN, "extra", ChangeAction.ADDED)]
    assert [told(event.changes) for event in trial.schema_state().history] == [
        [(ChangeKind.NEW_COLUMN, "extra", ChangeAction.ADDED)]
    ]


@each_mode
def test_without_state_a_table_that_allows_null_is_as_somebody_made_it(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_destination("ALTER TABLE {table} ALTER n DROP NOT NULL")
    forget(trial)
    assert trial.run({"nullability_change": "fail"}).schema_changes == ()
    assert not trial.catalog().column("n").not_null


def test_without_state_a_removed_column_of_updated_rows_is_somebody_else_s(make_trial: MakeTrial) -> None:
    trial = moved(make_trial("upsert"))
    forget(trial)
    trial.at_source("ALTER TABLE {table} DROP note; UPDATE {table} SET n = 21 WHERE id = 2")
    assert told(trial.run().schema_changes) == [(ChangeKind.REMOVED_COLUMN, "note", ChangeAction.IGNORED)]
    assert trial.content(["id", "n", "note"]) == [("1", "10", "a"), ("2", "21", "b")]


@each_mode
def test_a_table_that_somebody_made_before_the_first_run_is_under_the_policy_too(
    make_trial: MakeTrial, write_mode: str
) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.at_destination(
        "CREATE SCHEMA {schema}; CREATE TABLE {table} (remark text, id bigint PRIMARY KEY, n text NOT NULL)"
    )
    result = trial.run({"type_change": "coerce"})
    assert sorted(told(result.schema_changes), key=repr) == sorted(
        [
            (ChangeKind.NEW_COLUMN, "note", ChangeAction.ADDED),
            (ChangeKind.REMOVED_COLUMN, "remark", ChangeAction.IGNORED),
            (ChangeKind.TYPE_CHANGE, "id", ChangeAction.CAST),
            (ChangeKind.TYPE_CHANGE, "n", ChangeAction.CAST),
        ],
        key=repr,
    )
    assert [(column.name, column.type) for column in trial.catalog().columns] == [
        ("remark", "text"),
        ("id", "bigint"),
        ("n", "text"),
        ("note", "text"),
    ]
    assert trial.content(["id", "n", "note", "remark"]) == [("1", "10", "a", None), ("2", "20", "b", None)]


@each_mode
def test_a_table_that_somebody_dropped_is_made_as_the_source_is_now(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_source("ALTER TABLE {table} DROP note, ADD more date NOT NULL DEFAULT '2024-01-02'")
    trial.at_destination("DROP TABLE {table}")
    policy = dict.fromkeys(("new_column", "removed_column", "type_change", "nullability_change"), "fail")
    assert trial.run(policy).schema_changes == ()
    assert [(column.name, column.not_null) for column in trial.catalog().columns] == [
        ("id", True),
        ("n", True),
        ("more", True),
    ]


@each_mode
def test_the_order_of_columns_is_no_difference(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode, stream={"columns": ["id", "n", "note"]}))
    trial.stream = {"columns": ["note", "id", "n"]}
    policy = dict.fromkeys(("new_column", "removed_column", "type_change", "nullability_change"), "fail")
    assert trial.run(policy).schema_changes == ()
    assert trial.catalog().names == ("id", "n", "note")
    assert set(trial.content(["id", "note"])) == {("1", "a"), ("2", "b")}


def test_the_same_policy_is_in_force_when_it_is_not_written_down(make_trial: MakeTrial) -> None:
    trial = moved(make_trial("append"))
    trial.at_source(
        "ALTER TABLE {table} ADD added text, DROP note, ALTER n DROP NOT NULL;INSERT INTO {table} VALUES (3, NULL, 'x')"
    )
    result = trial.run()
    assert sorted(told(result.schema_changes), key=repr) == sorted(
        [
            (ChangeKind.NEW_COLUMN, "added", ChangeAction.ADDED),
            (ChangeKind.REMOVED_COLUMN, "note", ChangeAction.IGNORED),
            (ChangeKind.NULLABILITY_CHANGE, "n", ChangeAction.RELAXED),
        ],
        key=repr,
    )
    assert {change.policy for change in result.schema_changes} == {"add", "ignore", "allow"}
    trial.at_source("ALTER TABLE {table} ALTER n TYPE bigint")
    assert "type_change: fail" in str(trial.fails())


@each_mode
def test_a_stream_without_rows_changes_its_table_too(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_source("TRUNCATE {table}; ALTER TABLE {table} ADD extra text NOT NULL, ALTER n TYPE bigint")
    result = trial.run({"type_change": "coerce"})
    assert result.rows == 0
    assert len(result.schema_changes) == 2
    assert trial.catalog().column("n").type == "bigint"
    assert trial.catalog().column("extra").not_null == (write_mode == "replace")
    assert len(trial.content(["id"])) == (0 if write_mode == "replace" else 2)


@each_mode
@pytest.mark.parametrize(
    ("change", "policy", "column"),
    [("DROP n", {}, "n"), ("ALTER n TYPE jsonb USING to_json(n)", {"type_change": "null"}, "n")],
    ids=["removed", "nulled"],
)
def test_not_null_that_another_axis_has_to_drop_is_not_for_nullability_to_refuse(
    make_trial: MakeTrial, write_mode: str, change: str, policy: dict[str, str], column: str
) -> None:
    trial = moved(make_trial(write_mode))
    trial.at_source(f"ALTER TABLE {{table}} {change}")
    [told_of] = trial.run({**policy, "nullability_change": "fail"}).schema_changes
    assert told_of.column == column
    assert "DROP NOT NULL" in told_of.ddl[0]
    assert not trial.catalog().column(column).not_null


@each_mode
def test_identity_columns_follow_with_their_sequences(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.at_destination(
        "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,"
        " n integer NOT NULL DEFAULT 5, note text DEFAULT 'none')"
    )
    trial.run()
    trial.at_source(
        "ALTER TABLE {table} ALTER id TYPE bigint, ALTER n TYPE text; UPDATE {table} SET id = id + 3000000000"
    )
    trial.run({"type_change": "coerce"})
    columns = {column.name: column for column in trial.catalog().columns}
    assert (columns["id"].type, columns["n"].type) == ("bigint", "text")
    assert (columns["id"].more, columns["n"].more[:3], columns["note"].more) == ("d", "5", "'none'::text") or columns[
        "n"
    ].more == "'5'::text"
    assert ("3000000001", "10", "a") in trial.content(["id", "n", "note"])


def test_a_column_that_was_left_out_arrives_when_the_policy_lets_it(make_trial: MakeTrial) -> None:
    trial = moved(make_trial("upsert"))
    trial.at_source("ALTER TABLE {table} ADD extra text; UPDATE {table} SET extra = note")
    trial.run({"new_column": "ignore"})
    assert trial.catalog().names == ("id", "n", "note")
    trial.run({"new_column": "add"})
    assert trial.content(["note", "extra"]) == [("a", "a"), ("b", "b")]
    assert [told(event.changes)[0][2] for event in trial.schema_state().history] == [
        ChangeAction.IGNORED,
        ChangeAction.ADDED,
    ]


@each_mode
def test_columns_that_the_pipeline_leaves_out_are_removed_ones(make_trial: MakeTrial, write_mode: str) -> None:
    trial = moved(make_trial(write_mode))
    trial.stream = {"columns": ["id", "n"]}
    assert told(trial.run().schema_changes) == [(ChangeKind.REMOVED_COLUMN, "note", ChangeAction.IGNORED)]
    assert trial.fails({"removed_column": "fail"}).kind is Kind.SCHEMA
