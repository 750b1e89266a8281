"""What the models refuse, told for the person who wrote the file: line, key, what was found, what is allowed."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rapidbyte_dagster.config.capabilities import Section
from rapidbyte_dagster.config.document import Document
from rapidbyte_dagster.config.models import Pipeline
from rapidbyte_dagster.config.placement import is_run_time
from rapidbyte_dagster.config.problems import Key, Problem, describe, did_you_mean, type_name
from rapidbyte_dagster.config.values import NOT_ALLOWED

_KEY_MARK = "[key]"
"""How pydantic marks an error in a mapping's key and not in its value."""
_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}


def problems_of(error: ValidationError, document: Document) -> list[Problem]:
    return [_problem(detail, document) for detail in error.errors(include_url=False)]


def _problem(detail: ErrorDetails, document: Document) -> Problem:
    key: Key = tuple(step for step in detail["loc"] if step != _KEY_MARK)
    of_key = _KEY_MARK in detail["loc"]
    kind, found, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return document.problem(key, "required, but missing")
    if kind == "extra_forbidden":
        return document.problem(key, _unknown_key(key), of_key=True)
    if kind == NOT_ALLOWED:
        suggestion = did_you_mean(found, context["choices"])
        return document.problem(key, f"{_found(found, key)}; allowed: {context['allowed']}{suggestion}", of_key=of_key)
    return document.problem(
        key, f"{_found(found, key)}; allowed: {_allowed(kind, found, context, detail)}", of_key=of_key
    )


def _found(value: Any, key: Key) -> str:
    # A value of a run-time key may be a secret written into the file.
    return f"found {type_name(value) if is_run_time(key) or key[-1:] == ('config',) else describe(value)}"


def _allowed(kind: str, found: Any, context: dict[str, Any], detail: ErrorDetails) -> str:
    if kind == "string_type" and isinstance(found, (int, float)):
        return "a text (put it in quotes)"
    if kind == "greater_than_equal":
        return f"{context['ge']} or more"
    if kind == "less_than_equal":
        return f"{context['le']} or less"
    return _WANTED.get(kind, detail["msg"])


def _unknown_key(key: Key) -> str:
    name = key[-1]
    section = _section_at(key[:-1])
    known = key_names(section) if section is not None else []
    suggestion = did_you_mean(name, known)
    # A pipeline's section may hold less than a stream's of the same name.
    here = key[-2:-1]
    homes = [] if suggestion else sorted(h for h, names in _key_homes().items() if name in names and (h,) != here)
    belongs = f"; it belongs in {' or '.join(homes)}" if homes else ""
    return f"unknown key; allowed: {', '.join(known)}{suggestion}{belongs}"


def key_names(section: type[Section]) -> list[str]:
    """The keys of a section as the file spells them."""
    return [field.alias or name for name, field in section.model_fields.items()]


def _section_at(key: Key) -> type[Section] | None:
    section: type[Section] | None = Pipeline
    for step in key:
        if isinstance(step, int) or section is None:
            continue
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        section = _section_in(fields[step]) if step in fields else None
    return section


def _section_in(field: FieldInfo) -> type[Section] | None:
    """The model in a field's annotation: itself, or what its list holds."""
    pending: list[Any] = [field.annotation]
    while pending:
        found = pending.pop()
        if isinstance(found, type) and issubclass(found, Section):
            return found
        pending.extend(get_args(found))
    return None


def _key_homes() -> dict[str, list[str]]:
    """Section name -> its keys, for a key that stands in the wrong section."""
    homes: dict[str, list[str]] = {}

    def visit(section: type[Section]) -> None:
        for name, field in section.model_fields.items():
            inner = _section_in(field)
            if inner is not None and (field.alias or name) not in homes:
                homes[field.alias or name] = key_names(inner)
                visit(inner)

    visit(Pipeline)
    return homes
