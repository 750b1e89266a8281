"""Text as Dagster's UI renders it: Markdown of GitHub's flavour, whatever the values hold.

Names, types and messages come from databases: a pipe, a backtick or a tag in one of them must not change the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timezone

_LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
# What begins a span, a tag, a reference or the address of a link. An underscore inside a word means nothing, and most
# names have one: escaped, they would be hard to read where Dagster logs the same text as it is.
_MEANINGFUL = re.compile(r"[\\`*~]|(?<![^\W_])_|_(?![^\W_])|<(?=\S)|&(?=#?\w+;)|\](?=\()")
_PIPE = re.compile(r"(\\*)\|")


def plain(text: str) -> str:
    """`text` as it reads, on one line and inside of it."""
    return _MEANINGFUL.sub(r"\\\g<0>", _one_line(text))


def code(text: str) -> str:
    """`text` in the letters of code, on one line; nothing for no text."""
    line = _one_line(text)
    if not line:
        return ""
    # The fence is longer than any run of backticks inside; Markdown takes one space off both ends of what is padded.
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def time(at: datetime) -> str:
    """To the second, in UTC."""
    return f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown of one line each."""
    names = list(header)
    lines = [_row(names), "|" + " --- |" * len(names)]
    return "\n".join(lines + [_row(row) for row in rows])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_PIPE.sub(_escaped_pipe, cell) for cell in cells) + " |"


def _escaped_pipe(found: re.Match[str]) -> str:
    """A pipe that ends no cell: one behind an odd number of backslashes, also inside of code."""
    backslashes = found[1]
    return backslashes + ("\\|" if len(backslashes) % 2 == 0 else "\\\\|")


def _one_line(text: str) -> str:
    return _LINE_BREAKS.sub(" ", text)
