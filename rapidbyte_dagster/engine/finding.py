"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass

from rapidbyte_dagster.config import Redactor
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.errors import RapidbyteError, Stage
from rapidbyte_dagster.state import SchemaChange


@dataclass(frozen=True)
class Finding:
    """One thing that a check looked at."""

    stage: Stage
    level: str
    """ok, warning or error."""
    check: str
    message: str
    stream: str | None = None
    hint: str | None = None
    exit_code: int = 0
    """What a run that hit this would exit with; 0 unless `level` is error."""
    change: SchemaChange | None = None
    """What a run would find and do, where the finding is a difference between the stream and its table."""

    @classmethod
    def of_error(
        cls, error: RapidbyteError, redactor: Redactor, *, stage: Stage, check: str, stream: str | None = None
    ) -> Finding:
        """What was looked at failed."""
        shown = told(error, redactor, None)
        text = shown.info.message + (f" (SQLSTATE {shown.info.sqlstate})" if shown.info.sqlstate else "")
        return cls(stage, "error", check, text, stream=stream, hint=shown.hint, exit_code=shown.exit_code)
