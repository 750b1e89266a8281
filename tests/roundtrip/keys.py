"""Source tables whose keys are a type's values."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from tests.postgres_server import Database
from tests.roundtrip.builtin_types import Case
from tests.roundtrip.tables import identifier, literal


def create_keyed(database: Database, table: str, case: Case, *, array: bool = False) -> int:
    """A table with a row for each different value of the case as primary key `k`, apart from those too long for one.

    `array`: the keys are arrays, of each value, of two, of none and of NULL. Returns the number of rows.
    """
    name = identifier(table)
    values = [f"{literal(text)}::{case.type}" for text in case.literals]
    if array:
        values = [f"ARRAY[{value}]" for value in values] + [
            f"ARRAY[{values[0]}, NULL, {values[-1]}]",
            f"ARRAY[[{values[0]}], [{values[-1]}]]",
            f"'[0:1]={{NULL,NULL}}'::{case.type}[]",
            f"ARRAY[]::{case.type}[]",
        ]
    # As the superuser, who may name any role and object.
    with database.connect(superuser=True) as connection:
        column = f"k {case.type}{'[]' if array else ''}\nPRIMARY KEY"
        connection.execute(f"CREATE TABLE {name} (v text, {column}, n integer NOT NULL)".encode())
        rows = 0
        for number, value in enumerate(values):
            try:
                done = connection.execute(
                    f"INSERT INTO {name} (k, n, v) VALUES ({value}, {number}, 'value {number}')"
                    " ON CONFLICT DO NOTHING".encode()
                )
            except psycopg.errors.ProgramLimitExceeded:
                # Too long for an index.
                continue
            rows += done.rowcount
        connection.execute(f"ALTER TABLE {name} OWNER TO etl".encode())
    return rows


KEY_COLUMNS_MAX = 32
LONGEST_OF_MANY = 60
"""Characters of a literal: a key of many columns has to fit into a third of a page."""


def create_composite(database: Database, table: str, cases: Sequence[Case]) -> tuple[str, ...]:
    """A table whose primary key are all the cases' types, as many as an index can have. Returns the key's columns.

    The row of a number has that value of each case, the shorter ones beginning again.
    """
    chosen = cases[:KEY_COLUMNS_MAX]
    literals = [[text for text in case.literals if len(text) <= LONGEST_OF_MANY] for case in chosen]
    names = [f"{case.type} {number}"[:60] for number, case in enumerate(chosen)]
    rows = [
        f"({number}, {', '.join(literal(texts[number % len(texts)]) for texts in literals)})"
        for number in range(max(map(len, literals)))
    ]
    columns = ", ".join(f"{identifier(name)} {case.type}\n" for name, case in zip(names, chosen, strict=True))
    key = tuple(reversed(names))
    database.execute(
        f"CREATE TABLE {identifier(table)} (n integer, {columns}, PRIMARY KEY ({', '.join(map(identifier, key))}));"
        f"ALTER TABLE {identifier(table)} OWNER TO etl; INSERT INTO {identifier(table)} VALUES {', '.join(rows)}",
        superuser=True,
    )
    return key
