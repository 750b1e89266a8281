"""Bytes and seconds as people read them."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB")


def bytes_text(count: int) -> str:
    """`0 bytes`, `42.0 kB`, `1.5 GB`: by steps of 1,024."""
    if abs(count) < 1024:
        return f"{count:,} byte{'' if count == 1 else 's'}"
    size = float(count)
    for unit in _UNITS:
        size /= 1024
        if abs(size) < 1024 or unit == _UNITS[-1]:
            break
    return f"{size:,.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """`7 s`, `2 min`, `1 min 30 s`, `3 h 5 min`: at most two units, the smaller one left out where it is zero."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < 24 * 3600:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // 86400, "d", whole % 86400 // 3600, "h")


def _two(count: int, unit: str, rest: int, smaller: str) -> str:
    return f"{count} {unit} {rest} {smaller}" if rest else f"{count} {unit}"
