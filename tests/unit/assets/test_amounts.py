from __future__ import annotations

import pytest

from rapidbyte_dagster.assets.amounts import bytes_text, seconds_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1536, "1.5 kB"),
        (64 * 1024**2, "64.0 MB"),
        (10 * 1024**3, "10.0 GB"),
        (5000 * 1024**4, "5,000.0 TB"),
    ],
)
def test_bytes_are_told_by_their_largest_unit(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (90, "1 min 30 s"),
        (900, "15 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86400 * 2 + 3600, "2 d 1 h"),
    ],
)
def test_seconds_are_told_by_two_units_at_most(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
