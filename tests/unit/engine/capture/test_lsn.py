"""Places in the write-ahead log, as PostgreSQL prints them."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.engine.capture.lsn import cursor_at, format_lsn, origin_of, parse_lsn, position_of


@pytest.mark.parametrize(("text", "number"), [("0/0", 0), ("0/16B3748", 0x16B3748), ("FFFFFFFF/FFFFFFFF", 2**64 - 1)])
def test_an_lsn_is_a_number(text: str, number: int) -> None:
    assert parse_lsn(text) == number
    assert format_lsn(number) == text
    assert position_of(cursor_at(number, None)) == number


def test_a_cursor_tells_what_the_table_was() -> None:
    assert cursor_at(1, None) == {"lsn": "0/1"}
    assert origin_of(cursor_at(1, "16385.16400.16401")) == "16385.16400.16401"
    assert origin_of(cursor_at(1, None)) is origin_of({"origin": 5}) is origin_of(None) is None


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/123456789", "x/0", "0/0 ", "0/0\n"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no LSN"):
        parse_lsn(text)


@pytest.mark.parametrize("cursor", [None, 5, "0/0", {}, {"lsn": 5}, {"lsn": "zero"}, {"updated_at": "0/0"}])
def test_a_cursor_of_another_kind_is_no_position(cursor: object) -> None:
    assert position_of(cursor) is None
