"""Dagster names for what PostgreSQL names: any table name gives a safe and unique op name and asset key."""

from __future__ import annotations

import hashlib
import re

_OUTSIDE_KEY = re.compile(r"[^A-Za-z0-9_.-]")
_OUTSIDE_OP = re.compile(r"[^A-Za-z0-9_]")

# Hexadecimal digits that keep two names apart which become equal once their odd characters are replaced.
_DIGEST_LENGTH = 6

TAG_LIMIT = 63
"""Characters of a tag's value."""


def key_part(name: str) -> str:
    """`name` as one part of an asset key: as it is where Dagster allows it."""
    return _safe(name, _OUTSIDE_KEY)


def op_name(pipeline: str, stream: str) -> str:
    """The op that moves `stream`: `shop__users`."""
    return f"{pipeline}__{_safe(stream, _OUTSIDE_OP)}"


def slot_job_name(pipeline: str, group: str) -> str:
    """The job that catches up the replication slot of `group`: `shop__cdc_job`."""
    return f"{op_name(pipeline, group)}_job"


def slot_sensor_name(pipeline: str, group: str) -> str:
    return f"{op_name(pipeline, group)}_sensor"


def reconciliation_name(stream: str) -> str:
    """The check that holds the table of `stream` against its source's: `reconciliation_users`."""
    return f"reconciliation_{_safe(stream, _OUTSIDE_OP)}"


def slot_tag(pipeline: str, group: str) -> str:
    """What the runs and the op of a replication slot bear as a tag: the op's name, as long as a tag may be."""
    name = op_name(pipeline, group)
    return name if len(name) <= TAG_LIMIT else f"{name[: TAG_LIMIT - _DIGEST_LENGTH - 1]}_{_digest(name)}"


def pool_name(pipeline: str) -> str:
    """The concurrency pool that the ops of `pipeline` share."""
    return f"rapidbyte_{pipeline}"


def _safe(name: str, outside: re.Pattern[str]) -> str:
    replaced = outside.sub("_", name)
    if replaced == name:
        return name
    return f"{replaced}_{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
