"""A table as the server's catalog has it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.postgres_server import Database


@dataclass(frozen=True)
class CatalogColumn:
    name: str
    type: str
    not_null: bool
    more: str = ""
    """Default, identity and generation, where there are any."""


@dataclass(frozen=True)
class Catalog:
    columns: tuple[CatalogColumn, ...]
    """In the table's order."""
    indexes: tuple[str, ...]
    constraints: tuple[str, ...]

    def column(self, name: str) -> CatalogColumn:
        [found] = [column for column in self.columns if column.name == name]
        return found

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def catalog(database: Database, table: str) -> Catalog:
    """`table` is SQL: qualified and quoted."""
    with database.connect() as connection:
        columns = connection.execute(
            """SELECT attname::text, format_type(atttypid, atttypmod), attnotnull,
                      concat_ws(' ', pg_get_expr(adbin, adrelid), nullif(attidentity, ''), nullif(attgenerated, ''))
               FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
               WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
            [table],
        ).fetchall()
        indexes = connection.execute(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass ORDER BY 1", [table]
        ).fetchall()
        # NOT NULL is a constraint too since PostgreSQL 18; it is with the columns already.
        constraints = connection.execute(
            """SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
               WHERE conrelid = %s::regclass AND contype <> 'n' ORDER BY 1""",
            [table],
        ).fetchall()
    return Catalog(
        tuple(CatalogColumn(*row) for row in columns),
        tuple(text for [text] in indexes),
        tuple(text for [text] in constraints),
    )
