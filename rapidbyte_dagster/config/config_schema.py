"""A connector's own config, judged by the JSON Schema of its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

from rapidbyte_dagster.config.problems import Key, describe, did_you_mean, type_name
from rapidbyte_dagster.config.substitution import has_reference
from rapidbyte_dagster.errors import ConfigError, Kind

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_SHAPE_KEYWORDS = frozenset({"required", "additionalProperties", "dependentRequired", "type"})
"""Keywords that judge a mapping by its keys alone, whatever its values expand to later."""
_TYPE_WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """Where in the config, relative to its root, and what is wrong there."""

    key: Key
    message: str


@dataclass(frozen=True)
class ConfigSchema:
    """The `config_schema` of one connector (`connector` is its name, for errors)."""

    connector: str
    schema: Mapping[str, Any] = field(repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # The validator, made on first use, cannot be pickled.
        return {"connector": self.connector, "schema": self.schema}

    @cached_property
    def _validator(self) -> Draft202012Validator:
        # Imported here: it costs 60 ms, which a code location without pipelines need not pay.
        import jsonschema
        import referencing

        try:
            jsonschema.Draft202012Validator.check_schema(self.schema)
        except jsonschema.SchemaError as error:
            raise ConfigError(
                f"the manifest of connector {self.connector} holds no valid JSON Schema in config_schema",
                kind=Kind.CONNECTOR,
                detail=error.message,
            ) from error
        # An empty registry: a `$ref` to somewhere else must not make loading a file open connections.
        return jsonschema.Draft202012Validator(self.schema, registry=referencing.Registry())

    @property
    def properties(self) -> Mapping[str, Mapping[str, Any]]:
        found = self.schema.get("properties", {})
        return found if isinstance(found, Mapping) else {}

    def at(self, key: Key) -> Mapping[str, Any]:
        """The part of the schema that describes `key`; empty when it says nothing of it."""
        part: Any = self.schema
        for step in key:
            part = part.get("items") if isinstance(step, int) else part.get("properties", {}).get(step)
            if not isinstance(part, Mapping):
                return {}
        return part if isinstance(part, Mapping) else {}

    def is_secret(self, key: Key) -> bool:
        return any(self.at(key[:length]).get("writeOnly") is True for length in range(1, len(key) + 1))

    def default(self, name: str) -> Any:
        return self.properties.get(name, {}).get("default")

    def convert(self, key: Key, text: str) -> Any:
        """What came from the environment, as the type that the schema wants; `text` itself when it cannot be."""
        wanted = self.at(key).get("type")
        stripped = text.strip()
        if wanted == "boolean" and stripped.lower() in (*_TRUE, *_FALSE):
            return stripped.lower() in _TRUE
        if wanted not in ("integer", "number"):
            return text
        try:
            return int(stripped) if wanted == "integer" else float(stripped)
        except ValueError:
            return text

    def problems(self, values: Mapping[str, Any], *, environment: frozenset[Key] | None = None) -> list[SchemaProblem]:
        """What is wrong with `values`.

        Before resolution (`environment` is None) whatever still depends on `${…}` is left out. After it,
        `environment` names the keys whose values came from there: they are judged, and not shown.
        """
        from referencing.exceptions import Unresolvable

        found: dict[SchemaProblem, None] = {}
        mistyped: set[Key] = set()
        try:
            errors = sorted(self._validator.iter_errors(values), key=lambda error: error.validator != "type")
        except Unresolvable as unresolvable:
            raise ConfigError(
                f"the manifest of connector {self.connector} refers to a schema outside itself: {unresolvable.ref}",
                kind=Kind.CONNECTOR,
            ) from unresolvable
        for error in errors:
            key = tuple(error.absolute_path)
            if environment is None and _waits(error.instance) and not _judges_keys(error):
                continue
            if error.validator == "type":
                mistyped.add(key)
            elif key in mistyped:
                continue
            hidden = self.is_secret(key) or any(name[: len(key)] == key for name in environment or ())
            found.update(dict.fromkeys(_told(error, key, hidden)))
        told = {problem.key for problem in found}
        for key, value in _not_finite(values):
            if key not in told:
                shown = type_name(value) if self.is_secret(key) or key in (environment or ()) else describe(value)
                found[SchemaProblem(key, f"found {shown}; allowed: a finite number")] = None
        return list(found)


def _judges_keys(error: ValidationError) -> bool:
    """Whether the error holds whatever the values expand to: it is about a mapping's keys, or its being one."""
    return error.validator in _SHAPE_KEYWORDS and not isinstance(error.instance, str)


def _not_finite(value: Any, key: Key = ()) -> Iterator[tuple[Key, float]]:
    """Numbers of YAML that JSON, in which a connector gets its config, does not have."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _not_finite(part, (*key, name))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _not_finite(part, (*key, index))
    elif isinstance(value, float) and not isfinite(value):
        yield key, value


def _waits(value: Any) -> bool:
    """Whether anything in `value` depends on the environment."""
    if isinstance(value, str):
        return has_reference(value)
    if isinstance(value, Mapping):
        return any(_waits(part) for part in value.values())
    return isinstance(value, list) and any(_waits(part) for part in value)


def _told(error: ValidationError, key: Key, hidden: bool) -> Iterator[SchemaProblem]:
    instance: Any = error.instance
    wanted: Any = error.validator_value
    if error.validator == "required" and isinstance(instance, Mapping):
        for name in wanted:
            if name not in instance:
                yield SchemaProblem((*key, name), "required, but missing")
        return
    if (
        error.validator == "additionalProperties"
        and isinstance(instance, Mapping)
        and isinstance(error.schema, Mapping)
    ):
        known = list(error.schema.get("properties", {}))
        for name in instance:
            if name not in known:
                allowed = ", ".join(known) or "none"
                yield SchemaProblem((*key, name), f"unknown key; allowed: {allowed}{did_you_mean(name, known)}")
        return
    if error.validator == "dependentRequired" and isinstance(instance, Mapping):
        for name, needed in wanted.items():
            for other in needed if name in instance else ():
                if other not in instance:
                    yield SchemaProblem((*key, other), f"required because {name} is given, but missing")
        return
    found = type_name(instance) if hidden else describe(instance)
    if hidden and error.validator != "type":
        found = "a value that is not shown here"
    yield SchemaProblem(key, f"found {found}; allowed: {_allowed(error, hidden)}")


def _allowed(error: ValidationError, hidden: bool) -> str:
    wanted: Any = error.validator_value
    if error.validator == "type":
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        text = " or ".join(_TYPE_WORDS.get(name, str(name)) for name in names)
        scalar = isinstance(error.instance, (bool, int, float)) and "string" in names
        return text + (" (put it in quotes)" if scalar else "")
    if error.validator == "enum":
        choices = [str(value) for value in wanted]
        return ", ".join(choices) + ("" if hidden else did_you_mean(error.instance, choices))
    phrases = {
        "minimum": f"at least {wanted}",
        "maximum": f"at most {wanted}",
        "minLength": "a text that is not empty" if wanted == 1 else f"at least {wanted} characters",
        "maxLength": f"at most {wanted} characters",
        "pattern": f"a text that matches {wanted}",
        "const": str(wanted),
        "minProperties": f"at least {_counted(wanted, 'key')}",
        "maxProperties": f"at most {_counted(wanted, 'key')}",
        "minItems": f"at least {_counted(wanted, 'item')}",
        "maxItems": f"at most {_counted(wanted, 'item')}",
    }
    return phrases.get(str(error.validator), f"what {error.validator!r} in the connector's config schema says")


def _counted(number: Any, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
