"""What happens to a source table between two runs, and what each column of it then is at the destination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from rapidbyte_dagster.state import ChangeKind
from tests.evolution.effects import POLICY_VALUES, Difference

Three = tuple[str | None, str | None, str | None]
"""Values of three rows, as the text that PostgreSQL prints and reads."""


@dataclass(frozen=True)
class Column:
    """One column of the source, before and after.

    Its rows are 1, 2 and 3 in the first run; then row 1 is deleted, row 3 is changed, and row 4 is new.
    """

    name: str
    difference: Difference
    before: str | None
    """Its definition; None while it is not there."""
    after: str | None
    old: Three = (None, None, None)
    """Of the rows 1, 2 and 3 in the first run."""
    new: Three = (None, None, None)
    """Of the rows 2, 3 and 4 in the second."""
    cast: Three | None = None
    """What the type that the table has makes of `new`, None where nothing; without it, the same."""
    widened: Three | None = None
    """What the type after makes of `old`; without it, the same."""
    destination: str = ""
    """SQL on the destination's `{table}` between the runs."""

    @property
    def type_before(self) -> str:
        return _type_of(self.before or "")

    @property
    def type_after(self) -> str:
        return _type_of(self.after or "")

    @property
    def fitted(self) -> Three:
        return self.new if self.cast is None else self.cast

    @property
    def fits(self) -> bool:
        return [value is None for value in self.fitted] == [value is None for value in self.new]


def _type_of(definition: str) -> str:
    return definition.removesuffix(" NOT NULL")


@dataclass(frozen=True)
class Scenario:
    name: str
    columns: tuple[Column, ...]
    setup: str = ""
    """SQL on the source before anything else: what its columns need."""
    said: tuple[str, ...] = ()
    """What the messages of the changes say beside what they all do."""

    @property
    def kinds(self) -> tuple[ChangeKind, ...]:
        """The axes that decide about it, in the order of the pipeline file."""
        there = {column.difference.kind for column in self.columns}
        return tuple(kind for kind in POLICY_VALUES if kind in there)


Policy = Mapping[str, str]


def policies(scenario: Scenario) -> Iterator[Policy]:
    """Every combination of the values of the axes that decide about it."""
    for values in product(*(POLICY_VALUES[kind] for kind in scenario.kinds)):
        yield dict(zip(map(str, scenario.kinds), values, strict=True))


def of_one(column: Column, name: str | None = None) -> Scenario:
    return Scenario(name or f"{column.difference.words}: {column.before} → {column.after}", (column,))


# New and removed columns.

NEW = Column("c", Difference.NEW, None, "numeric(10,2)", new=("1.50", None, "2.00"))
NEW_NOT_NULL = Column("c", Difference.NEW_NOT_NULL, None, "text NOT NULL", new=("", "a", "ü"))
NEW_ENUM = Column("c", Difference.NEW_ENUM, None, "{schema}.mood", new=("ok", None, "sad"))
NEW_UNKNOWN = Column("c", Difference.NEW_UNKNOWN, None, "{schema}.span", new=("[1,2)", None, "empty"))
REMOVED = Column("c", Difference.REMOVED, "integer", None, old=("1", "2", "3"))
REMOVED_NOT_NULL = Column("c", Difference.REMOVED_NOT_NULL, "text NOT NULL", None, old=("a", "b", "c"))
REMOVED_OWN = Column(
    "c",
    Difference.REMOVED_OWN,
    "integer NOT NULL",
    None,
    old=("1", "2", "3"),
    destination="ALTER TABLE {table} ALTER c SET DEFAULT 7",
)

ADDED_AND_REMOVED = (
    of_one(NEW, "a new column"),
    of_one(NEW_NOT_NULL, "a new column that is NOT NULL"),
    Scenario(
        "several new columns, one of them with a strange name",
        (
            replace(NEW, name="c1", after="integer[]", new=("{1,2}", None, "{}")),
            replace(
                NEW, name='C "2" \'ü', after="timestamp(3) without time zone", new=("2024-01-02 03:04:05.123",) * 3
            ),
            replace(NEW, name="c3", after="jsonb", new=('{"a": 1}', "null", None)),
            replace(NEW, name="c4", after="inet", new=("10.0.0.1", None, "::1")),
        ),
    ),
    Scenario("a new column of an enum", (NEW_ENUM,), setup="CREATE TYPE {schema}.mood AS ENUM ('sad', 'ok')"),
    Scenario("a new column of a range", (NEW_UNKNOWN,), setup="CREATE TYPE {schema}.span AS RANGE (subtype = int4)"),
    of_one(REMOVED, "a removed column"),
    of_one(REMOVED_NOT_NULL, "a removed column that is NOT NULL"),
    of_one(REMOVED_OWN, "a removed column with a default of the table"),
)

RENAMED = Scenario(
    "a renamed column",
    (
        replace(REMOVED, name="old_name", before="text", old=("a", "b", "c")),
        replace(NEW, name="new_name", after="text", new=("b", "c", "d")),
    ),
    said=("rename",),
)

# Types. `new` has, where there is one, a value that the type before does not hold.


def lossless(before: str, after: str, old: Three, new: Three, cast: Three, widened: Three | None = None) -> Column:
    return Column("c", Difference.LOSSLESS, before, after, old, new, cast, widened)


def other_type(before: str, after: str, old: Three, new: Three, cast: Three) -> Column:
    return Column("c", Difference.OTHER_TYPE, before, after, old, new, cast)


def held(before: str, after: str, old: Three, new: Three) -> Column:
    return Column("c", Difference.HELD_TYPE, before, after, old, new)


LOSSLESS = (
    lossless("smallint", "integer", ("1", "-32768", None), ("1", "32768", "32767"), ("1", None, "32767")),
    lossless("integer", "bigint", ("1", "-7", None), ("1", "2147483648", None), ("1", None, None)),
    lossless("smallint", "bigint", ("1", "-7", None), ("1", "2147483648", None), ("1", None, None)),
    lossless("integer", "numeric", ("1", "-7", None), ("1", "1.50", "8"), ("1", None, "8")),
    lossless("bigint", "numeric", ("1", "-9223372036854775808", None), ("1", "NaN", "8"), ("1", None, "8")),
    lossless("real", "double precision", ("0.5", "Infinity", "NaN"), ("0.5", "1e+300", "-0"), ("0.5", None, "-0")),
    lossless(
        "character varying(5)",
        "character varying(10)",
        ("12345", "", None),
        ("12345", "1234567890", "ü"),
        ("12345", None, "ü"),
    ),
    lossless("character varying(5)", "text", ("12345", "", None), ("12345", "123456", None), ("12345", None, None)),
    lossless("character(3)", "text", ("abc", "xyz", None), ("abc", "abcd", "def"), ("abc", None, "def")),
    lossless(
        "numeric(10,2)",
        "numeric(12,2)",
        ("1.50", "-99999999.99", None),
        ("1.50", "9999999999.99", "0.00"),
        ("1.50", None, "0.00"),
    ),
    lossless(
        "numeric(12,2)",
        "numeric",
        ("1.50", "-7.00", None),
        ("1.50", "100000000000000000000", "0.00"),
        ("1.50", None, "0.00"),
    ),
    lossless(
        "numeric(10,2)",
        "numeric(12,4)",
        ("1.50", "-7.00", None),
        ("1.5000", "-7.2345", "0.0000"),
        ("1.50", "-7.23", "0.00"),
        widened=("1.5000", "-7.0000", None),
    ),
    lossless("integer", "double precision", ("1", "-7", None), ("1", "1.5", "3000000000"), ("1", None, None)),
    lossless(
        "uuid",
        "text",
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None, None),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12", "abc", None),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12", None, None),
    ),
    lossless("integer", "text", ("1", "-7", None), ("1", "abc", "08"), ("1", None, "8")),
    lossless(
        "date",
        "timestamp without time zone",
        ("2024-01-02", "infinity", "0044-03-15 BC"),
        ("2024-01-02 00:00:00", "2024-02-03 04:05:06.789", None),
        ("2024-01-02", "2024-02-03", None),
        widened=("2024-01-02 00:00:00", "infinity", "0044-03-15 00:00:00 BC"),
    ),
    lossless("integer[]", "bigint[]", ("{1,NULL}", "{}", None), ("{1}", "{1,2147483648}", None), ("{1}", None, None)),
    lossless(
        "timestamp(3) without time zone",
        "timestamp without time zone",
        ("2024-01-02 03:04:05.123", "-infinity", None),
        ("2024-01-02 03:04:05.123456", "infinity", None),
        ("2024-01-02 03:04:05.123", "infinity", None),
    ),
)

FITTING = (
    other_type("bigint", "integer", ("1", "2147483648", None), ("1", "-7", None), ("1", "-7", None)),
    other_type("text", "integer", ("abc", "1", None), ("1", "-7", None), ("1", "-7", None)),
    other_type("text", "uuid", ("abc", "1", None), *[("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None, None)] * 2),
    other_type(
        "numeric(12,4)",
        "numeric(10,2)",
        ("1.2345", "0.0000", None),
        ("1.50", "-7.00", None),
        ("1.5000", "-7.0000", None),
    ),
    other_type(
        "date",
        "timestamp with time zone",
        ("2024-01-02", "infinity", None),
        ("2024-01-02 00:00:00+00", "2024-02-03 04:05:06+00", None),
        ("2024-01-02", "2024-02-03", None),
    ),
    other_type("jsonb", "integer", ('{"a": 1}', "1", None), ("1", "-7", None), ("1", "-7", None)),
    other_type("bigint[]", "integer[]", ("{1}", "{2147483648}", None), ("{1}", "{}", None), ("{1}", "{}", None)),
)

UNFITTING = (
    other_type("integer", "jsonb", ("1", "2", None), ("1", '{"a": 1}', "8"), ("1", None, "8")),
    other_type(
        "uuid", "integer", ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None, None), ("1", None, None), (None, None, None)
    ),
    other_type("boolean", "integer", ("t", "f", None), ("1", "0", "2"), ("t", "f", None)),
    other_type("bigint", "double precision", ("1", "2", None), ("1", "1.5", "1e+20"), ("1", None, None)),
    other_type("integer", "boolean", ("1", "0", None), ("t", "f", None), (None, None, None)),
    other_type("inet", "bytea", ("10.0.0.1", None, None), ("\\x01", None, None), (None, None, None)),
    other_type(
        "timestamp without time zone",
        "bigint",
        ("2024-01-02 00:00:00", None, None),
        ("1", None, None),
        (None, None, None),
    ),
    other_type(
        "numeric(10,2)", "numeric(14,1)", ("1.50", "2.00", None), ("1.5", "1234567890123.4", None), ("1.50", None, None)
    ),
    other_type("integer[]", "integer", ("{1}", "{}", None), ("1", None, None), (None, None, None)),
)

HELD = (
    held("character varying(10)", "character varying(3)", ("1234567890", "", None), ("123", "ü", None)),
    held("text", "character varying(3)", ("1234567890", "", None), ("123", "ü", None)),
    held("numeric", "numeric(10,2)", ("0.00000000000000000001", "NaN", None), ("1.50", "-7.00", None)),
)

NOT_NULL_TYPE = Column(
    "c",
    Difference.OTHER_TYPE_NOT_NULL,
    "integer NOT NULL",
    "jsonb NOT NULL",
    ("1", "2", "3"),
    ("1", "2", "8"),
)


def together(name: str, columns: Iterable[Column]) -> Scenario:
    """All of them in one table, side by side."""
    return Scenario(name, tuple(replace(column, name=f"c{n}") for n, column in enumerate(columns, 1)))


TYPES = (
    together("types that widen", LOSSLESS),
    together("types that are cast", FITTING),
    together("types that are held", HELD),
    of_one(NOT_NULL_TYPE, "another type of a column that is NOT NULL"),
)

SINGLE_TYPES = tuple(of_one(column) for column in (*LOSSLESS, *FITTING, *HELD, *UNFITTING))

# Nullability. Under a name of its own each, they are all one table as well.

NULLABLE = Column("c", Difference.NULLABLE, "integer NOT NULL", "integer", ("1", "2", "3"), ("2", None, None))
NOT_NULL = Column("c", Difference.NOT_NULL, "integer", "integer NOT NULL", ("1", "2", "3"), ("2", "3", "4"))
NOT_NULL_IMPOSSIBLE = replace(NOT_NULL, difference=Difference.NOT_NULL_IMPOSSIBLE, old=(None, "2", None))

NULLABILITY = (
    of_one(NULLABLE, "a column that may be NULL now"),
    of_one(NOT_NULL, "a column that may not be NULL any more"),
    of_one(NOT_NULL_IMPOSSIBLE, "a column that may not be NULL any more, and is"),
)

# Several at once: one transaction, in which the first that is refused undoes the others.

SEVERAL = Scenario(
    "several changes",
    (
        replace(NEW_NOT_NULL, name="added"),
        replace(REMOVED_NOT_NULL, name="removed"),
        replace(LOSSLESS[1], name="widened"),
        replace(FITTING[0], name="narrowed"),
        replace(NULLABLE, name="relaxed"),
        replace(NOT_NULL, name="tightened"),
        replace(NOT_NULL_IMPOSSIBLE, name="left"),
    ),
)
UNDONE = Scenario(
    "several changes, and a value that does not fit",
    (
        replace(NEW, name="added"),
        replace(LOSSLESS[1], name="widened"),
        replace(NULLABLE, name="relaxed"),
        replace(UNFITTING[0], name="unfitting"),
    ),
)

TABLE: tuple[Scenario, ...] = (*ADDED_AND_REMOVED, *TYPES, *NULLABILITY)


@dataclass(frozen=True)
class Way:
    write_mode: str
    shards: int = 1

    def __str__(self) -> str:
        return self.write_mode if self.shards == 1 else f"{self.write_mode} in {self.shards} shards"


@dataclass(frozen=True)
class Cell:
    scenario: Scenario
    policy: Policy
    way: Way
    quick: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        policy = ", ".join(f"{axis}: {value}" for axis, value in self.policy.items())
        return f"{self.scenario.name} | {policy} | {self.way}"
