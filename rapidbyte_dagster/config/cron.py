"""The syntax of a cron schedule: five fields, or one of the `@` names.

┌ minute 0-59   ┌ hour 0-23   ┌ day of month 1-31   ┌ month 1-12 or jan-dec   ┌ day of week 0-7 or sun-sat
*/5             *             *                     *                         mon-fri
"""

from __future__ import annotations

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_NAMED = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_ITEM = re.compile(r"(?P<first>\*|[0-9]+|[a-z]+)(-(?P<last>[0-9]+|[a-z]+))?(/(?P<step>[0-9]+))?")


class CronError(ValueError):
    """Says which field is wrong and how."""


def parse_cron(text: str) -> None:
    """Returns when `text` is a cron schedule; raises CronError otherwise."""
    if text.startswith("@"):
        if text not in _NAMED:
            raise CronError(f"{text} is none of {', '.join(_NAMED)}")
        return
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        raise CronError(f"it has {len(fields)} fields")
    for field, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        for item in field.split(","):
            _check_item(item, name, low, high, words)


def _check_item(item: str, name: str, low: int, high: int, words: tuple[str, ...]) -> None:
    if item == "l" and name == "day of month":
        return
    match = _ITEM.fullmatch(item)
    if match is None or (match["first"] == "*" and match["last"] is not None):
        raise CronError(f"the {name} {item!r} is not a number, a range, a list or *")
    numbers = [
        _number(part, name, low, high, words) for part in (match["first"], match["last"]) if part not in (None, "*")
    ]
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        raise CronError(f"the {name} {item!r} runs backwards")
    if match["step"] is not None and not 1 <= int(match["step"]) <= high:
        raise CronError(f"the step of the {name} {item!r} is not from 1 to {high}")


def _number(part: str, name: str, low: int, high: int, words: tuple[str, ...]) -> int:
    if part in words:
        return words.index(part) + low
    if not part.isdigit() or not low <= int(part) <= high:
        raise CronError(f"the {name} {part!r} is not from {low} to {high}")
    return int(part)
