"""A step that looks at its run's status: it believes what it has seen twice."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from rapidbyte_dagster.assets import run_watch
from rapidbyte_dagster.assets.run_watch import watched
from rapidbyte_dagster.engine import CancelToken


@pytest.mark.parametrize(
    ("looks", "pressed"),
    [
        ([False, False, True, True], True),
        ([False, True], False),
        ([True, False, True, False], False),
    ],
)
def test_the_stream_is_stopped_when_two_looks_in_a_row_find_the_run_terminated(
    monkeypatch: pytest.MonkeyPatch, looks: Iterable[bool], pressed: bool
) -> None:
    monkeypatch.setattr(run_watch, "LOOK_SECONDS", 0.01)
    left, cancel = list(looks), CancelToken()
    with watched(lambda: left.pop(0) if left else False, cancel):
        deadline = time.monotonic() + 5
        while left and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
    assert not left
    assert cancel.cancelled is pressed


def test_nobody_looks_any_more_when_the_step_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_watch, "LOOK_SECONDS", 0.01)
    looked: list[float] = []

    def look() -> bool:
        looked.append(time.monotonic())
        return False

    with watched(look, CancelToken()):
        time.sleep(0.1)
    ended = time.monotonic()
    time.sleep(0.1)
    assert looked
    assert looked[-1] <= ended
