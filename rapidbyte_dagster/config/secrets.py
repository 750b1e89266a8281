"""Keeping secrets out of whatever a person or a log gets to see."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
SHORT_SECRET_CHARACTERS = 4
"""A secret shorter than this occurs inside ordinary words: it is replaced only where it stands alone."""


class Redactor:
    """Replaces secrets in texts, in the forms in which they tend to show up: plain, quoted for a URL, in JSON.

    `secrets` may say by what: a variable's value is shown as `${NAME}`, which tells where to look and nothing else.
    """

    __slots__ = ("_labels", "_pattern")

    def __init__(self, secrets: Iterable[str] | Mapping[str, str]) -> None:
        labelled = secrets if isinstance(secrets, Mapping) else dict.fromkeys(secrets, REDACTED)
        self._labels = {form: label for secret, label in labelled.items() if secret for form in _forms(secret)}
        # Longest first: a secret that begins another one must not leave the other's rest readable.
        ordered = sorted(self._labels, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(_expression, ordered))) if ordered else None

    def __repr__(self) -> str:
        return "Redactor()"

    def redact(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._labels[found.group()], text)


def labels(variables: Iterable[tuple[str, str]], literals: Iterable[str]) -> dict[str, str]:
    """What stands for each secret: `${NAME}` for a variable's value, `[redacted]` for any other.

    `variables` are pairs of a name and its value; two variables of one value give both names. Empty values are no
    secrets.
    """
    names: dict[str, list[str]] = {}
    for name, value in variables:
        if name not in names.setdefault(value, []):
            names[value].append(name)
    shown = dict.fromkeys(literals, REDACTED)
    shown.update((value, "|".join(f"${{{name}}}" for name in found)) for value, found in names.items())
    shown.pop("", None)
    return shown


def _forms(secret: str) -> set[str]:
    forms = {
        secret,
        secret.strip(),
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        secret.replace("'", "''"),
    }
    # A secret of many lines (a key) is often shown line by line.
    forms.update(line.strip() for line in secret.splitlines() if len(line.strip()) >= SHORT_SECRET_CHARACTERS)
    return {form for form in forms if form}


def _expression(form: str) -> str:
    if len(form) >= SHORT_SECRET_CHARACTERS:
        return re.escape(form)
    return rf"(?<!\w){re.escape(form)}(?!\w)"
