from __future__ import annotations

import threading
import time

from rapidbyte_dagster.engine import CancelToken


def test_pressing_calls_everyone_once() -> None:
    token, calls = CancelToken(), []
    token.on_cancel(lambda: calls.append("a"))
    forget = token.on_cancel(lambda: calls.append("b"))
    forget()
    token.cancel()
    token.cancel()
    assert calls == ["a"]
    assert token.cancelled
    assert token.wait(0)


def test_who_registers_too_late_is_called_at_once() -> None:
    token, calls = CancelToken(), []
    token.cancel()
    token.on_cancel(lambda: calls.append("late"))
    assert calls == ["late"]


def test_a_wait_ends_soon_after_the_button_is_pressed() -> None:
    token = CancelToken()
    threading.Timer(0.2, token.cancel).start()
    started = time.monotonic()
    assert token.wait(10)
    assert time.monotonic() - started < 1


def test_a_wait_ends_by_itself() -> None:
    assert not CancelToken().wait(0.05)
