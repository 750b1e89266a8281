from __future__ import annotations

import json
from typing import Any

import pytest

from rapidbyte_dagster.state import cursor_text, shortened


@pytest.mark.parametrize(
    ("cursor", "text"),
    [
        (
            {"field": "updated_at", "type": "timestamptz", "value": "2024-01-02 03:04:05+00"},
            "updated_at = 2024-01-02 03:04:05+00",
        ),
        ({"field": "id", "value": 7, "seen": ["x" * 10_000]}, "id = 7"),
        ({"field": "id", "value": None}, "id = null"),
        ({"lsn": "0/16B3748", "commit_ts": 1}, "lsn = 0/16B3748"),
        (["ü", 1], '["ü", 1]'),
        ("x", '"x"'),
        (None, "none"),
    ],
)
def test_a_cursor_reads_as_its_field_and_value_or_else_as_its_json(cursor: Any, text: str) -> None:
    assert cursor_text(cursor) == text


@pytest.mark.parametrize(
    "cursor",
    [
        {"field": "f" * 9999, "value": "v" * 9999},
        {"lsn": "x" * 9999},
        [list(range(9999))] * 9999,
        {str(number): "x" * 9999 for number in range(9999)},
    ],
)
def test_a_long_cursor_is_told_in_short(cursor: Any) -> None:
    assert len(cursor_text(cursor)) < 500
    assert len(json.dumps(shortened(cursor))) < 10_000


def test_what_is_left_out_of_a_shortened_cursor_is_counted() -> None:
    told = shortened({"value": "7", "seen": list(range(100)), "text": "x" * 300})
    assert told == {"value": "7", "seen": [*range(20), "… 80 more"], "text": "x" * 200 + "… (300 characters)"}


def test_a_deep_cursor_is_no_trouble() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert len(json.dumps(shortened(deep))) < 100


def test_a_short_cursor_stays_as_it_is() -> None:
    cursor = {"field": "id", "type": "int8", "value": "7", "seen": [[1, 7]]}
    assert shortened(cursor) == cursor
