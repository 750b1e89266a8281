from __future__ import annotations

import pytest

from rapidbyte_dagster.engine.fate import Fate, with_fate
from rapidbyte_dagster.errors import DestinationError, Kind

LOST = DestinationError("the connection was lost", kind=Kind.TRANSIENT_NETWORK, detail="reset by peer")


def test_an_error_after_a_rollback_is_as_it_was() -> None:
    assert with_fate(LOST, Fate.ROLLED_BACK) is LOST


@pytest.mark.parametrize("fate", [Fate.UNKNOWN, Fate.COMMITTED])
def test_rows_that_may_be_in_the_table_are_told_and_the_stream_may_run_again(fate: Fate) -> None:
    failure = with_fate(LOST, fate)
    assert type(failure) is DestinationError
    assert failure.info.detail is not None
    assert failure.info.detail.startswith("reset by peer; ")
    assert "next run" in failure.info.detail
    assert failure.retryable
