from __future__ import annotations

from rapidbyte_dagster.config import Redactor
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.errors import ConfigError, Kind, SourceError

REDACTOR = Redactor(["hunter2"])


def test_every_part_of_an_error_is_redacted_and_its_class_stays() -> None:
    error = SourceError(
        "hunter2 is wrong", kind=Kind.AUTH, detail="tried hunter2", hint="not hunter2", sqlstate="hunter2"
    )
    shown = told(error, REDACTOR, "users")
    assert type(shown) is SourceError
    assert shown.kind is Kind.AUTH
    assert shown.info.stream == "users"
    assert "hunter2" not in f"{shown} {shown!r} {shown.args} {shown.info}"


def test_the_problems_of_a_file_are_kept() -> None:
    shown = told(ConfigError("2 problems", problems=("a: hunter2", "b")), REDACTOR, None)
    assert isinstance(shown, ConfigError)
    assert shown.problems == ("a: [redacted]", "b")
