"""What each policy does about each change: the table of docs/schema-evolution.md, whose words are the values here.

The words mean what `expected.py` computes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from rapidbyte_dagster.state import ChangeAction, ChangeKind

WRITE_MODES = ("append", "replace", "upsert")


class Table(str, Enum):
    """What becomes of the destination's table."""

    __str__ = str.__str__

    STAYS = "stays"
    GAINS = "gets the column"
    GAINS_NOT_NULL = "gets the column; with NOT NULL if every row has a value"
    GAINS_TEXT = "gets the column, as `text`"
    RELAXES = "the column loses NOT NULL"
    WIDENS = "the column gets the stream's type"
    TIGHTENS = "the column gets NOT NULL"


@dataclass(frozen=True)
class Words:
    """The same in each write mode."""

    append: str
    replace: str
    upsert: str


class Rows(Enum):
    """What becomes of its rows."""

    ADDED = Words(
        append="new rows have its values, rows that were there NULL",
        replace="every row has its value",
        upsert="inserted and updated rows have its values, others NULL",
    )
    LEFT_OUT = Words(*["written without the column"] * 3)
    NULL = Words(
        append="new rows have NULL, rows that were there keep their values",
        replace="every row has NULL",
        upsert="inserted and updated rows have NULL, others keep their values",
    )
    FILLED = Words(
        append="new rows have what the table fills in",
        replace="every row has what the table fills in",
        upsert="inserted and updated rows have what the table fills in, others keep their values",
    )
    AS_THEY_ARE = Words(*["every value arrives as it is"] * 3)
    AS_THEY_ARE_BESIDE_NULL = Words(
        append="every value arrives as it is", replace="no row stays: as above", upsert="every value arrives as it is"
    )
    CAST = Words(*["values are cast; one that does not fit fails the run"] * 3)
    CAST_OR_NULL = Words(*["values are cast; NULL for one that does not fit"] * 3)
    NONE = Words(*["none: the run fails"] * 3)


class Check(str, Enum):
    """How the asset check `schema_drift` ends, and what `rapidbyte check` says."""

    __str__ = str.__str__

    PASSES = "passes"
    WARNS = "warns"
    FAILS = "fails"


CHECK_OF_ACTION: Mapping[ChangeAction | None, Check] = {
    None: Check.PASSES,
    ChangeAction.ADDED: Check.PASSES,
    ChangeAction.KEPT: Check.PASSES,
    ChangeAction.WIDENED: Check.PASSES,
    ChangeAction.CAST: Check.PASSES,
    ChangeAction.RELAXED: Check.PASSES,
    ChangeAction.TIGHTENED: Check.PASSES,
    ChangeAction.IGNORED: Check.WARNS,
    ChangeAction.NULLED: Check.WARNS,
    ChangeAction.LEFT: Check.WARNS,
    ChangeAction.REFUSED: Check.FAILS,
}


@dataclass(frozen=True)
class Effect:
    table: Table
    rows: Rows
    action: ChangeAction | None
    """None where there is nothing to tell."""

    @property
    def check(self) -> Check:
        return CHECK_OF_ACTION[self.action]


class Difference(Enum):
    """A difference between the stream's columns and the table's, as the page calls it, and the axis that decides."""

    def __init__(self, words: str, kind: ChangeKind) -> None:
        self.words = words
        self.kind = kind

    NEW = "new column", ChangeKind.NEW_COLUMN
    NEW_NOT_NULL = "new column that is NOT NULL", ChangeKind.NEW_COLUMN
    NEW_ENUM = "new column of an enum that the destination lacks", ChangeKind.NEW_COLUMN
    NEW_UNKNOWN = "new column of any other type that the destination lacks", ChangeKind.NEW_COLUMN
    REMOVED = "removed column", ChangeKind.REMOVED_COLUMN
    REMOVED_NOT_NULL = "removed column that is NOT NULL in the table", ChangeKind.REMOVED_COLUMN
    REMOVED_DEFAULT = "removed column that has a default in the table", ChangeKind.REMOVED_COLUMN
    LOSSLESS = "type change that loses nothing", ChangeKind.TYPE_CHANGE
    OTHER_TYPE = "any other type change", ChangeKind.TYPE_CHANGE
    OTHER_TYPE_NOT_NULL = "any other type change of a column that is NOT NULL", ChangeKind.TYPE_CHANGE
    HELD_TYPE = "type whose values the column holds in the same form", ChangeKind.TYPE_CHANGE
    NULLABLE = "NOT NULL dropped", ChangeKind.NULLABILITY_CHANGE
    NOT_NULL = "NOT NULL added", ChangeKind.NULLABILITY_CHANGE
    NOT_NULL_IMPOSSIBLE = "NOT NULL added, and rows that stay have NULL", ChangeKind.NULLABILITY_CHANGE


POLICY_VALUES: Mapping[ChangeKind, tuple[str, ...]] = {
    ChangeKind.NEW_COLUMN: ("add", "ignore", "fail"),
    ChangeKind.REMOVED_COLUMN: ("ignore", "add", "fail"),
    ChangeKind.TYPE_CHANGE: ("fail", "coerce", "null"),
    ChangeKind.NULLABILITY_CHANGE: ("allow", "fail"),
}

REFUSED = Effect(Table.STAYS, Rows.NONE, ChangeAction.REFUSED)
NOTHING = Effect(Table.STAYS, Rows.AS_THEY_ARE, None)

EFFECTS: Mapping[Difference, Mapping[str, Effect]] = {
    Difference.NEW: {
        "add": Effect(Table.GAINS, Rows.ADDED, ChangeAction.ADDED),
        "ignore": Effect(Table.STAYS, Rows.LEFT_OUT, ChangeAction.IGNORED),
        "fail": REFUSED,
    },
    Difference.NEW_NOT_NULL: {
        "add": Effect(Table.GAINS_NOT_NULL, Rows.ADDED, ChangeAction.ADDED),
        "ignore": Effect(Table.STAYS, Rows.LEFT_OUT, ChangeAction.IGNORED),
        "fail": REFUSED,
    },
    Difference.NEW_ENUM: {
        "add": Effect(Table.GAINS_TEXT, Rows.ADDED, ChangeAction.ADDED),
        "ignore": Effect(Table.STAYS, Rows.LEFT_OUT, ChangeAction.IGNORED),
        "fail": REFUSED,
    },
    Difference.NEW_UNKNOWN: {
        "add": Effect(Table.STAYS, Rows.NONE, ChangeAction.REFUSED),
        "ignore": Effect(Table.STAYS, Rows.LEFT_OUT, ChangeAction.IGNORED),
        "fail": REFUSED,
    },
    Difference.REMOVED: {
        "ignore": Effect(Table.STAYS, Rows.NULL, ChangeAction.IGNORED),
        "add": Effect(Table.STAYS, Rows.NULL, ChangeAction.KEPT),
        "fail": REFUSED,
    },
    Difference.REMOVED_NOT_NULL: {
        "ignore": Effect(Table.RELAXES, Rows.NULL, ChangeAction.IGNORED),
        "add": Effect(Table.RELAXES, Rows.NULL, ChangeAction.KEPT),
        "fail": REFUSED,
    },
    Difference.REMOVED_DEFAULT: {
        "ignore": Effect(Table.STAYS, Rows.FILLED, ChangeAction.IGNORED),
        "add": Effect(Table.STAYS, Rows.FILLED, ChangeAction.KEPT),
        "fail": REFUSED,
    },
    Difference.LOSSLESS: {
        "fail": REFUSED,
        "coerce": Effect(Table.WIDENS, Rows.AS_THEY_ARE, ChangeAction.WIDENED),
        "null": Effect(Table.STAYS, Rows.CAST_OR_NULL, ChangeAction.NULLED),
    },
    Difference.OTHER_TYPE: {
        "fail": REFUSED,
        "coerce": Effect(Table.STAYS, Rows.CAST, ChangeAction.CAST),
        "null": Effect(Table.STAYS, Rows.CAST_OR_NULL, ChangeAction.NULLED),
    },
    Difference.OTHER_TYPE_NOT_NULL: {
        "fail": REFUSED,
        "coerce": Effect(Table.STAYS, Rows.CAST, ChangeAction.CAST),
        "null": Effect(Table.RELAXES, Rows.CAST_OR_NULL, ChangeAction.NULLED),
    },
    Difference.HELD_TYPE: dict.fromkeys(("fail", "coerce", "null"), NOTHING),
    Difference.NULLABLE: {
        "allow": Effect(Table.RELAXES, Rows.AS_THEY_ARE, ChangeAction.RELAXED),
        "fail": REFUSED,
    },
    Difference.NOT_NULL: {
        "allow": Effect(Table.TIGHTENS, Rows.AS_THEY_ARE, ChangeAction.TIGHTENED),
        "fail": REFUSED,
    },
    Difference.NOT_NULL_IMPOSSIBLE: {
        "allow": Effect(Table.STAYS, Rows.AS_THEY_ARE_BESIDE_NULL, ChangeAction.LEFT),
        "fail": REFUSED,
    },
}
