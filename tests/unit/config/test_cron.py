"""The syntax of schedules."""

from __future__ import annotations

import pytest

from rapidbyte_dagster.config.cron import CronError, parse_cron


@pytest.mark.parametrize(
    "text",
    [
        "0 * * * *",
        "*/5 * * * *",
        "0 0 1 1 0",
        "59 23 31 12 7",
        "0,30 8-18 * * mon-fri",
        "0 0 L * *",
        "0 0 1 jan,DEC *",
        "10-50/10 * * * *",
        "  0  *  *  *  * ",
        "@daily",
        "@hourly",
    ],
)
def test_a_schedule_is_accepted(text: str) -> None:
    parse_cron(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("60 * * * *", "minute '60'"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of month '0'"),
        ("* * * 13 *", "month '13'"),
        ("* * * * 8", "day of week '8'"),
        ("* * * foo *", "month 'foo'"),
        ("30-10 * * * *", "runs backwards"),
        ("*/0 * * * *", "step"),
        ("1, * * * *", "minute ''"),
        ("*-5 * * * *", "minute '*-5'"),
        ("@never", "@never"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, told: str) -> None:
    with pytest.raises(CronError) as caught:
        parse_cron(text)
    assert told in str(caught.value)
