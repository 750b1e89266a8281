"""`${NAME}`, `${NAME:-default}` and `$${` in a text.

    text       = { "$${" | reference | any character }
    reference  = "${" NAME [ ":-" default ] "}"
    NAME       = letter or _, then letters, digits and _
    default    = anything up to the next "}"

`$${` stands for a literal `${`. As in a shell, the default is taken when the variable is missing or empty. What a
reference expands to is never looked at again, so a secret that holds `${X}` arrives as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_TOKEN = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\})?")


@dataclass(frozen=True, slots=True)
class Reference:
    """One `${NAME}` of a text; `default` is None when there is none."""

    name: str
    default: str | None

    def value(self, environ: Mapping[str, str]) -> str | None:
        """What it expands to, or None when nothing gives it a value."""
        found = environ.get(self.name)
        if self.default is None:
            return found
        return found or self.default

    def is_from(self, environ: Mapping[str, str]) -> bool:
        """Whether the value is the environment's and not the default."""
        return bool(environ.get(self.name)) or (self.default is None and self.name in environ)


def has_reference(text: str) -> bool:
    """Whether `text` depends on the environment (or means to: a malformed reference counts)."""
    return any(match[0] != "$${" for match in _TOKEN.finditer(text))


def malformed_reference(text: str) -> str | None:
    """The part of `text` that opens a reference without being one, if there is such a part."""
    for match in _TOKEN.finditer(text):
        if match[0] == "${":
            end = text.find("}", match.end())
            return text[match.start() : end + 1 if end >= 0 else match.start() + 2]
    return None


def references(text: str) -> Iterator[Reference]:
    for match in _TOKEN.finditer(text):
        if match["name"] is not None:
            default = match["default"]
            yield Reference(match["name"], None if default is None else default[2:])


def without_references(text: str) -> str:
    """What of `text` stands in the file itself; each reference leaves a space."""
    return _TOKEN.sub(lambda match: "${" if match[0] == "$${" else " ", text)


def unescape(text: str) -> str:
    """`text`, which holds no reference, with every `$${` as the `${` it stands for."""
    return text.replace("$${", "${")


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with each reference replaced, once. Every reference must have a value: look with `references` first."""

    def replacement(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "${"
        default = match["default"]
        value = Reference(match["name"], None if default is None else default[2:]).value(environ)
        assert value is not None, f"{match['name']} has no value"
        return value

    return _TOKEN.sub(replacement, text)
