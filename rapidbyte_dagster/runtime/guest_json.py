"""JSON from a guest: what Python's reader lets through beyond the standard is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def loads(text: bytes) -> Any:
    """Raises `ValueError` or `RecursionError`."""
    value = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    if b"\\u" in text:
        # Half of a surrogate pair is no text: neither SQLite nor a terminal nor another guest takes it.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
