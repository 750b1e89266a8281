"""One table, and several who alter it, read it or hold it at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.state import ChangeAction
from tests.evolution.background import Background, until
from tests.evolution.conftest import MakeTrial
from tests.evolution.effects import WRITE_MODES
from tests.evolution.trial import Trial

each_mode = pytest.mark.parametrize("write_mode", WRITE_MODES)

SOURCE = (
    "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer PRIMARY KEY, n integer);"
    "INSERT INTO {table} SELECT i, i FROM generate_series(1, 10) i"
)
ADDED = "ALTER TABLE {table} ADD extra text DEFAULT 'x'"
RETRIES = {"resources": {"max_retries": 10, "parallelism": 2}}


def waiting(trial: Trial) -> int:
    """How many sessions wait for the table."""
    return int(
        trial.destination.value(
            "SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND NOT granted", [trial.table]
        )
    )


def another_pipeline(trial: Trial, folder: Path) -> Trial:
    """The same source and the same table under another pipeline's name, with a state of its own."""
    folder.mkdir()
    return Trial(
        folder,
        trial.source,
        trial.destination,
        trial.name,
        trial.write_mode,
        pipeline_name="other",
        options=trial.options,
    )


@each_mode
def test_two_pipelines_that_evolve_one_table_at_once_both_end_well(
    make_trial: MakeTrial, tmp_path: Path, write_mode: str
) -> None:
    trial = make_trial(write_mode, options=RETRIES)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(ADDED)
    other = another_pipeline(trial, tmp_path / "other")
    # Both have looked at the table before either can alter it.
    with trial.destination.database.connect() as holder:
        holder.execute("BEGIN")
        holder.execute(f"LOCK TABLE {trial.table} IN ROW EXCLUSIVE MODE".encode())
        runs = Background(trial), Background(other)
        until(lambda: waiting(trial) == 2)
        holder.execute("COMMIT")
    results = [run.result() for run in runs]
    added = [change for result in results for change in result.schema_changes]
    # The one that came second found the column there, and says nothing of what it could not commit before.
    assert [(change.column, change.action) for change in added] == [("extra", ChangeAction.ADDED)]
    assert max(result.attempts for result in results) > 1
    assert sorted(len(side.schema_state().history) for side in (trial, other)) == [0, 1]
    assert trial.catalog().names == ("id", "n", "extra")
    with_it = len([row for row in trial.content(["extra"]) if row == ("x",)])
    assert with_it == (20 if write_mode == "append" else 10)


@pytest.mark.parametrize("write_mode", ["append", "upsert"])
def test_pipelines_that_disagree_about_a_new_column_s_type_are_told(
    make_trial: MakeTrial, tmp_path: Path, write_mode: str
) -> None:
    trial = make_trial(write_mode, options=RETRIES)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(ADDED)
    other = another_pipeline(trial, tmp_path / "other")
    with trial.destination.database.connect() as holder:
        holder.execute("BEGIN")
        holder.execute(f"LOCK TABLE {trial.table} IN ROW EXCLUSIVE MODE".encode())
        first = Background(trial)
        until(lambda: waiting(trial) == 1)
        trial.at_source("ALTER TABLE {table} ALTER extra DROP DEFAULT, ALTER extra TYPE integer USING 1")
        second = Background(other)
        until(lambda: waiting(trial) == 2)
        holder.execute("COMMIT")
    ended = [first.outcome, second.outcome]
    [result] = [outcome for outcome in ended if isinstance(outcome, StreamResult)]
    [error] = [outcome for outcome in ended if isinstance(outcome, RapidbyteError)]
    assert [change.action for change in result.schema_changes] == [ChangeAction.ADDED]
    assert error.kind is Kind.SCHEMA
    assert all(word in str(error) for word in ("column extra", "text", "integer", "type_change: fail"))


@each_mode
def test_many_pipelines_evolve_one_table_until_all_agree(
    make_trial: MakeTrial, tmp_path: Path, write_mode: str
) -> None:
    trial = make_trial(write_mode, options=RETRIES)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(f"{ADDED}, ALTER n TYPE bigint")
    barrier = threading.Barrier(3)
    others = [another_pipeline(trial, tmp_path / f"other{i}") for i in range(3)]
    for number, other in enumerate(others):
        other.pipeline_name = f"other{number}"
        other.before_run = barrier.wait
    runs = [Background(other, {"type_change": "coerce"}) for other in others]
    changes = [change for run in runs for change in run.result().schema_changes]
    assert sorted(str(change.column) for change in changes if change.ddl) == ["extra", "n"]
    assert [(column.name, column.type) for column in trial.catalog().columns] == [
        ("id", "integer"),
        ("n", "bigint"),
        ("extra", "text"),
    ]


@each_mode
@pytest.mark.parametrize("change", ["", ", ALTER n TYPE bigint"], ids=["new column", "and another type"])
def test_a_table_that_is_altered_while_a_run_waits_for_it_is_looked_at_again(
    make_trial: MakeTrial, write_mode: str, change: str
) -> None:
    trial = make_trial(write_mode, options=RETRIES)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(ADDED + change)
    with trial.destination.database.connect() as somebody:
        somebody.execute("BEGIN")
        somebody.execute(f"ALTER TABLE {trial.table} ADD extra text".encode())
        run = Background(trial, {"type_change": "coerce"})
        until(lambda: waiting(trial) == 1)
        somebody.execute("COMMIT")
    result = run.result()
    assert [change.column for change in result.schema_changes] == (["n"] if change else [])
    assert len(trial.schema_state().history) == len(result.schema_changes)
    assert trial.catalog().names == ("id", "n", "extra")
    assert trial.content(["extra"]).count(("x",)) == 10


@each_mode
def test_a_run_waits_for_readers_that_hold_a_table_which_it_alters(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(ADDED)
    with trial.destination.database.connect() as reader:
        reader.execute("BEGIN")
        assert reader.execute(f"SELECT count(*) FROM {trial.table}".encode()).fetchall() == [(10,)]
        run = Background(trial)
        until(lambda: waiting(trial) == 1 or not run.is_alive())
        # What was read can be read again, as it was.
        assert reader.execute(f"SELECT count(*) FROM {trial.table}".encode()).fetchall() == [(10,)]
        reader.execute("COMMIT")
    [change] = run.result().schema_changes
    assert change.action is ChangeAction.ADDED
    assert trial.content(["extra"]).count(("x",)) == 10


@each_mode
def test_a_run_that_need_not_alter_the_table_waits_for_no_reader(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(ADDED + "; INSERT INTO {table} VALUES (11, 11)")
    # A swap waits for readers whatever the columns are.
    trial.at_destination("CREATE VIEW {schema}.seen AS SELECT id FROM {table}")
    with trial.destination.database.connect() as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {trial.table}".encode())
        result = trial.run({"new_column": "ignore"})
    assert [change.action for change in result.schema_changes] == [ChangeAction.IGNORED]
