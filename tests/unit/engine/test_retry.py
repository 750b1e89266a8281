from __future__ import annotations

import pytest

from rapidbyte_dagster.engine.retry import LONGEST_WAIT_SECONDS, RetryPolicy
from rapidbyte_dagster.errors import Kind, SourceError


@pytest.mark.parametrize("kind", [Kind.TRANSIENT_NETWORK, Kind.TRANSIENT_DB, Kind.RATE_LIMIT])
def test_transient_errors_are_tried_again_up_to_the_limit(kind: Kind) -> None:
    policy = RetryPolicy(max_retries=2)
    error = SourceError("gone", kind=kind)
    assert policy.wait_before_retry(error, 1) is not None
    assert policy.wait_before_retry(error, 2) is not None
    assert policy.wait_before_retry(error, 3) is None


@pytest.mark.parametrize("kind", [kind for kind in Kind if not kind.retryable])
def test_errors_that_would_come_back_are_not_tried_again(kind: Kind) -> None:
    assert RetryPolicy(max_retries=9).wait_before_retry(SourceError("no", kind=kind), 1) is None


def test_waits_stay_between_nothing_and_the_longest() -> None:
    policy = RetryPolicy(max_retries=100)
    error = SourceError("gone", kind=Kind.TRANSIENT_DB)
    waits = [policy.wait_before_retry(error, attempt) for attempt in range(1, 60) for _ in range(20)]
    assert all(wait is not None and 0 <= wait <= LONGEST_WAIT_SECONDS for wait in waits)
    assert max(wait or 0 for wait in waits) > LONGEST_WAIT_SECONDS / 2


def test_streams_that_failed_together_do_not_wait_the_same_time() -> None:
    policy = RetryPolicy(max_retries=1)
    error = SourceError("gone", kind=Kind.TRANSIENT_DB)
    assert len({policy.wait_before_retry(error, 1) for _ in range(20)}) > 1
