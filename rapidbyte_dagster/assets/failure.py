"""This package's errors as Dagster shows them: one message, its parts as metadata, no traceback of ours."""

from __future__ import annotations

import dagster as dg

from rapidbyte_dagster.errors import ConfigError, RapidbyteError


def failure_from(error: RapidbyteError) -> dg.Failure:
    """A failure to raise outside of any `except`, so that Dagster prints no chain of causes behind it.

    Dagster's own retry policy applies only to errors that are worth another try.
    """
    info = error.info
    metadata: dict[str, str | list[str]] = {"kind": str(info.kind)}
    for name, value in (
        ("stage", info.stage),
        ("stream", info.stream),
        ("sqlstate", info.sqlstate),
        ("detail", info.detail),
        ("hint", info.hint),
    ):
        if value:
            metadata[name] = str(value)
    if isinstance(error, ConfigError) and error.problems:
        metadata["problems"] = list(error.problems)
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=error.retryable)
