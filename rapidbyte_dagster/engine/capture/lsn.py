"""Log sequence numbers: places in PostgreSQL's write-ahead log, as it prints them (`0/16B3748`)."""

from __future__ import annotations

import re
from typing import Any

_PRINTED = re.compile(r"([0-9A-F]{1,8})/([0-9A-F]{1,8})")


def parse_lsn(text: str) -> int:
    """Bytes from the log's beginning. Raises ValueError."""
    match = _PRINTED.fullmatch(text.upper())
    if match is None:
        raise ValueError(f"{text!r} is no LSN")
    return int(match[1], 16) << 32 | int(match[2], 16)


def format_lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def position_of(cursor: Any) -> int | None:
    """Of a checkpoint's cursor `{"lsn": "0/16B3748"}`: every transaction that committed before it is applied. None for
    a cursor of another kind: the stream was never captured."""
    lsn = cursor.get("lsn") if isinstance(cursor, dict) else None
    if not isinstance(lsn, str):
        return None
    try:
        return parse_lsn(lsn)
    except ValueError:
        return None


def cursor_at(position: int, origin: str | None) -> dict[str, str]:
    """`origin` is that of the stream's table, where the source told one."""
    return {"lsn": format_lsn(position), **({"origin": origin} if origin is not None else {})}


def origin_of(cursor: Any) -> str | None:
    """What the stream's table was when it was captured; None where nobody wrote that down."""
    origin = cursor.get("origin") if isinstance(cursor, dict) else None
    return origin if isinstance(origin, str) else None
