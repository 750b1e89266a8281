"""PostgreSQL says whether two tables hold the same: by what it stores, not by what a client makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.postgres_server import Database

SETTINGS = """
    SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC';
    SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET search_path = pg_catalog;
    SET quote_all_identifiers = off;
"""

# Sent as stored: built-in types (and arrays of them) that have a send function. In the binary form of others are object
# ids, which differ between databases.
COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           t.typnamespace = 'pg_catalog'::regnamespace AND t.typsend <> 0 AND coalesce(e.typsend, 1) <> 0
           AND t.typname NOT LIKE '%%reg%%'
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_type e ON e.typarray = t.oid
    WHERE a.attrelid = format('%%I.%%I', %s::text, %s::text)::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""
PRIMARY_KEY = """
    SELECT a.attname
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = format('%%I.%%I', %s::text, %s::text)::regclass
      AND i.indisprimary AND k.position <= i.indnkeyatts
    ORDER BY k.position
"""


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    not_null: bool
    has_portable_binary: bool

    def expression(self) -> sql.Composable:
        """What is compared: the binary form, or else the output function's text."""
        name = sql.Identifier(self.name)
        if self.has_portable_binary:
            return name
        # Unlike a cast, format() always calls the output function. A row of NULLs is distinct from NULL.
        return sql.SQL("CASE WHEN {0} IS DISTINCT FROM NULL THEN format('%s', {0}) END").format(name)


@dataclass(frozen=True)
class Table:
    database: Database
    schema: str
    name: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def quoted(self) -> str:
        return self.identifier.as_string(None)

    def connect(self) -> psycopg.Connection[Any]:
        connection = self.database.connect(superuser=True)
        connection.execute(SETTINGS)
        return connection

    def columns(self, connection: psycopg.Connection[Any]) -> list[Column]:
        return [Column(*row) for row in connection.execute(COLUMNS, [self.schema, self.name]).fetchall()]

    def primary_key(self, connection: psycopg.Connection[Any]) -> list[str]:
        return [name for [name] in connection.execute(PRIMARY_KEY, [self.schema, self.name]).fetchall()]

    def select(self, columns: Sequence[Column], key: Sequence[str]) -> sql.Composable:
        """The rows in the order of the key, or without one in that of their content."""
        expressions = sql.SQL(", ").join(column.expression() for column in columns)
        order: sql.Composable = sql.SQL(", ").join(sql.Identifier(name) for name in key)
        if not key:
            order = sql.SQL('ROW({})::text COLLATE "C"').format(expressions)
        return sql.SQL("SELECT {} FROM {} ORDER BY {}").format(expressions, self.identifier, order)

    def content(self, connection: psycopg.Connection[Any], query: sql.Composable) -> bytes:
        with connection.cursor().copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)) as copy:
            return b"".join(copy)


def assert_same(source: Table, destination: Table, names: Sequence[str] | None = None, *, keyed: bool = True) -> None:
    """Columns (`names` of the source's, when given), nullability, primary key and rows are those of the source.

    One that is not `keyed` must have no key, whatever its source has: rows are appended to it.
    """
    with source.connect() as there, destination.connect() as here:
        columns = source.columns(there)
        if names is not None:
            columns = [column for name in names for column in columns if column.name == name]
        arrived = destination.columns(here)
        described = [(column.name, column.type, column.not_null) for column in columns]
        assert [(column.name, column.type, column.not_null) for column in arrived] == described
        key = source.primary_key(there)
        if not {column.name for column in columns}.issuperset(key):
            key = []
        assert destination.primary_key(here) == (key if keyed else [])
        if source.content(there, source.select(columns, key)) == destination.content(
            here, destination.select(columns, key)
        ):
            return
        raise AssertionError(difference(source, destination, columns, key, there, here))


def difference(
    source: Table,
    destination: Table,
    columns: Sequence[Column],
    key: Sequence[str],
    there: psycopg.Connection[Any],
    here: psycopg.Connection[Any],
) -> str:
    """The first row of each column that differs."""
    told = []
    key_columns = [column for column in columns if column.name in key]
    for column in columns:
        chosen = [*key_columns, column]
        text = "SELECT ARRAY[{}]::text[] FROM ({}) AS rows({})"
        names = sql.SQL(", ").join(sql.Identifier(f"c{i}") for i in range(len(chosen)))
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(f"c{i}")) for i in range(len(chosen)))
        rows = [
            connection.execute(sql.SQL(text).format(texts, table.select(chosen, key), names)).fetchall()
            for table, connection in ((source, there), (destination, here))
        ]
        for [before], [after] in zip(*rows, strict=False):
            if before != after:
                told.append(f"{column.name} ({column.type}): {str(before)[:300]} became {str(after)[:300]}")
                break
        else:
            if len(rows[0]) != len(rows[1]):
                return f"{len(rows[0])} rows became {len(rows[1])}"
    return "\n".join(told) or "the same text, stored differently"
