"""This package's errors as Dagster shows them: one message, its parts as metadata, no traceback of ours."""

from __future__ import annotations

from collections.abc import Mapping

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


def failure_of_streams(errors: Mapping[str, RapidbyteError]) -> dg.Failure:
    """One failure for the streams of a step that have failed, at least one: each with its own message."""
    distinct = list(dict.fromkeys(errors.values()))
    if len(distinct) == 1:
        return failure_from(distinct[0])
    told = "\n".join(str(error) for error in distinct)
    metadata: dict[str, str | list[str]] = {
        "kind": ", ".join(dict.fromkeys(str(error.info.kind) for error in distinct)),
        "streams": list(errors),
    }
    return dg.Failure(
        description=f"{len(errors)} streams failed:\n{told}",
        metadata=metadata,
        allow_retries=any(error.retryable for error in distinct),
    )
