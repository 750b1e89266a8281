from __future__ import annotations

import pytest

from rapidbyte_dagster.config import WriteMode
from rapidbyte_dagster.engine.fate import Fate, with_fate
from rapidbyte_dagster.errors import DestinationError, Kind

LOST = DestinationError("the connection was lost", kind=Kind.TRANSIENT_NETWORK, detail="reset by peer")


def test_an_error_after_a_rollback_is_as_it_was() -> None:
    assert with_fate(LOST, Fate.ROLLED_BACK, WriteMode.APPEND) is LOST
    assert LOST.retryable


@pytest.mark.parametrize("fate", [Fate.UNKNOWN, Fate.COMMITTED])
def test_what_may_be_in_the_table_is_told_and_only_a_replace_may_be_repeated(fate: Fate) -> None:
    append, replace = (with_fate(LOST, fate, mode) for mode in (WriteMode.APPEND, WriteMode.REPLACE))
    assert type(append) is DestinationError
    assert append.info.detail is not None
    assert append.info.detail.startswith("reset by peer; ")
    assert "adds them again" in append.info.detail
    assert "adds them again" not in str(replace)
    assert not append.retryable
    assert replace.retryable
