"""Durations on the command line, written as in the pipeline file."""

from __future__ import annotations

import click
from pydantic import TypeAdapter, ValidationError

from rapidbyte_dagster.config.values import Duration


class DurationText(click.ParamType[int]):
    """Seconds, from 30s, 5m or 2h."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return TypeAdapter[int](Duration).validate_python(value)
        except ValidationError:
            self.fail(f"{value!r} is no duration; allowed: a whole number with s, m or h, such as 30s, 5m or 2h")
