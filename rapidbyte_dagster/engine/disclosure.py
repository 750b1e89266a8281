"""Errors as they may be shown: with their stream, without secrets."""

from __future__ import annotations

from dataclasses import replace

from rapidbyte_dagster.config import Redactor
from rapidbyte_dagster.errors import ConfigError, RapidbyteError


def told(error: RapidbyteError, redactor: Redactor, stream: str | None) -> RapidbyteError:
    """A copy of `error` that may be shown. Raise it outside of the `except` that caught `error`: the original, with its
    secrets, would be its context."""
    info = error.info.with_context(stream=stream)
    shown = type(error).from_info(
        replace(
            info,
            message=redactor.redact(info.message),
            detail=redactor.redact(info.detail) if info.detail else None,
            hint=redactor.redact(info.hint) if info.hint else None,
            sqlstate=redactor.redact(info.sqlstate) if info.sqlstate else None,
        )
    )
    if isinstance(error, ConfigError) and isinstance(shown, ConfigError):
        shown.problems = tuple(map(redactor.redact, error.problems))
    return shown
