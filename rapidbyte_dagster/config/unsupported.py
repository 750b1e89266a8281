"""Keys and values that are designed and checked, but that no code acts on yet: refused, never ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rapidbyte_dagster.config.document import Document
from rapidbyte_dagster.config.problems import Problem, describe
from rapidbyte_dagster.config.rules import Keys, keys_of
from rapidbyte_dagster.config.substitution import has_reference
from rapidbyte_dagster.errors import Kind

_STREAM_KEYS = ("replication_slot", "deletes")
SOURCE_CONFIG_KEYS = ("replication_slot", "publication")
"""Keys of a source's config that belong to change data capture; no manifest lists them yet."""
_REPLICATION_NAMES = {
    "replication_slot": (re.compile(r"[a-z0-9_]{1,63}"), "lower-case letters, digits and _; at most 63"),
    "publication": (re.compile(r"[^\0]{1,63}"), "a name of 1 to 63 bytes"),
}
_BUILT = {
    "sync_mode": ("full_refresh", "incremental"),
}
_DESIGNED = {
    "sync_mode": ("cdc",),
}


def unsupported_problems(values: Mapping[str, Any], document: Document) -> list[Problem]:
    """One problem for each feature that the file asks for and that is not built."""
    root = keys_of(values, (), document)
    source = root.section("source")
    problems = [*_keys(root, "schedule"), *_keys(source.section("config"), *SOURCE_CONFIG_KEYS)]
    problems += _replication_problems(source.section("config"))
    for stream in source.sections("streams"):
        problems += [*_value(stream, "sync_mode"), *_keys(stream, *_STREAM_KEYS)]
    return problems


def _keys(section: Keys, *names: str) -> Iterator[Problem]:
    for name in names:
        if section.has(name):
            yield section.document.problem(
                (*section.key, name), "not supported yet", of_key=True, kind=Kind.UNSUPPORTED
            )


def _value(section: Keys, name: str) -> Iterator[Problem]:
    found = section.text(name)
    if found in _DESIGNED[name]:
        message = f"{found!r} is not supported yet; allowed for now: {', '.join(_BUILT[name])}"
        yield section.document.problem((*section.key, name), message, kind=Kind.UNSUPPORTED)


def _replication_problems(config: Keys) -> Iterator[Problem]:
    """The keys of change data capture in a source's config, checked although nothing reads them yet."""
    for name in SOURCE_CONFIG_KEYS:
        found = config.values.get(name)
        if found is None or (isinstance(found, str) and has_reference(found)):
            continue
        pattern, allowed = _REPLICATION_NAMES[name]
        if not isinstance(found, str) or pattern.fullmatch(found) is None:
            yield config.problem(name, f"found {describe(found)}; allowed: {allowed}")
