"""The `config` of a connector: opaque to everything but the connector, unresolved until a stream runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from rapidbyte_dagster.config.config_schema import ConfigSchema
from rapidbyte_dagster.config.problems import Key, Origin, Problem, raise_problems
from rapidbyte_dagster.config.secrets import labels
from rapidbyte_dagster.config.substitution import expand, has_reference, references, unescape


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A connector's config as the connector gets it, and what of it must never be shown."""

    values: Mapping[str, Any] = field(repr=False)
    variables: tuple[tuple[str, str], ...] = field(repr=False)
    """Name and value of each variable whose value must not be shown."""
    literals: frozenset[str] = field(repr=False)
    """Other values that must not be shown: those of the connector's secret keys."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """Every text that must not be shown, with what is shown instead."""
        return labels(self.variables, self.literals)


class ConnectorConfig:
    """Frozen; shows its keys and never a value. `get_static` reads what does not depend on the environment."""

    __slots__ = ("_origin", "_prefix", "_schema", "_values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values: Mapping[str, Any] = _copied(values)
        self._schema = ConfigSchema("", {})
        self._origin = Origin("", {})
        self._prefix: Key = ()

    def bind(self, schema: ConfigSchema, origin: Origin, prefix: Key) -> None:
        """Told once, by the loader: which schema judges it and where in which file it stands."""
        self._schema, self._origin, self._prefix = schema, origin, prefix

    def __repr__(self) -> str:
        return f"ConnectorConfig({', '.join(map(str, self._values))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConnectorConfig) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(sorted(map(str, self._values))))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that the file gives."""
        return tuple(self._values)

    def get_static(self, key: str) -> Any:
        """The value of a top-level `key`, or the connector's default for it.

        None when there is neither, when the value depends on the environment, and when it is a secret.
        """
        if self._schema.is_secret((key,)):
            return None
        if key not in self._values:
            return self._schema.default(key)
        value = self._values[key]
        if any(has_reference(text) for _, text in texts(value)):
            return None
        return _mapped(value, unescape)

    def fingerprint(self) -> str:
        """A hash (hex) that changes with the config as written; secrets take no part in it."""
        shown = {key: value for key, value in self._values.items() if not self._schema.is_secret((key,))}
        text = json.dumps(shown, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def resolve(self, environ: Mapping[str, str]) -> ResolvedConfig:
        """The config with every `${…}` replaced from `environ`, typed and complete with the connector's defaults.

        Raises ConfigError that names every missing variable, or else everything that does not fit the schema.
        """
        raise_problems(self._subject, self.missing(environ))
        resolved, problems = self.resolved(environ)
        raise_problems(self._subject, problems)
        return resolved

    def missing(self, environ: Mapping[str, str]) -> list[Problem]:
        return missing_variables(self._origin, self._texts(), environ)

    def resolved(self, environ: Mapping[str, str]) -> tuple[ResolvedConfig, list[Problem]]:
        """As `resolve`, but hands the problems over; every variable must be there (ask `missing`)."""
        from_environment: set[Key] = set()
        variables: dict[str, str] = {}
        literals: set[str] = set()

        def value_of(key: Key, text: str) -> Any:
            if not has_reference(text):
                return unescape(text)
            taken = [reference for reference in references(text) if reference.is_from(environ)]
            from_environment.add(key)
            expanded = expand(text, environ)
            # One of the words that the connector's documentation lists is no secret, wherever it came from.
            if expanded not in self._schema.at(key).get("enum", ()):
                variables.update((reference.name, environ[reference.name]) for reference in taken)
            return self._schema.convert(key, expanded)

        values = {name: _walked(value, (name,), value_of) for name, value in self._values.items()}
        for name in self._schema.properties:
            default = self._schema.default(name)
            if name not in values and default is not None:
                values[name] = default
        for key, value in leaves(values):
            if self._schema.is_secret(key) and isinstance(value, (str, int, float)) and not isinstance(value, bool):
                literals.add(str(value))
        problems = [
            self._origin.problem((*self._prefix, *problem.key), problem.message)
            for problem in self._schema.problems(values, environment=frozenset(from_environment))
        ]
        return ResolvedConfig(values, tuple(variables.items()), frozenset(literals)), problems

    @property
    def _subject(self) -> str:
        return self._origin.file or "the connector's config"

    def _texts(self) -> list[tuple[Key, str]]:
        return [((*self._prefix, *key), text) for key, text in texts(self._values)]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _from_file, serialization=core_schema.plain_serializer_function_ser_schema(repr)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "object"}


def _from_file(value: object) -> ConnectorConfig:
    if isinstance(value, ConnectorConfig):
        return value
    if not isinstance(value, Mapping):
        raise PydanticCustomError("not_allowed", "a mapping", {"allowed": "a mapping", "choices": []})
    return ConnectorConfig(value)


def missing_variables(origin: Origin, items: list[tuple[Key, str]], environ: Mapping[str, str]) -> list[Problem]:
    """A problem for each variable of each text in `items` that nothing gives a value."""
    return [
        origin.problem(
            key,
            f"environment variable {reference.name} is not set: set it, or write ${{{reference.name}:-default}}",
        )
        for key, text in items
        for reference in references(text)
        if reference.value(environ) is None
    ]


def leaves(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every scalar in `value`, with the way to it."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from leaves(part, (*key, name))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from leaves(part, (*key, index))
    else:
        yield key, value


def texts(value: Any) -> Iterator[tuple[Key, str]]:
    return ((key, leaf) for key, leaf in leaves(value) if isinstance(leaf, str))


def _walked(value: Any, key: Key, change: Callable[[Key, str], Any]) -> Any:
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, Mapping):
        return {name: _walked(part, (*key, name), change) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walked(part, (*key, index), change) for index, part in enumerate(value)]
    return value


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    return _walked(value, (), lambda _, text: change(text))


def _copied(value: Mapping[str, Any]) -> Mapping[str, Any]:
    copied = _mapped(value, lambda text: text)
    assert isinstance(copied, dict)
    return copied
