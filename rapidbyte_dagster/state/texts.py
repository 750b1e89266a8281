"""Times and messages in the form in which the stores hold them."""

from __future__ import annotations

from datetime import datetime, timezone


def as_text(moment: datetime) -> str:
    """ISO 8601 in UTC, always of one length: it sorts by time, in any collation."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


def storable(text: str) -> str:
    """`text` without what a database may refuse to hold: a driver's message may quote any bytes."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
