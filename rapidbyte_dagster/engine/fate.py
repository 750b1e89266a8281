"""What became of a failed run's rows. An error that leaves it open says so, and that nobody has to find out by hand."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from rapidbyte_dagster.errors import Kind, RapidbyteError


class Fate(Enum):
    """Of the rows since the last checkpoint that the state store knows to be committed."""

    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"
    """The destination was about to commit, and nobody heard whether it did."""
    COMMITTED = "committed"


REFUSALS = frozenset(
    {Kind.CONFIG, Kind.UNSUPPORTED, Kind.SCHEMA, Kind.AUTH, Kind.PERMISSION, Kind.NOT_FOUND, Kind.DATA, Kind.RESOURCE}
)
"""Kinds by which a server says that it did not commit: it answered, the connection was not lost."""

_TOLD = {
    Fate.UNKNOWN: "the destination was about to commit and nobody heard whether it did: the rows may be in the table;"
    " the stream's next run finds out, and repeats none of them",
    Fate.COMMITTED: "this happened after the commit: the rows are in the table, and the stream's next run repeats none"
    " of them",
}


def with_fate(error: RapidbyteError, fate: Fate) -> RapidbyteError:
    """`error`, telling `fate`."""
    told = _TOLD.get(fate)
    if told is None:
        return error
    info = error.info
    return type(error).from_info(replace(info, detail=f"{info.detail}; {told}" if info.detail else told))
