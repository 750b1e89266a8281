"""Source tables made of cases: a column per type, a row per value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.postgres_server import Database
from tests.roundtrip.builtin_types import Case


def literal(text: str | None) -> str:
    """As SQL, still without a type: the column's input function reads it."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass
class Sheet:
    """Columns with their values as SQL expressions; shorter columns begin again, with NULLs in between."""

    names: list[str] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)
    values: list[Sequence[str]] = field(default_factory=list)
    nullable: list[bool] = field(default_factory=list)

    def add(self, name: str, type_name: str, values: Sequence[str], *, nullable: bool = True) -> None:
        self.names.append(name)
        # On a line of its own, for names of types that end in a comment.
        self.definitions.append(f"{identifier(name)} {type_name}\n{'' if nullable else 'NOT NULL'}")
        self.values.append(values)
        self.nullable.append(nullable)

    def cell(self, column: int, row: int) -> str:
        values = self.values[column]
        if row < len(values):
            return values[row]
        if self.nullable[column] and (row == self.rows - 1 or (row + column) % 3 == 0):
            return "NULL"
        return values[row % len(values)]

    @property
    def rows(self) -> int:
        """One more than the longest column, for NULL in all that may be."""
        return max(map(len, self.values)) + 1

    def create(self, database: Database, table: str) -> None:
        """As the superuser, who may name any role and object; the role of pipelines owns the table."""
        quoted = identifier(table)
        key = f"n integer PRIMARY KEY, {', '.join(self.definitions)}"
        rows = [
            f"({row}, {', '.join(self.cell(column, row) for column in range(len(self.names)))})"
            for row in range(self.rows)
        ]
        database.execute(
            f"CREATE TABLE {quoted} ({key}); ALTER TABLE {quoted} OWNER TO etl;"
            f"INSERT INTO {quoted} VALUES {', '.join(rows)}",
            superuser=True,
        )


def scalars(cases: Sequence[Case]) -> Sheet:
    """A nullable column for each case, and one NOT NULL for every second."""
    sheet = Sheet()
    for number, case in enumerate(cases):
        values = [literal(text) for text in case.literals]
        sheet.add(f"v{number} {case.type}"[:60], case.type, values)
        if number % 2 == 0:
            sheet.add(f"f{number} {case.type}"[:60], case.type, values, nullable=False)
    return sheet


def flat_arrays(cases: Sequence[Case]) -> Sheet:
    """Arrays that a list can be: of everything, with NULLs, empty, of NULL alone."""
    sheet = Sheet()
    for number, case in enumerate(cases):
        values = [literal(text) for text in case.literals]
        bodies = [values, [values[0]], [*values, "NULL", *values, "NULL"], [], ["NULL"]]
        sheet.add(
            f"a{number} {case.type}"[:60],
            f"{case.type}[]",
            [f"ARRAY[{', '.join(body)}]::{case.type}[]" for body in bodies],
            nullable=number % 2 == 0,
        )
    return sheet


def deep_arrays(cases: Sequence[Case]) -> Sheet:
    """Arrays that no list can be: of two and six dimensions, with other lower bounds."""
    sheet = Sheet()
    for number, case in enumerate(cases):
        values = [literal(text) for text in case.literals]
        first, last, array = values[0], values[-1], f"{case.type}[]"
        rows = [values, list(reversed(values)), ["NULL"] * len(values)]
        flat = f"(ARRAY[{first}, NULL, {last}]::{array})::text"
        deep = f"(ARRAY[[{last}, NULL], [{first}, {last}]]::{array})::text"
        sheet.add(
            f"d{number} {case.type}"[:60],
            array,
            [
                f"ARRAY[{first}, {last}]::{array}",
                f"ARRAY[{', '.join(f'[{chr(44).join(row)}]' for row in rows)}]::{array}",
                f"ARRAY[[[[[[{first}, NULL]]], [[[{last}, {first}]]]]]]::{array}",
                f"('[0:2]=' || {flat})::{array}",
                f"('[-2147483648:-2147483646]=' || {flat})::{array}",
                f"('[2:3][-1:0]=' || {deep})::{array}",
                f"ARRAY[]::{array}",
            ],
        )
    return sheet


SHEETS = {"scalars": scalars, "flat arrays": flat_arrays, "deep arrays": deep_arrays}
