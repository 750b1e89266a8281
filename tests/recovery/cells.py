"""What is interrupted: every sync mode with every write mode, each with the tables that make it take its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# About 25 batches of a run, and with them several commits where a mode commits on the way.
RESOURCES: Mapping[str, Any] = {
    "max_batch_bytes": "64kb",
    "checkpoint_interval_rows": 400,
    "parallelism": 2,
    "max_retries": 0,
}

FIRST_ROWS = 600
LATER_ROWS = 1400


def insert_rows(first: int, last: int, *, changed: str = "") -> str:
    """Rows `first` to `last`; their cursor grows with them, and pairs share a value."""
    return (
        "INSERT INTO events SELECT i, '2024-01-01Z'::timestamptz + (i / 2) * interval '1 s',"
        f" i % 7, '{changed}' || repeat(md5(i::text), 15) FROM generate_series({first}, {last}) i;"
    )


KEYED = "CREATE TABLE events (id bigint PRIMARY KEY, updated_at timestamptz NOT NULL, kind int, body text);"
# Rows that cannot be told apart: only their number says whether one was repeated.
UNKEYED = "CREATE TABLE events (id bigint, updated_at timestamptz NOT NULL, kind int, body text);"
TWINS = "INSERT INTO events SELECT * FROM events WHERE id % 100 = 0;"

NEW_ROWS = insert_rows(FIRST_ROWS + 1, FIRST_ROWS + LATER_ROWS)
EVEN_NEWER_ROWS = insert_rows(FIRST_ROWS + LATER_ROWS + 1, FIRST_ROWS + LATER_ROWS + 100)
CHANGED_ROWS = (
    "UPDATE events SET body = upper(body), updated_at = updated_at + interval '1 day' WHERE id % 3 = 0;"
    " UPDATE events SET kind = NULL, updated_at = updated_at + interval '2 days' WHERE id % 5 = 0;"
)
DELETED_ROWS = "DELETE FROM events WHERE id % 4 = 0; UPDATE events SET body = lower(body) WHERE id % 3 = 0;"


@dataclass(frozen=True)
class Cell:
    """One way to move a table.

    `source` makes and fills the table; with `runs_before` a whole run follows, then `changes`; then comes the run that
    is interrupted. `destination` prepares the destination once its table is there, `{schema}` being the tables' own.
    `later` are the source's new rows for one more run, which then moves `later_rows` rows (None: all of them).
    """

    name: str
    sync_mode: str
    write_mode: str
    source: str
    changes: str = ""
    runs_before: bool = True
    destination: str = ""
    later: str = EVEN_NEWER_ROWS
    later_rows: int | None = None
    stream: Mapping[str, Any] = field(default_factory=dict)
    transforms: Sequence[Mapping[str, Any]] = ()
    on_data_error: str = "fail"
    publishes: str | None = None
    """A regular expression of the statement by which the new content gets its place, where there is one."""

    def __str__(self) -> str:
        return self.name

    @property
    def commits_on_the_way(self) -> bool:
        return self.sync_mode == "incremental"

    @property
    def is_sharded(self) -> bool:
        return bool(self.stream.get("shards", 1) != 1)

    @property
    def stream_section(self) -> dict[str, Any]:
        cursor = {"cursor_field": "updated_at"} if self.sync_mode == "incremental" else {"shards": 1}
        return {"name": "events", "sync_mode": self.sync_mode, **cursor, **self.stream}


MERGES = r'^SAVEPOINT \w+; MERGE INTO "\w+"."events"'

FULL_APPEND_NEW = Cell(
    "full_refresh-append-new", "full_refresh", "append", UNKEYED + NEW_ROWS + TWINS, runs_before=False
)
FULL_APPEND = Cell(
    "full_refresh-append", "full_refresh", "append", UNKEYED + insert_rows(1, FIRST_ROWS) + TWINS, NEW_ROWS
)
FULL_REPLACE_NEW = Cell("full_refresh-replace-new", "full_refresh", "replace", KEYED + NEW_ROWS, runs_before=False)
FULL_REPLACE_SWAP = Cell(
    "full_refresh-replace-swap",
    "full_refresh",
    "replace",
    KEYED + insert_rows(1, FIRST_ROWS),
    DELETED_ROWS + NEW_ROWS,
    publishes=r"^DROP TABLE .* RENAME TO",
)
FULL_REPLACE_REWRITE = Cell(
    "full_refresh-replace-rewrite",
    "full_refresh",
    "replace",
    KEYED + insert_rows(1, FIRST_ROWS),
    DELETED_ROWS + NEW_ROWS,
    destination="CREATE VIEW {schema}.seen AS SELECT id, kind FROM {schema}.events",
    publishes=r"^DELETE FROM .* INSERT INTO",
)
FULL_UPSERT = Cell(
    "full_refresh-upsert",
    "full_refresh",
    "upsert",
    KEYED + insert_rows(1, FIRST_ROWS),
    DELETED_ROWS + NEW_ROWS,
    publishes=MERGES,
)
FULL_UPSERT_NEW = Cell("full_refresh-upsert-new", "full_refresh", "upsert", KEYED + NEW_ROWS, runs_before=False)
INCREMENTAL_APPEND_NEW = Cell(
    "incremental-append-new",
    "incremental",
    "append",
    KEYED + insert_rows(1, FIRST_ROWS) + NEW_ROWS,
    runs_before=False,
    later_rows=100,
)
INCREMENTAL_APPEND = Cell(
    "incremental-append", "incremental", "append", KEYED + insert_rows(1, FIRST_ROWS), NEW_ROWS, later_rows=100
)
INCREMENTAL_UPSERT = Cell(
    "incremental-upsert",
    "incremental",
    "upsert",
    KEYED + insert_rows(1, FIRST_ROWS),
    CHANGED_ROWS + NEW_ROWS,
    publishes=MERGES,
    later=insert_rows(10001, 10100).replace("2024", "2034"),
    later_rows=100,
)
INCREMENTAL_APPEND_MASKED = replace(
    INCREMENTAL_APPEND,
    name="incremental-append-masked",
    transforms=[{"use": "mask", "config": {"columns": {"body": {"keep_last": 4}}}}],
)


def sharded(cell: Cell, *, publishes: str) -> Cell:
    """The same in two shards: staged by a pair of connectors each, published by one transaction."""
    return replace(cell, name=f"{cell.name}-sharded", stream={**cell.stream, "shards": 2}, publishes=publishes)


GIVES_ROWS = r'^INSERT INTO "\w+"."events"'

SHARDED_APPEND_NEW = sharded(FULL_APPEND_NEW, publishes=r"^ALTER TABLE .* RENAME TO")
SHARDED_APPEND = sharded(FULL_APPEND, publishes=GIVES_ROWS)
SHARDED_REPLACE_SWAP = sharded(FULL_REPLACE_SWAP, publishes=r"^DROP TABLE .* RENAME TO")
SHARDED_REPLACE_REWRITE = sharded(FULL_REPLACE_REWRITE, publishes=r"^DELETE FROM .* INSERT INTO")
SHARDED_UPSERT = sharded(FULL_UPSERT, publishes=MERGES)

# Where rows are left out: the destination's table refuses some of those that the interrupted run brings.

REFUSES = """
    ALTER TABLE {schema}.events ADD CONSTRAINT fifties CHECK (id <= 600 OR id % 50 <> 7),
        ADD CONSTRAINT small CHECK (body !~ '^[A-F]')
"""
MADE_BEFORE = (
    "CREATE SCHEMA {schema};"
    " CREATE TABLE {schema}.events (id bigint, updated_at timestamptz NOT NULL, kind int, body text);"
)
# What a trigger will say, no query knows beforehand.
REFUSES_BY_TRIGGER = """
    CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.id > 600 AND new.id % 50 = 7 OR new.body ~ '^[A-F]' THEN RAISE 'no %', new.id; END IF;
        RETURN new;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {schema}.events FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()
"""
BAD_TWINS = "INSERT INTO events SELECT * FROM events WHERE id % 100 IN (0, 7);"
LARGE_LETTERS = "DELETE FROM events WHERE id % 4 = 0; UPDATE events SET body = upper(body) WHERE id % 3 = 0;"
LATER_FITTING_ROWS = 98
"""Of 100 later ones, as far as two that end in 07 and 57 are among them."""

LETTERS_FULL_APPEND = replace(
    FULL_APPEND_NEW,
    name="full_refresh-append-dlq",
    source=UNKEYED + NEW_ROWS + BAD_TWINS,
    destination=MADE_BEFORE + REFUSES,
    on_data_error="dlq",
)
LETTERS_REPLACE = replace(
    FULL_REPLACE_REWRITE,
    name="full_refresh-replace-dlq",
    changes=LARGE_LETTERS + NEW_ROWS,
    destination=REFUSES,
    on_data_error="dlq",
    publishes=None,
)
LETTERS_FULL_UPSERT = replace(
    FULL_UPSERT,
    name="full_refresh-upsert-dlq",
    changes=LARGE_LETTERS + NEW_ROWS,
    destination=REFUSES,
    on_data_error="dlq",
    publishes=None,
)
LETTERS_APPEND = replace(
    INCREMENTAL_APPEND,
    name="incremental-append-dlq",
    destination=REFUSES,
    on_data_error="dlq",
    later_rows=LATER_FITTING_ROWS,
)
LETTERS_UPSERT = replace(
    INCREMENTAL_UPSERT,
    name="incremental-upsert-dlq",
    destination=REFUSES,
    on_data_error="dlq",
    later_rows=LATER_FITTING_ROWS,
    publishes=None,
)
LETTERS_UPSERT_TRIGGER = replace(LETTERS_UPSERT, name="incremental-upsert-dlq-trigger", destination=REFUSES_BY_TRIGGER)

# A transform refuses some rows, the destination's table others.
LETTERS_OF_RULES = replace(
    LETTERS_APPEND,
    name="incremental-append-dlq-rules",
    transforms=[{"use": "validate", "config": {"rules": [{"assert_range": {"column": "kind", "max": 5}}]}}],
    later_rows=84,
)

LETTERS = (
    LETTERS_OF_RULES,
    LETTERS_FULL_APPEND,
    LETTERS_REPLACE,
    LETTERS_FULL_UPSERT,
    LETTERS_APPEND,
    LETTERS_UPSERT,
    LETTERS_UPSERT_TRIGGER,
)

SHARDED = (
    SHARDED_APPEND_NEW,
    SHARDED_APPEND,
    SHARDED_REPLACE_SWAP,
    SHARDED_REPLACE_REWRITE,
    SHARDED_UPSERT,
)
ALL: tuple[Cell, ...] = (
    FULL_APPEND_NEW,
    FULL_APPEND,
    FULL_REPLACE_NEW,
    FULL_REPLACE_SWAP,
    FULL_REPLACE_REWRITE,
    FULL_UPSERT_NEW,
    FULL_UPSERT,
    INCREMENTAL_APPEND_NEW,
    INCREMENTAL_APPEND,
    INCREMENTAL_UPSERT,
    INCREMENTAL_APPEND_MASKED,
    *SHARDED,
)
