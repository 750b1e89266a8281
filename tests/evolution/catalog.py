"""A table as the server's catalog has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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


class Queries(Protocol):
    def fetch(self, query: str, params: Sequence[Any], /) -> list[tuple[Any, ...]]: ...


def catalog(database: Queries, table: str) -> Catalog:
    """`table` is SQL: qualified and quoted."""
    return Catalog(
        tuple(CatalogColumn(*row) for row in database.fetch(COLUMNS, [table])),
        tuple(text for [text] in database.fetch(INDEXES, [table])),
        tuple(text for [text] in database.fetch(CONSTRAINTS, [table])),
    )


COLUMNS = """
    SELECT attname::text, format_type(atttypid, atttypmod), attnotnull,
           concat_ws(' ', pg_get_expr(adbin, adrelid), nullif(attidentity, ''), nullif(attgenerated, ''))
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
INDEXES = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass ORDER BY 1"
# NOT NULL is a constraint too since PostgreSQL 18; it is with the columns already.
CONSTRAINTS = """
    SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = %s::regclass AND contype <> 'n' ORDER BY 1
"""
