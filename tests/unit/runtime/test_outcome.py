"""A verb's result: what breaks the ABI is told as such before anybody uses it."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Sandbox
from rapidbyte_dagster.runtime.outcome import Malformed, Reporter, parse_result

REPORTER = Reporter("a-source", Stage.SOURCE, Sandbox((), frozenset(), 64 * 1024 * 1024, None))


def test_a_result_is_its_ok_or_its_err() -> None:
    assert parse_result(b'{"ok": {"rows": 1}}') == ({"rows": 1}, {})
    assert parse_result(b'{"ok": null}') == ({}, {})
    assert parse_result(b'{"err": {"kind": "data", "message": "no"}}') == (None, {"kind": "data", "message": "no"})
    assert parse_result('{"ok": {"name": "\\ud83d\\ude00 ü"}}'.encode()) == ({"name": "\U0001f600 ü"}, {})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"ok": 1}',
        b'{"ok": {}, "err": {}}',
        b'{"err": {"kind": "data"}}',
        b'{"ok": {"x": NaN}}',
        b'{"ok": {"x": "\xff"}}',
        # Half of a pair: neither SQLite nor a terminal takes it.
        b'{"err": {"kind": "data", "message": "\\ud800"}}',
        b'{"ok": {"\\udc00": 1}}',
    ],
)
def test_a_result_of_another_shape_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        parse_result(text)


def test_an_sqlstate_is_five_characters_and_nothing_else() -> None:
    """It is shown beside the message: no place to hide a secret in."""
    told = {"kind": "auth", "message": "no"}
    assert REPORTER.guest_failed({**told, "sqlstate": "28P01"}).info.sqlstate == "28P01"
    for nonsense in ("hunter2 hunter2", "28p01", "", 28000, None):
        assert REPORTER.guest_failed({**told, "sqlstate": nonsense}).info.sqlstate is None
