"""Dagster names for what PostgreSQL names: any table name gives a safe and unique op name and asset key."""

from __future__ import annotations

import hashlib
import re

_OUTSIDE_KEY = re.compile(r"[^A-Za-z0-9_.-]")
_OUTSIDE_OP = re.compile(r"[^A-Za-z0-9_]")

# Hexadecimal digits that keep two names apart which become equal once their odd characters are replaced.
_DIGEST_LENGTH = 6


def key_part(name: str) -> str:
    """`name` as one part of an asset key: as it is where Dagster allows it."""
    return _safe(name, _OUTSIDE_KEY)


def op_name(pipeline: str, stream: str) -> str:
    """The op that moves `stream`: `shop__users`."""
    return f"{pipeline}__{_safe(stream, _OUTSIDE_OP)}"


def pool_name(pipeline: str) -> str:
    """The concurrency pool that the ops of `pipeline` share."""
    return f"rapidbyte_{pipeline}"


def _safe(name: str, outside: re.Pattern[str]) -> str:
    replaced = outside.sub("_", name)
    if replaced == name:
        return name
    return f"{replaced}_{hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]}"
