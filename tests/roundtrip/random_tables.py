"""Tables of random columns and values. The same seed gives the same table."""

from __future__ import annotations

import json
import random
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.postgres_server import Database

TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'NULL', '');
    CREATE DOMAIN word AS varchar(20);
    CREATE TYPE pair AS (n bigint, t text, xs float8[]);
"""
"""Both databases need these."""

VALUES_OF_A_COLUMN = 40
NULL_SHARES = (0.0, 0.0, 0.1, 0.5, 0.999, 1.0)
ALPHABET = "abcXYZ 019_%'\"\\{}(),:/\t\n\räß€世🌍\u0301"
JULIAN_DAY_OF_LAST_DATE = 2147483493
JULIAN_DAY_OF_LAST_TIMESTAMP = 109203527
LAST_MICROSECOND = 86_399_999_999

Literal = Callable[[], str]


@dataclass(frozen=True)
class RandomColumn:
    name: str
    type: str
    literals: Sequence[str]
    null_share: float


class Generator:
    """Random types and literals of them."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def columns(self, count: int, *, narrow: bool) -> list[RandomColumn]:
        return [self.column(number, narrow=narrow) for number in range(count)]

    def column(self, number: int, *, narrow: bool) -> RandomColumn:
        """A narrow one has values of 8 bytes at most, so that the number of rows ends its batches."""
        chosen = self.random
        kinds = self.narrow_kinds() if narrow else self.kinds()
        type_name, literal = chosen.choice(kinds)
        if not narrow and chosen.random() < 0.3:
            literal = self.array_of(literal, deep=chosen.random() < 0.3)
            type_name += "[]"
        count = chosen.randint(1, VALUES_OF_A_COLUMN)
        return RandomColumn(
            name=f"{number} {self.text(12)}".replace("\0", ""),
            type=type_name,
            literals=[literal() for _ in range(count)],
            null_share=chosen.choice(NULL_SHARES),
        )

    def narrow_kinds(self) -> list[tuple[str, Literal]]:
        return [
            ("boolean", lambda: self.random.choice(["t", "f"])),
            ("smallint", lambda: str(self.integer(16))),
            ("integer", lambda: str(self.integer(32))),
            ("bigint", lambda: str(self.integer(64))),
            ("real", lambda: self.real(">f", 32)),
            ("double precision", lambda: self.real(">d", 64)),
            ("date", self.date),
            ("timestamp", self.timestamp),
            ("timestamptz", lambda: f"{self.timestamp()}"),
            ("time", self.time),
            ("character varying(1)", lambda: self.text(1)),
        ]

    def kinds(self) -> list[tuple[str, Literal]]:
        chosen = self.random
        precision = chosen.choice([chosen.randint(1, 38), chosen.randint(39, 76), chosen.randint(77, 200)])
        scale = chosen.randint(0, precision)
        length = chosen.randint(1, 30)
        seconds = chosen.randint(0, 6)
        return [
            *self.narrow_kinds(),
            (f"numeric({precision},{scale})", lambda: self.numeric(precision, scale)),
            (f"numeric({precision},{scale})", lambda: self.numeric(precision, scale)),
            ("numeric", lambda: self.numeric(chosen.randint(1, 300), chosen.randint(0, 200))),
            ("text", lambda: self.text(chosen.choices([3, 30, 300, 30000], [9, 9, 9, 1])[0])),
            (f"varchar({length})", lambda: self.text(length)),
            (f"character({length})", lambda: self.text(length)),
            ("bytea", lambda: "\\x" + chosen.randbytes(chosen.randint(0, 300)).hex()),
            (f"time({seconds})", self.time),
            (f"timetz({seconds})", lambda: f"{self.time()}{chosen.randint(-15, 15):+03d}:{chosen.randint(0, 59):02d}"),
            ("interval", self.interval),
            ("uuid", lambda: str(uuid.UUID(bytes=chosen.randbytes(16)))),
            ("json", lambda: json.dumps(self.document(3), ensure_ascii=chosen.random() < 0.5)),
            ("jsonb", lambda: json.dumps(self.document(3))),
            ("inet", lambda: f"{'.'.join(str(chosen.randint(0, 255)) for _ in range(4))}/{chosen.randint(0, 32)}"),
            ("macaddr8", lambda: chosen.randbytes(8).hex()),
            (f"bit({length})", lambda: "".join(chosen.choices("01", k=length))),
            ("varbit", lambda: "".join(chosen.choices("01", k=chosen.randint(0, 99)))),
            ("money", lambda: str(self.integer(56))),
            ("point", lambda: f"({self.real('>d', 64)},{self.real('>d', 64)})"),
            ("int8range", self.int8range),
            ("nummultirange", lambda: f"{{[{chosen.randint(0, 9)}.50,{chosen.randint(10, 99)}]}}"),
            ("tsvector", lambda: " ".join(f"{w}:{chosen.randint(1, 99)}A" for w in chosen.choices("abc", k=5))),
            ("xid8", lambda: str(chosen.getrandbits(64))),
            ("mood", lambda: chosen.choice(["sad", 'it\'s "ok"', "NULL", ""])),
            ("word", lambda: self.text(20)),
            (
                "pair",
                lambda: (
                    f"({self.integer(64)},{quoted(self.text(9))},{quoted(self.array_of(self.float8, deep=True)())})"
                ),
            ),
        ]

    def integer(self, bits: int) -> int:
        """Of all magnitudes."""
        chosen = self.random
        magnitude = chosen.getrandbits(chosen.randint(0, bits - 1))
        return -magnitude - 1 if chosen.random() < 0.5 else magnitude

    def float8(self) -> str:
        return self.real(">d", 64)

    def real(self, layout: str, bits: int) -> str:
        raw = self.random.getrandbits(bits).to_bytes(bits // 8, "big")
        [value] = struct.unpack(layout, raw) if self.random.random() < 0.9 else [self.random.randint(-9, 9) / 10]
        return repr(value)

    def numeric(self, precision: int, scale: int) -> str:
        chosen = self.random
        if chosen.random() < 0.05:
            return "NaN"
        digits = "".join(chosen.choices("0123456789", [9, 1, 1, 1, 1, 1, 1, 1, 1, 5], k=chosen.randint(1, precision)))
        digits = digits.rjust(scale + 1, "0")
        sign = chosen.choice(["", "-"])
        return f"{sign}{digits[: len(digits) - scale]}.{digits[len(digits) - scale :]}"

    def text(self, longest: int) -> str:
        return "".join(self.random.choices(ALPHABET, k=self.random.randint(0, longest)))

    def date(self) -> str:
        day = self.random.choice([JULIAN_DAY_OF_LAST_DATE, 3_000_000])
        return self.random.choice(["infinity", "-infinity", *[f"J{self.random.randint(0, day)}"] * 9])

    def timestamp(self) -> str:
        day = self.random.randint(0, self.random.choice([JULIAN_DAY_OF_LAST_TIMESTAMP, 3_000_000]))
        return self.random.choice(["infinity", "-infinity", *[f"J{day} {self.time()}"] * 9])

    def time(self) -> str:
        micros = self.random.randint(0, LAST_MICROSECOND)
        seconds = micros // 1_000_000
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{micros % 1_000_000:06d}"

    def interval(self) -> str:
        hours = self.random.randint(-2_500_000, 2_500_000)
        return f"{self.integer(32)} months {self.integer(32)} days {hours} hours {self.integer(40)} microseconds"

    def int8range(self) -> str:
        low, high = sorted((self.integer(63), self.integer(63)))
        return self.random.choice(["empty", f"[{low},{high}]", f"(,{high}]", f"({low},)"])

    def document(self, depth: int) -> object:
        kind = self.random.randint(0, 5 if depth else 3)
        if kind == 4:
            return [self.document(depth - 1) for _ in range(self.random.randint(0, 4))]
        if kind == 5:
            return {self.text(5): self.document(depth - 1) for _ in range(self.random.randint(0, 4))}
        return [None, self.random.random() < 0.5, self.integer(60) / 8, self.text(20)][kind]

    def array_of(self, literal: Literal, *, deep: bool) -> Literal:
        def element() -> str:
            return "NULL" if self.random.random() < 0.2 else quoted(literal())

        def array() -> str:
            if not deep:
                return f"{{{','.join(element() for _ in range(self.random.randint(0, 9)))}}}"
            rows, width = self.random.randint(1, 3), self.random.randint(1, 3)
            low = self.random.randint(-5, 5)
            body = ",".join(f"{{{','.join(element() for _ in range(width))}}}" for _ in range(rows))
            return f"[{low}:{low + rows - 1}][1:{width}]={{{body}}}"

        return array


def quoted(text: str) -> str:
    """As a field of an array or a row."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def define(columns: Sequence[RandomColumn]) -> sql.Composable:
    """Their definitions in a CREATE TABLE."""
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type)) for column in columns
    )


def create_pool(connection: psycopg.Connection[Any], columns: Sequence[RandomColumn]) -> None:
    """A temporary table with the columns' values, from which `random_fields` picks."""
    connection.execute(sql.SQL("CREATE TEMP TABLE pool (n integer, {})").format(define(columns)))
    with connection.cursor().copy("COPY pool FROM STDIN") as copy:
        for row in range(VALUES_OF_A_COLUMN):
            copy.write_row([row, *(c.literals[row] if row < len(c.literals) else None for c in columns)])


def random_fields(columns: Sequence[RandomColumn], *, salt: int = 0) -> tuple[sql.Composable, sql.Composable]:
    """For a SELECT from rows of a number `i`: each field a value of its column's literals, or NULL; and the joins.

    The same number and `salt` give the same fields.
    """
    picked, joins = [], []
    for position, column in enumerate(columns):
        alias = sql.Identifier(f"p{position}")
        picked.append(sql.SQL("{}.{}").format(alias, sql.Identifier(column.name)))
        joins.append(
            sql.SQL(
                "LEFT JOIN pool AS {alias} ON {alias}.n = CASE"
                " WHEN abs(hashint8extended(i, {salt}) % 1000) >= {nulls}"
                " THEN abs(hashint8extended(i, {salt} + 1) % {count}) END"
            ).format(
                alias=alias,
                salt=sql.Literal(salt + 2 * position),
                nulls=sql.Literal(int(column.null_share * 1000)),
                count=sql.Literal(len(column.literals)),
            )
        )
    return sql.SQL(", ").join(picked), sql.SQL(" ").join(joins)


def create(database: Database, table: str, columns: Sequence[RandomColumn], rows: int, *, key: bool) -> None:
    """A table of `rows` rows, numbered in column `n`, of random fields."""
    name = sql.Identifier(table)
    number = sql.SQL("n integer PRIMARY KEY, " if key else "n integer, ")
    picked, joins = random_fields(columns)
    with database.connect() as connection:
        create_pool(connection, columns)
        connection.execute(sql.SQL("CREATE TABLE {} ({}{})").format(name, number, define(columns)))
        connection.execute(
            sql.SQL("INSERT INTO {} SELECT i, {} FROM generate_series(1, {}) AS i {}").format(
                name, picked, sql.Literal(rows), joins
            )
        )
