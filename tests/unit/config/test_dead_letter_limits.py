"""How many rows a run may leave out: as the file says it, and what that means for a run."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from rapidbyte_dagster.config import DeadLetterLimits
from rapidbyte_dagster.config.dead_letter_limits import Limit, Share
from tests.unit.config.pipeline_files import changed, load_text, only_problem, problems_in

USERS = "      columns: [id, email]\n"
"""Line 13: where the tests put the limits of the first stream."""


def text(destination: str = "", users: str = "", *, on_data_error: str = "dlq") -> str:
    """Line 14 has the stream's limits; or else line 24 the destination's."""
    after = f"  on_data_error: {on_data_error}\n" + (f"  dead_letters: {destination}\n" if destination else "")
    return changed((USERS, USERS + (f"      dead_letters: {users}\n" if users else "")), after=after)


def limits(folder: Path, destination: str = "", users: str = "") -> list[tuple[Limit | None, Limit | None]]:
    """`warn_above` and `fail_above` of each stream."""
    pipeline = load_text(folder, text(destination, users))
    found = [pipeline.dead_letter_limits(stream) for stream in pipeline.streams]
    return [(limit.warn_above, limit.fail_above) for limit in found]


def share(percent: str) -> Share:
    return Share(Decimal(percent))


@pytest.mark.parametrize("section", ["", "{}"])
def test_a_pipeline_that_says_nothing_warns_of_every_row_and_never_fails(tmp_path: Path, section: str) -> None:
    assert limits(tmp_path, section) == [(0, None), (0, None)]


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("0", 0),
        ("1_000", 1000),
        ("9007199254740992", 2**53),
        ("0%", share("0")),
        ("0.1%", share("0.1")),
        ("' 12.5 % '", share("12.5")),
        ("100%", share("100")),
    ],
)
def test_a_limit_is_a_number_of_rows_or_a_share_of_them(tmp_path: Path, written: str, means: Limit) -> None:
    assert limits(tmp_path, f"{{warn_above: 0, fail_above: {written}}}") == [(0, means)] * 2


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("-1", "the number -1"),
        ("0.5", "the number 0.5"),
        ("true", "the truth value true"),
        ("9007199254740993", "the number 9007199254740993"),
        ("100.1%", "'100.1%'"),
        ("-1%", "'-1%'"),
        ("many", "'many'"),
        ("'5'", "'5'"),
        ("'%'", "'%'"),
        ("[1]", "a list"),
    ],
)
@pytest.mark.parametrize("of_stream", [False, True])
def test_what_is_no_limit_is_one_error(tmp_path: Path, written: str, found: str, of_stream: bool) -> None:
    section = f"{{fail_above: {written}}}"
    told = only_problem(tmp_path, text(users=section) if of_stream else text(section))
    place = "14: source.streams[0]" if of_stream else "24: destination"
    assert told == (
        f"shop.yaml:{place}.dead_letters.fail_above: found {found}; allowed: a number of rows, or a share of the run's"
        " rows from 0% to 100% such as 0.1%"
    )


def test_a_streams_limits_come_before_the_destinations_key_by_key(tmp_path: Path) -> None:
    own = "{fail_above: 7}"
    assert limits(tmp_path, "{warn_above: 1%, fail_above: 2%}", own) == [
        (share("1"), 7),
        (share("1"), share("2")),
    ]
    assert limits(tmp_path, "{fail_above: 5}", "{warn_above: 3}") == [(3, 5), (0, 5)]


@pytest.mark.parametrize(
    ("destination", "users", "told"),
    [
        ("{warn_above: 6, fail_above: 5}", "", "24: destination.dead_letters.warn_above: warn_above (6)"),
        ("{warn_above: 2%, fail_above: 1.5%}", "", "24: destination.dead_letters.warn_above: warn_above (2%)"),
        ("{fail_above: 5}", "{warn_above: 6}", "14: source.streams[0].dead_letters.warn_above: warn_above (6)"),
        ("{warn_above: 6}", "{fail_above: 5}", "14: source.streams[0].dead_letters.fail_above: warn_above (6)"),
    ],
)
def test_a_warning_that_would_never_come_is_refused_once(
    tmp_path: Path, destination: str, users: str, told: str
) -> None:
    problem = only_problem(tmp_path, text(destination, users))
    assert problem.startswith(f"shop.yaml:{told} must not lie beyond fail_above (")


@pytest.mark.parametrize("section", ["{warn_above: 5, fail_above: 5}", "{warn_above: 6, fail_above: 5%}"])
def test_equal_limits_and_limits_of_two_kinds_are_fine(tmp_path: Path, section: str) -> None:
    assert load_text(tmp_path, text(section))


@pytest.mark.parametrize("on_data_error", ["fail", None])
def test_limits_are_refused_where_no_row_is_left_out(tmp_path: Path, on_data_error: str | None) -> None:
    written = text("{warn_above: 1}", "{warn_above: 1}", on_data_error="fail")
    if on_data_error is None:
        written = written.replace("  on_data_error: fail\n", "")
    told = "dead_letters: only for on_data_error: skip or dlq; where it is fail no row is left out"
    found = problems_in(tmp_path, written)
    assert [problem.split(": ", 1)[1] for problem in found] == [
        f"source.streams[0].{told}",
        f"destination.{told}",
    ]


def test_an_unknown_key_is_told_with_what_was_meant(tmp_path: Path) -> None:
    told = only_problem(tmp_path, text("{warn_over: 1}"))
    assert "dead_letters.warn_over: unknown key; allowed: warn_above, fail_above; did you mean 'warn_above'?" in told


@pytest.mark.parametrize(
    ("warn", "fail", "rows", "of", "exceeded"),
    [
        (0, None, 0, 100, None),
        (0, None, 1, 100, "warn"),
        (0, None, 1, None, "warn"),
        (1, 2, 2, 100, "warn"),
        (1, 2, 3, 100, "fail"),
        (2, 2, 3, 100, "fail"),
        (share("1"), share("10"), 1, 100, None),
        (share("1"), share("10"), 2, 100, "warn"),
        (share("1"), share("10"), 11, 100, "fail"),
        (share("0"), None, 1, 10**12, "warn"),
        (share("0"), None, 0, 0, None),
        (share("100"), None, 5, 5, None),
        (share("1"), share("10"), 99, None, None),
        (share("0.1"), None, 10**15, 10**18, None),
        (share("0.1"), None, 10**15 + 1, 10**18, "warn"),
    ],
)
def test_a_limit_is_exceeded_by_more_than_it_and_exactly(
    warn: Limit, fail: Limit | None, rows: int, of: int | None, exceeded: str | None
) -> None:
    assert DeadLetterLimits(warn_above=warn, fail_above=fail).exceeded(rows, of=of) == exceeded
