"""Changes that the policy allows and the table does not: a clear error, and nothing has happened."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rapidbyte_dagster.errors import Kind, SchemaError
from rapidbyte_dagster.state import ChangeAction
from tests.evolution.catalog import catalog
from tests.evolution.conftest import MakeTrial
from tests.evolution.effects import WRITE_MODES
from tests.evolution.selection import taking_turns
from tests.postgres_server import unique_name

each_mode = pytest.mark.parametrize("write_mode", WRITE_MODES)

SOURCE = (
    "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer PRIMARY KEY, n integer, note text);"
    "INSERT INTO {table} VALUES (1, 10, 'a'), (2, 20, 'b')"
)
COERCE = {"type_change": "coerce"}


@dataclass(frozen=True)
class Obstacle:
    name: str
    destination: str
    type: str = "bigint"
    """What the source's column `n` becomes."""
    says: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


OBSTACLES = (
    Obstacle("a view", "CREATE VIEW {schema}.seen AS SELECT n FROM {table}", says=("seen",)),
    Obstacle("a view's condition", "CREATE VIEW {schema}.seen AS SELECT id FROM {table} WHERE n > 0", says=("seen",)),
    Obstacle("a materialized view", "CREATE MATERIALIZED VIEW {schema}.kept AS SELECT n FROM {table}", says=("kept",)),
    Obstacle(
        "a generated column",
        "ALTER TABLE {table} ADD twice integer GENERATED ALWAYS AS (n * 2) STORED",
        says=("twice",),
    ),
    Obstacle("an index on an expression", "CREATE INDEX ON {table} ((n + 1))", type="text"),
    Obstacle("a check", "ALTER TABLE {table} ADD CONSTRAINT positive CHECK (n > 0)", type="text"),
    Obstacle(
        "a trigger of the column",
        "CREATE FUNCTION {schema}.fired() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER watch BEFORE UPDATE OF n ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.fired()",
        says=("watch",),
    ),
    Obstacle(
        "a policy of rows",
        "CREATE POLICY visible ON {table} USING (n > 0)",
        says=("visible",),
    ),
    Obstacle(
        "a foreign key to another table",
        "CREATE TABLE {schema}.numbers (n integer PRIMARY KEY); INSERT INTO {schema}.numbers VALUES (10), (20);"
        "ALTER TABLE {table} ADD FOREIGN KEY (n) REFERENCES {schema}.numbers",
        type="text",
    ),
    Obstacle(
        "a foreign key from another table",
        "ALTER TABLE {table} ADD UNIQUE (n);"
        "CREATE TABLE {schema}.others (n integer REFERENCES {table} (n)); INSERT INTO {schema}.others VALUES (10)",
        type="text",
    ),
)


@pytest.mark.parametrize(("obstacle", "write_mode"), taking_turns(OBSTACLES, WRITE_MODES))
def test_a_type_that_something_of_the_table_depends_on_is_not_changed(
    make_trial: MakeTrial, obstacle: Obstacle, write_mode: str
) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_destination(obstacle.destination)
    trial.at_source(f"ALTER TABLE {{table}} ALTER n TYPE {obstacle.type}, ADD extra text")
    error = trial.fails(COERCE)
    assert error.kind is Kind.SCHEMA
    said = str(error)
    assert all(word in said for word in ("column n", "integer", obstacle.type, "type_change: coerce", *obstacle.says))
    assert error.hint


@each_mode
def test_a_table_is_not_altered_where_it_is_partitioned_by_the_column(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE.replace("id integer PRIMARY KEY, n integer", "id integer, n integer, PRIMARY KEY (id, n)"))
    trial.at_destination(
        "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer, n integer, note text, PRIMARY KEY (id, n))"
        " PARTITION BY RANGE (n); CREATE TABLE {schema}.part PARTITION OF {table} DEFAULT"
    )
    trial.run()
    trial.at_source("ALTER TABLE {table} ALTER n TYPE bigint")
    error = trial.fails(COERCE)
    assert error.kind is Kind.SCHEMA
    assert all(word in str(error) for word in ("column n", "integer", "bigint", "type_change: coerce", "partition"))


@each_mode
@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            "CREATE TYPE {schema}.row AS (id integer, n integer, note text); CREATE TABLE {table} OF {schema}.row",
            "typed",
        ),
        (
            "CREATE TABLE {schema}.whole (id integer NOT NULL, n integer, note text) PARTITION BY RANGE (id);"
            "CREATE TABLE {table} PARTITION OF {schema}.whole DEFAULT",
            "partition",
        ),
        (
            "CREATE TABLE {schema}.parent (id integer NOT NULL, n integer, note text);"
            "CREATE TABLE {table} () INHERITS ({schema}.parent)",
            "inherited",
        ),
    ],
    ids=["a typed table", "a partition", "a child"],
)
def test_a_table_whose_columns_are_another_s_is_not_altered(
    make_trial: MakeTrial, write_mode: str, table: str, said: str
) -> None:
    stream = {"primary_key": ["id"]} if write_mode == "upsert" else {}
    trial = make_trial(write_mode, stream=stream)
    trial.at_source(SOURCE)
    trial.at_destination(f"CREATE SCHEMA {{schema}}; {table}; ALTER TABLE {{table}} ALTER id SET NOT NULL")
    trial.run()
    trial.at_source("ALTER TABLE {table} ALTER n TYPE bigint")
    error = trial.fails(COERCE)
    assert error.kind is Kind.SCHEMA
    assert all(word in str(error) for word in ("column n", "integer", "bigint", "type_change: coerce", said))


@each_mode
def test_a_table_with_children_changes_with_them(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_destination(
        "CREATE TABLE {schema}.child () INHERITS ({table}); INSERT INTO {schema}.child VALUES (100, 7)"
    )
    trial.at_source("ALTER TABLE {table} ALTER n TYPE bigint, ADD extra text")
    assert len(trial.run(COERCE).schema_changes) == 2
    columns = catalog(trial.destination, f'"{trial.name}".child').columns
    assert [(column.name, column.type) for column in columns[-3:]] == [
        ("n", "bigint"),
        ("note", "text"),
        ("extra", "text"),
    ]


@each_mode
def test_columns_that_foreign_keys_use_are_widened_where_those_permit_it(
    make_trial: MakeTrial, write_mode: str
) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_destination(
        "CREATE TABLE {schema}.numbers (n integer PRIMARY KEY); INSERT INTO {schema}.numbers VALUES (10), (20);"
        "ALTER TABLE {table} ADD FOREIGN KEY (n) REFERENCES {schema}.numbers, ADD UNIQUE (id, n);"
        "CREATE TABLE {schema}.others (id integer, n integer, FOREIGN KEY (id, n) REFERENCES {table} (id, n));"
        "INSERT INTO {schema}.others VALUES (1, 10)"
    )
    before = trial.catalog()
    trial.at_source("ALTER TABLE {table} ALTER n TYPE bigint; UPDATE {table} SET note = 'B' WHERE id = 2")
    if write_mode == "append":
        trial.at_source("UPDATE {table} SET id = id + 2")
    [change] = trial.run(COERCE).schema_changes
    assert change.action is ChangeAction.WIDENED
    assert trial.catalog().column("n").type == "bigint"
    assert (trial.catalog().indexes, trial.catalog().constraints) == (before.indexes, before.constraints)
    assert trial.destination.value(f'SELECT count(*) FROM "{trial.name}".others') == 1


@each_mode
def test_a_partitioned_table_gets_other_types(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.at_destination(
        "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer PRIMARY KEY, n integer NOT NULL, note text)"
        " PARTITION BY RANGE (id); CREATE TABLE {schema}.low PARTITION OF {table} FOR VALUES FROM (0) TO (3);"
        "CREATE TABLE {schema}.high PARTITION OF {table} DEFAULT"
    )
    trial.run()
    trial.at_source(
        "ALTER TABLE {table} ALTER n TYPE bigint, DROP note; UPDATE {table} SET id = id + 2, n = 3000000000"
    )
    trial.run(COERCE)
    for table in (trial.table, f'"{trial.name}".low', f'"{trial.name}".high'):
        assert catalog(trial.destination, table).column("n").type == "bigint"
    assert {("3", "3000000000", None), ("4", "3000000000", None)} <= set(trial.content(["id", "n", "note"]))


@each_mode
def test_a_partitioned_table_gets_new_columns(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.at_destination(
        "CREATE SCHEMA {schema}; CREATE TABLE {table} (id integer PRIMARY KEY, n integer, note text)"
        " PARTITION BY RANGE (id); CREATE TABLE {schema}.part PARTITION OF {table} DEFAULT"
    )
    trial.run()
    trial.at_source("ALTER TABLE {table} ADD extra text, ALTER note TYPE varchar(3); UPDATE {table} SET id = id + 2")
    [change] = trial.run(COERCE).schema_changes
    assert change.action is ChangeAction.ADDED
    assert trial.catalog().names == ("id", "n", "note", "extra")


@each_mode
def test_a_generated_column_cannot_be_brought(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_destination("ALTER TABLE {table} ADD twice integer GENERATED ALWAYS AS (n * 2) STORED")
    trial.at_source("ALTER TABLE {table} ADD twice integer")
    error = trial.fails({"new_column": "ignore"})
    assert error.kind is Kind.SCHEMA
    assert "twice" in str(error)
    assert "generated" in str(error)


@each_mode
@pytest.mark.parametrize(
    ("prepared", "change", "policy", "said"),
    [
        ("", "ADD extra text", {}, ("extra", "text", "new_column: add")),
        ("", "ALTER n TYPE bigint", COERCE, ("column n", "integer", "bigint", "type_change: coerce")),
        ("ALTER n SET NOT NULL", "DROP n", {}, ("column n", "integer", "removed_column: ignore")),
        ("ALTER n SET NOT NULL", "ALTER note TYPE varchar", {}, ("column n", "nullability_change: allow")),
    ],
    ids=["new", "type", "removed", "nullability"],
)
def test_a_role_that_does_not_own_the_table_is_told_what_its_owner_has_to_run(
    make_trial: MakeTrial, write_mode: str, prepared: str, change: str, policy: dict[str, str], said: tuple[str, ...]
) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    loader = unique_name("loader")
    trial.destination.database.server.create_role(loader, password="loader")
    try:
        if prepared:
            trial.at_destination(f"ALTER TABLE {{table}} {prepared}")
        trial.at_destination(
            f"GRANT ALL ON SCHEMA {{schema}} TO {loader}; GRANT ALL ON ALL TABLES IN SCHEMA {{schema}} TO {loader}"
        )
        trial.destination_config = {"user": loader, "password": "loader"}
        trial.at_source(f"ALTER TABLE {{table}} {change}")
        error = trial.fails(policy)
        assert error.kind is Kind.PERMISSION
        assert all(word in str(error) for word in (*said, "etl"))
        owner_s = (error.hint or "").split(": ", 1)[1]
        trial.at_destination(owner_s)
        # What takes no DDL is nobody's but the loader's.
        assert all(not change.ddl for change in trial.run(policy).schema_changes)
    finally:
        trial.destination.database.execute(f"DROP OWNED BY {loader}; DROP ROLE {loader}", superuser=True)


@each_mode
def test_a_stream_without_any_column_of_its_table_is_refused(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.at_destination("CREATE SCHEMA {schema}; CREATE TABLE {table} (other integer)")
    with pytest.raises(SchemaError, match="column"):
        trial.run({"new_column": "ignore"})
    assert trial.catalog().names == ("other",)


@each_mode
def test_a_table_that_is_full_of_columns_takes_no_more(make_trial: MakeTrial, write_mode: str) -> None:
    trial = make_trial(write_mode)
    trial.at_source(SOURCE)
    trial.run()
    trial.at_destination(
        "DO $$ BEGIN FOR i IN 1..1597 LOOP"
        " EXECUTE format('ALTER TABLE {table} ADD c%s int DEFAULT NULL', i); END LOOP; END $$"
    )
    trial.at_source("ALTER TABLE {table} ADD extra text")
    error = trial.fails({"removed_column": "add"})
    assert error.kind is Kind.SCHEMA
    assert all(word in str(error) for word in ("extra", "text", "new_column: add"))
