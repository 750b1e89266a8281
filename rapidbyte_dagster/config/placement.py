"""Where `${NAME}` may stand: in values that a run needs. What must be known when the file loads cannot hold one."""

from __future__ import annotations

from typing import Any

from rapidbyte_dagster.config.document import Document
from rapidbyte_dagster.config.problems import Key, Problem
from rapidbyte_dagster.config.substitution import has_reference, malformed_reference, unescape

_ANY = object()
_REST = object()
_RUN_TIME: tuple[tuple[object, ...], ...] = (
    ("source", "config", _REST),
    ("destination", "config", _REST),
    ("transforms", _ANY, "config", _REST),
    ("source", "permissions", "network", "allowed_hosts", _ANY),
    ("destination", "permissions", "network", "allowed_hosts", _ANY),
    ("transforms", _ANY, "permissions", "network", "allowed_hosts", _ANY),
    ("source", "streams", _ANY, "filter"),
    ("state", "path"),
    ("state", "connection"),
)
_KNOWN_AT_LOAD = "must be known when the file loads, so it cannot hold ${…} (a literal ${ is written $${)"


def place_references(document: Document) -> tuple[dict[str, Any], list[Problem]]:
    """The document's values, with `$${` replaced wherever no reference may stand, and every misplaced reference."""
    problems: list[Problem] = []

    def placed(value: Any, key: Key) -> Any:
        if isinstance(value, dict):
            return {name: placed(part, (*key, name)) for name, part in value.items()}
        if isinstance(value, list):
            return [placed(part, (*key, index)) for index, part in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        broken = malformed_reference(value)
        if not is_run_time(key):
            if has_reference(value):
                problems.append(document.problem(key, _KNOWN_AT_LOAD))
            return unescape(value)
        if broken is not None:
            allowed = "${NAME}, ${NAME:-default}, or $${ for a literal ${"
            problems.append(document.problem(key, f"found a malformed reference; allowed: {allowed}"))
        return value

    placed_values = {name: placed(value, (name,)) for name, value in document.values.items()}
    return placed_values, problems


def is_run_time(key: Key) -> bool:
    """Whether the value at `key` is one that a run resolves."""
    return any(_matches(pattern, key) for pattern in _RUN_TIME)


def _matches(pattern: tuple[object, ...], key: Key) -> bool:
    if pattern[-1] is _REST:
        pattern = pattern[:-1]
        if len(key) <= len(pattern):
            return False
        key = key[: len(pattern)]
    return len(key) == len(pattern) and all(wanted in (_ANY, step) for wanted, step in zip(pattern, key, strict=True))
