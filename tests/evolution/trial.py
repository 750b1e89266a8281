"""A stream whose table is moved, changed at its source, and moved again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import sql

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine import StreamResult, run_stream
from rapidbyte_dagster.errors import RapidbyteError
from rapidbyte_dagster.state import Checkpoint, SchemaChange, SchemaState, open_state
from tests.evolution.catalog import Catalog, catalog
from tests.pipelines import make_pipeline
from tests.postgres_server import Database

STREAM = "events"


@dataclass(frozen=True)
class Traces:
    """Everything of a stream that a run can leave a mark on."""

    catalog: Catalog
    file: str
    """Of the table: another one would have been rewritten, or replaced."""
    rows: tuple[tuple[str, ...], ...]
    """With their places and the transactions that wrote them."""
    tables: tuple[str, ...]
    watermarks: tuple[str, ...]
    checkpoints: tuple[Checkpoint, ...]
    schema_state: SchemaState


class Side:
    """A database, and one connection for whatever a test has to do there: making one takes longer than most of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection = database.connect()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def execute(self, statements: str) -> None:
        self._connection.execute(statements.encode())

    def fetch(self, query: str | sql.Composed, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one query."""
        statement = query if isinstance(query, sql.Composed) else query.encode()
        return self._connection.execute(statement, params or None).fetchall()

    def value(self, query: str, params: Sequence[Any] = ()) -> Any:
        """The one column of the one row of a query."""
        [[found]] = self.fetch(query, params)
        return found


@dataclass
class Trial:
    """The stream `events`, from the schema `name` of one database to the schema `name` of another."""

    folder: Path
    source: Side
    destination: Side
    name: str
    write_mode: str
    shards: int = 1
    stream: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the stream's, and other values of them."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More sections of the pipeline."""
    destination_config: Mapping[str, Any] = field(default_factory=dict)
    pipeline_name: str = "shop"
    before_run: Callable[[], object] | None = None
    """Called when everything is ready for a run."""
    lines: list[tuple[int, str]] = field(default_factory=list)
    """What the last run logged."""
    reports: list[tuple[SchemaChange, ...]] = field(default_factory=list)
    """What its destination told of the table's columns, each time."""

    @property
    def table(self) -> str:
        """At either side, as SQL."""
        return f'"{self.name}"."{STREAM}"'

    def pipeline(self, policy: Mapping[str, str] | None = None) -> Pipeline:
        stream = {"name": STREAM, "shards": self.shards, **self.stream}
        if stream.get("sync_mode") == "incremental":
            del stream["shards"]
        section: dict[str, Any] = {} if policy is None else {"schema_evolution": dict(policy)}
        return make_pipeline(
            self.folder,
            {**self.source.database.config, "schema": self.name},
            {**self.destination.database.config, "schema": self.name, **self.destination_config},
            [stream],
            name=self.pipeline_name,
            write_mode=self.write_mode,
            destination_section=section,
            **{"resources": {"parallelism": 2, "max_retries": 0}, **self.options},
        )

    def run(self, policy: Mapping[str, str] | None = None) -> StreamResult:
        """One run under `policy`; without one, under the defaults."""
        self.lines, self.reports = [], []
        pipeline = self.pipeline(policy)
        with open_state(pipeline, {}) as state:
            if self.before_run is not None:
                self.before_run()
            return run_stream(
                pipeline,
                pipeline.streams[0],
                state=state,
                run_id=str(uuid.uuid4()),
                environ={},
                on_log=lambda level, line: self.lines.append((level, line)),
                on_drift=self.reports.append,
            )

    def fails(self, policy: Mapping[str, str] | None = None) -> RapidbyteError:
        """The error of a run that has to fail, and to leave no trace of itself."""
        before = self.traces()
        try:
            self.run(policy)
        except RapidbyteError as error:
            assert self.traces() == before
            return error
        raise AssertionError("the run did not fail")

    def heard(self, text: str) -> bool:
        return any(text in line for _, line in self.lines)

    def at_source(self, statements: str) -> None:
        """Runs SQL at the source, in which `{table}` and `{schema}` stand for the trial's."""
        self.source.execute(self._named(statements))

    def at_destination(self, statements: str) -> None:
        self.destination.execute(self._named(statements))

    def _named(self, statements: str) -> str:
        return statements.replace("{table}", self.table).replace("{schema}", f'"{self.name}"')

    def catalog(self) -> Catalog:
        return catalog(self.destination, self.table)

    def content(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """`names` of every row of the destination's table as their types print them, in some order of its own."""
        printed = sql.SQL(", ").join(
            sql.SQL("CASE WHEN {0} IS NOT NULL THEN format('%s', {0}) END").format(sql.Identifier(name))
            for name in names
        )
        query = sql.SQL("SELECT {} FROM {}").format(printed, sql.Identifier(self.name, STREAM))
        return sorted(self.destination.fetch(query), key=repr)

    def words(self) -> list[tuple[str | None, ...]]:
        """The whole of it, with the first word of `v`."""
        names = self.catalog().names
        rows = [dict(zip(names, row, strict=True)) for row in self.content(names)]
        return sorted((tuple(_first_word(row)[name] for name in names) for row in rows), key=repr)

    def schema_state(self) -> SchemaState:
        with open_state(self.pipeline(), {}) as state:
            return state.schema_state(self.pipeline_name, STREAM)

    def traces(self) -> Traces:
        [(file,)] = self.destination.fetch("SELECT pg_relation_filepath(%s::regclass)", [self.table])
        [rows, tables, watermarks] = [
            self.destination.fetch(self._named(query))
            for query in (
                "SELECT ctid::text, xmin::text, t::text FROM {table} t ORDER BY 1",
                "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
                " AND relkind IN ('r', 'p') ORDER BY 1",
                "SELECT w::text FROM {schema}._rapidbyte_watermarks w ORDER BY 1",
            )
        ]
        with open_state(self.pipeline(), {}) as state:
            return Traces(
                self.catalog(),
                file,
                tuple(rows),
                tuple(name for [name] in tables),
                tuple(text for [text] in watermarks),
                tuple(state.checkpoints(self.pipeline_name, STREAM)),
                state.schema_state(self.pipeline_name, STREAM),
            )


def _first_word(row: Mapping[str, str | None]) -> dict[str, str | None]:
    return {**row, "v": (row["v"] or "").split(" ")[0]}
