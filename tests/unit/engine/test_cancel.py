from __future__ import annotations

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
