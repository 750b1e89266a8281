from __future__ import annotations

import pytest

from rapidbyte_dagster import errors
from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, Stage, error_from

EXIT_CODES = {
    errors.ConfigError: 2,
    errors.SchemaError: 3,
    errors.SourceError: 4,
    errors.DestinationError: 5,
    errors.StateError: 6,
    errors.RunCancelled: 7,
    errors.UsageError: 64,
    errors.InternalError: 70,
}


@pytest.mark.parametrize(("cls", "code"), EXIT_CODES.items())
def test_every_leaf_has_its_exit_code(cls: type[RapidbyteError], code: int) -> None:
    assert cls.exit_code == code


@pytest.mark.parametrize(
    ("kind", "stage", "cls"),
    [
        (Kind.AUTH, Stage.SOURCE, errors.SourceError),
        (Kind.AUTH, Stage.DESTINATION, errors.DestinationError),
        (Kind.SCHEMA, Stage.DESTINATION, errors.SchemaError),
        (Kind.CONFIG, Stage.SOURCE, errors.ConfigError),
        (Kind.UNSUPPORTED, Stage.SOURCE, errors.ConfigError),
        (Kind.CANCELLED, Stage.SOURCE, errors.RunCancelled),
        (Kind.STATE, Stage.DESTINATION, errors.StateError),
        (Kind.DATA, None, errors.InternalError),
    ],
)
def test_the_kind_decides_where_it_can_and_else_the_stage(
    kind: Kind, stage: Stage | None, cls: type[RapidbyteError]
) -> None:
    error = error_from(ErrorInfo(kind=kind, stage=stage, message="m", hint="h", sqlstate="00000"))
    assert type(error) is cls
    assert (error.kind, error.hint, error.info.sqlstate) == (kind, "h", "00000")


@pytest.mark.parametrize(
    ("stage", "cls"), [(Stage.SOURCE, errors.SourceError), (Stage.DESTINATION, errors.DestinationError)]
)
def test_what_a_database_reports_is_never_a_bug_of_ours(stage: Stage, cls: type[RapidbyteError]) -> None:
    assert type(error_from(ErrorInfo(kind=Kind.INTERNAL, stage=stage, message="m", sqlstate="P0001"))) is cls
    assert type(error_from(ErrorInfo(kind=Kind.INTERNAL, stage=stage, message="m"))) is errors.InternalError


def test_lines_of_a_detail_stay_below_their_label() -> None:
    error = errors.SourceError("m", kind=Kind.DATA, detail="one\n\nCaused by:\n    two\n", hint="h\n")
    assert str(error) == "source: m [data]\n  detail: one\n    Caused by:\n        two\n  hint: h"


def test_an_error_reads_as_where_what_detail_and_hint() -> None:
    error = errors.SourceError(
        "password authentication failed", kind=Kind.AUTH, stream="users", detail="d", hint="check it", sqlstate="28P01"
    )
    assert str(error) == (
        "stream 'users' source: password authentication failed (SQLSTATE 28P01) [auth]\n  detail: d\n  hint: check it"
    )


def test_context_is_added_but_never_overwritten() -> None:
    info = ErrorInfo(kind=Kind.DATA, message="m", stage=Stage.SOURCE)
    told = info.with_context(stage=Stage.DESTINATION, stream="users")
    assert (told.stage, told.stream) == (Stage.SOURCE, "users")


def test_a_bug_is_told_with_the_lines_it_came_from() -> None:
    try:
        raise KeyError("rows")
    except KeyError as error:
        failure = errors.bug(error, stage=Stage.SOURCE, stream="users")
    assert failure.exit_code == 70
    assert "KeyError: 'rows'" in str(failure)
    assert "test_errors.py:" in (failure.info.detail or "")
    assert "report it" in (failure.hint or "")
