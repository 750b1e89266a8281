from __future__ import annotations

import pytest

from rapidbyte_dagster.assets.failure import failure_from
from rapidbyte_dagster.errors import ConfigError, Kind, SourceError


def test_a_failure_tells_the_message_and_its_parts() -> None:
    error = SourceError(
        'password authentication failed for user "etl"',
        kind=Kind.AUTH,
        stream="users",
        sqlstate="28P01",
        hint="check `user` and `password`",
    )
    failure = failure_from(error)
    assert failure.description == str(error)
    assert {name: value.value for name, value in failure.metadata.items()} == {
        "kind": "auth",
        "stage": "source",
        "stream": "users",
        "sqlstate": "28P01",
        "hint": "check `user` and `password`",
    }


@pytest.mark.parametrize("kind", list(Kind))
def test_dagster_may_retry_exactly_what_is_worth_another_try(kind: Kind) -> None:
    assert failure_from(SourceError("no", kind=kind)).allow_retries is kind.retryable


def test_a_configuration_failure_lists_every_problem() -> None:
    failure = failure_from(ConfigError("2 problems", problems=["a is missing", "b is not set"]))
    assert failure.metadata["problems"].value == ["a is missing", "b is not set"]
