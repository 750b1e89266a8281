"""What became of a failed run's rows. An error that leaves it open says so: an append is not to be repeated lightly."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from rapidbyte_dagster.config import WriteMode
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
    Fate.UNKNOWN: "the destination was about to commit and nobody heard whether it did: the rows may be in the table",
    Fate.COMMITTED: "this happened after the commit: the rows are in the table",
}


def with_fate(error: RapidbyteError, fate: Fate, write_mode: WriteMode) -> RapidbyteError:
    """`error`, telling `fate`; one that leaves rows of an append behind is not repeatable."""
    told = _TOLD.get(fate)
    if told is None:
        return error
    appends = write_mode is not WriteMode.REPLACE
    if appends:
        told += "; running the stream again adds them again"
    info = error.info
    detail = f"{info.detail}; {told}" if info.detail else told
    return type(error).from_info(replace(info, detail=detail, repeatable=info.repeatable and not appends))
