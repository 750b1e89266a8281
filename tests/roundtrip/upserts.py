"""Upserts: into no table, and into one that fell behind its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psycopg import sql

from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import unique_name
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.movement import LANDING, Pair

OLD_XMIN = sql.Identifier("xmin before the run")


def assert_upserts(
    folder: Path,
    pair: Pair,
    table: str,
    *,
    schema: str = "public",
    columns: Sequence[str] | None = None,
    resources: Mapping[str, Any] | None = None,
    stream: Mapping[str, Any] | None = None,
) -> StreamResult:
    """Upserts the table into no table, and again after half of the rows that arrived were changed and some deleted.

    After each run the destination's table must have the source's columns, key and content, and the second one must have
    written those rows alone that differed. The table has a primary key. Returns the first result.
    """
    target = Table(pair.destination, LANDING, f"{table} by upsert"[:63])
    chosen = {} if columns is None else {"columns": list(columns)}
    pipeline = make_pipeline(
        folder,
        pair.source,
        pair.destination,
        [{"name": table, "schema": schema, "table": target.name, **chosen, **(stream or {})}],
        name="by_upsert",
        write_mode="upsert",
        **({"resources": dict(resources)} if resources else {}),
    )
    source = Table(pair.source, schema, table)
    pair.destination.execute(f"DROP TABLE IF EXISTS {target.quoted}", superuser=True)
    with open_state(pipeline, {}) as state:
        first = run(pipeline, state=state)
        assert_same(source, target, columns)
        fall_behind(target)
        copy = remember(target)
        run(pipeline, state=state)
        assert_same(source, target, columns)
        assert rewritten_otherwise(target, copy) == []
    return first


def assert_single_changes_are_seen(folder: Path, pair: Pair, table: str) -> None:
    """Of each row there is one copy for each column, which differs at the destination in that column alone.

    The table is one of `Sheet.create`; what the column holds there is the value of the next row.
    """
    original = Table(pair.source, "public", table)
    source = Table(pair.source, "public", unique_name("single"))
    target = Table(pair.destination, LANDING, source.name)
    with original.connect() as connection:
        names = [column.name for column in original.columns(connection) if column.name != "n"]
        chosen = sql.SQL(", ").join(map(sql.Identifier, names))
        [[rows]] = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(original.identifier)).fetchall()
        connection.execute(
            sql.SQL(
                "CREATE TABLE {0} (LIKE {1} INCLUDING INDEXES); ALTER TABLE {0} OWNER TO etl;"
                " INSERT INTO {0} (n, {2}) SELECT n + {3} * i, {2} FROM {1}, generate_series(0, {4}) AS i"
            ).format(source.identifier, original.identifier, chosen, sql.Literal(rows), sql.Literal(len(names)))
        )
    pipeline = make_pipeline(
        folder, pair.source, pair.destination, [source.name], name=unique_name("single"), write_mode="upsert"
    )
    with open_state(pipeline, {}) as state:
        run(pipeline, state=state)
        with target.connect() as connection:
            for number, name in enumerate(names):
                connection.execute(
                    sql.SQL(
                        "UPDATE {0} AS changed SET {1} = following.{1} FROM {0} AS following"
                        " WHERE changed.n / {2} = {3} AND following.n = {2} * {4} + (changed.n + 1) % {2}"
                    ).format(
                        target.identifier,
                        sql.Identifier(name),
                        sql.Literal(rows),
                        sql.Literal(number),
                        sql.Literal(len(names)),
                    )
                )
        copy = remember(target)
        run(pipeline, state=state)
        assert_same(source, target)
        assert rewritten_otherwise(target, copy) == []


def fall_behind(table: Table) -> None:
    """Every second row takes what its neighbour has, except for the key, and of five rows one is deleted."""
    with table.connect() as connection:
        key = table.primary_key(connection)
        others = [column.name for column in table.columns(connection) if column.name not in key]
        numbered = sql.SQL(
            "WITH numbered AS (SELECT ctid AS place, row_number() OVER (ORDER BY {}) AS position,"
            " count(*) OVER () AS total FROM {}) "
        ).format(sql.SQL(", ").join(map(sql.Identifier, key)), table.identifier)
        if others:
            assignments = sql.SQL(", ").join(
                sql.SQL("{0} = neighbour.{0}").format(sql.Identifier(name)) for name in others
            )
            connection.execute(
                sql.SQL(
                    "{}UPDATE {} AS changed SET {} FROM numbered AS here, numbered AS there, {} AS neighbour"
                    " WHERE changed.ctid = here.place AND neighbour.ctid = there.place"
                    " AND here.position % 2 = 0 AND there.position = here.position % here.total + 1"
                ).format(numbered, table.identifier, assignments, table.identifier)
            )
        connection.execute(
            sql.SQL("{}DELETE FROM {} USING numbered WHERE ctid = place AND position % 5 = 3").format(
                numbered, table.identifier
            )
        )


def remember(table: Table) -> Table:
    """A copy of the table with the number of the transaction that wrote each row."""
    copy = Table(table.database, table.schema, f"old {table.name}"[:63])
    with table.connect() as connection:
        connection.execute(
            sql.SQL("DROP TABLE IF EXISTS {0}; CREATE TABLE {0} AS SELECT *, xmin::text AS {1} FROM {2}").format(
                copy.identifier, OLD_XMIN, table.identifier
            )
        )
    return copy


def rewritten_otherwise(table: Table, before: Table) -> list[str]:
    """The keys of rows that were written though they had not changed, or the other way round.

    Changed means: not the same bytes. Equal keys have to be the same bytes too.
    """
    with table.connect() as connection:
        key = table.primary_key(connection)
        names = [column.name for column in table.columns(connection)]

        def row(alias: str, columns: Sequence[str]) -> sql.Composable:
            fields = (sql.Identifier(alias, name) for name in columns)
            return sql.SQL("ROW({})").format(sql.SQL(", ").join(fields))

        rows = connection.execute(
            sql.SQL(
                "SELECT {key}::text FROM {old} AS old JOIN {new} AS new ON {same_key}"
                " WHERE ({old_row}::record OPERATOR(pg_catalog.*=) {new_row}::record)"
                " <> (old.{xmin} = new.xmin::text)"
            ).format(
                key=row("new", key),
                old=before.identifier,
                new=table.identifier,
                same_key=sql.SQL(" AND ").join(
                    sql.SQL("old.{0} = new.{0}").format(sql.Identifier(name)) for name in key
                ),
                old_row=row("old", names),
                new_row=row("new", names),
                xmin=OLD_XMIN,
            )
        ).fetchall()
        return [text for [text] in rows]
