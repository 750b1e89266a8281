"""What happens to a source table between two runs, and what each column of it then is at the destination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from rapidbyte_dagster.state import ChangeKind
from tests.evolution.columns import Column
from tests.evolution.effects import POLICY_VALUES, Difference
from tests.evolution.type_changes import FITTING, HELD, LOSSLESS, MORE_LOSSLESS, NOT_NULL_TYPE, UNFITTING


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
REMOVED_DEFAULT = Column(
    "c",
    Difference.REMOVED_DEFAULT,
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
    of_one(REMOVED_DEFAULT, "a removed column with a default of the table"),
)

RENAMED = Scenario(
    "a renamed column",
    (
        replace(REMOVED, name="old_name", before="text", old=("a", "b", "c")),
        replace(NEW, name="new_name", after="text", new=("b", "c", "d")),
    ),
    said=("rename",),
)

# Types.


def together(name: str, columns: Iterable[Column]) -> Scenario:
    """All of them in one table, side by side."""
    return Scenario(name, tuple(replace(column, name=f"c{n}") for n, column in enumerate(columns, 1)))


TYPES = (
    together("types that widen", (*LOSSLESS, *MORE_LOSSLESS)),
    together("types that are cast", FITTING),
    together("types that are held", HELD),
    of_one(NOT_NULL_TYPE, "another type of a column that is NOT NULL"),
)

SINGLE_TYPES = tuple(of_one(column) for column in (*LOSSLESS, *MORE_LOSSLESS, *FITTING, *HELD, *UNFITTING))

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
        replace(NEW_NOT_NULL, name='Added "x"'),
        replace(REMOVED_NOT_NULL, name="re'moved"),
        replace(LOSSLESS[1], name="select"),
        replace(FITTING[0], name="ü %s"),
        replace(NULLABLE, name="re laxed"),
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
