"""One problem of a file, and many of them as one error.

pipelines/shop.yaml:12: source.streams[0].sync_mode: found 'full_refesh'; allowed: full_refresh, …; did you mean …?
└ file              └ line └ key                     └ message
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.errors import ConfigError, Kind

Key = tuple[str | int, ...]
"""Where a value sits: mapping keys and list indexes from the root of the file."""

_SHOWN_CHARACTERS = 60
"""How much of a found value an error repeats."""


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    line: int | None
    key: Key
    message: str
    kind: Kind = Kind.CONFIG

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {dotted(self.key)}: {self.message}" if self.key else f"{place}: {self.message}"


@dataclass(frozen=True)
class Origin:
    """The file that values came from, and the lines of their keys, for errors found after loading."""

    file: str
    lines: Mapping[Key, int]

    def problem(self, key: Key, message: str) -> Problem:
        return Problem(self.file, self.line(key), key, message)

    def line(self, key: Key) -> int | None:
        """The line of `key`, or of the nearest key above that the file holds."""
        for length in range(len(key), -1, -1):
            if key[:length] in self.lines:
                return self.lines[key[:length]]
        return None


def dotted(key: Key) -> str:
    """`source.streams[0].name`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def describe(value: Any) -> str:
    """A found value, short, with its type where the text alone does not tell it."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "an empty list" if not value else "a list"
    if isinstance(value, (int, float)):
        return f"the number {_shortened(str(value))}"
    return _shortened(repr(value))


def type_name(value: Any) -> str:
    """The type of a value that must not be shown."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a number" if isinstance(value, (int, float)) else "a text"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def did_you_mean(found: object, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a near miss, else nothing."""
    if not isinstance(found, str):
        return ""
    by_lower = {choice.lower(): choice for choice in choices}
    wanted = found.lower().replace("-", "_")
    near = difflib.get_close_matches(wanted, by_lower, n=1, cutoff=0.6)
    near = near or difflib.get_close_matches(found.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def raise_problems(subject: str, problems: Sequence[Problem]) -> None:
    """Raises the one ConfigError that tells them all, in the file's order; returns when there are none."""
    if not problems:
        return
    ordered = sorted(problems, key=lambda problem: (problem.file, problem.line or 0))
    texts = list(dict.fromkeys(str(problem) for problem in ordered))
    count = "1 problem" if len(texts) == 1 else f"{len(texts)} problems"
    only_unsupported = all(problem.kind is Kind.UNSUPPORTED for problem in problems)
    raise ConfigError(
        f"{count} in {subject}",
        problems=texts,
        kind=Kind.UNSUPPORTED if only_unsupported else Kind.CONFIG,
        detail="\n    ".join(texts),
    )
