"""The example of docs/schema-evolution.md is what happens."""

from __future__ import annotations

import re
from pathlib import Path

from rapidbyte_dagster.errors import Kind
from tests.evolution.conftest import MakeTrial

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "schema-evolution.md").read_text()
SOURCE = (
    "CREATE SCHEMA {schema}; CREATE TABLE {table} (id bigint PRIMARY KEY, email varchar(40) NOT NULL, age integer);"
    "INSERT INTO {table} VALUES (1, 'a@x', 30)"
)
CHANGED = (
    "DROP TABLE {table}; CREATE TABLE {table} (id bigint PRIMARY KEY, email text, phone text, age jsonb);"
    "INSERT INTO {table} VALUES (1, 'a@x', '1', '30')"
)


def blocks() -> list[str]:
    """The fenced ones of the section."""
    section = PAGE.split("## An example\n")[1].split("\n## ")[0]
    return [" ".join(block.split()) for block in re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)]


def test_the_example_of_the_page_happens_as_it_says(make_trial: MakeTrial) -> None:
    log, statements, refusal = blocks()
    trial = make_trial("upsert")
    trial.at_source(SOURCE)
    trial.run()
    trial.at_source(CHANGED)
    error = trial.fails()
    said = str(error).replace(f"{trial.name}.events", "raw.users").replace("'events'", "'users'")
    assert " ".join(said.split()) == refusal
    trial.at_source("""UPDATE {table} SET age = '{"years": 30}'""")
    assert trial.fails({"type_change": "coerce"}).kind is Kind.DATA
    trial.at_source("UPDATE {table} SET age = '31'")
    changes = trial.run({"type_change": "coerce"}).schema_changes
    assert " ".join(f"destination: {change.message}" for change in changes) == log
    ddl = " ".join(f"{statement};" for change in changes for statement in change.ddl)
    assert ddl.replace(trial.table, '"raw"."users"') == statements
    assert trial.content(["id", "email", "age", "phone"]) == [("1", "a@x", "31", "1")]
