"""Keys and values that are designed and checked, but that no code acts on yet: refused, never ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rapidbyte_dagster.config.document import Document
from rapidbyte_dagster.config.problems import Problem
from rapidbyte_dagster.config.rules import Keys, keys_of, transforms_of
from rapidbyte_dagster.errors import Kind


def unsupported_problems(values: Mapping[str, Any], document: Document) -> list[Problem]:
    """One problem for each feature that the file asks for and that is not built."""
    root = keys_of(values, (), document)
    problems = [*_key(root, "schedule", "not supported yet")]
    transforms = root.sections("transforms")
    for stream in root.section("source").sections("streams"):
        if stream.text("sync_mode") == "cdc":
            problems += _key(stream, "filter", "not supported yet for sync_mode: cdc")
            if transforms_of(stream, transforms):
                told = "cdc is not supported yet for a stream with transforms"
                problems.append(document.problem((*stream.key, "sync_mode"), told, kind=Kind.UNSUPPORTED))
    return problems


def _key(section: Keys, name: str, message: str) -> Iterator[Problem]:
    if section.has(name):
        yield section.document.problem((*section.key, name), message, of_key=True, kind=Kind.UNSUPPORTED)
