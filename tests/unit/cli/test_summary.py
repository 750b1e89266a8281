from __future__ import annotations

from datetime import datetime, timezone

import pyarrow as pa
import pytest

from rapidbyte_dagster.cli.outcome import Outcome
from rapidbyte_dagster.cli.progress import summary
from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.errors import SourceError
from rapidbyte_dagster.state import Checkpoint


def an_outcome(stream: str, *, rejected: int = 0, dead_letters: int = 0) -> Outcome:
    result = StreamResult(
        stream=stream,
        rows=1000,
        bytes=4096,
        batches=1,
        seconds=2.0,
        attempts=1,
        retried=(),
        table=f"raw.{stream}",
        columns=(),
        primary_key=(),
        checkpoint=Checkpoint(
            pipeline="shop",
            stream=stream,
            sequence=1,
            rows=1000,
            bytes=4096,
            run_id="r",
            committed_at=datetime(2024, 1, 1, tzinfo=timezone.utc),
        ),
        arrow_schema=pa.schema([]),
        rejected=rejected,
        dead_letters=dead_letters,
    )
    return Outcome(stream, result, attempts=1)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_rows_that_are_not_in_the_table_are_told_beside_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Outcome("payments", error=SourceError("the table is gone"))
    summary("shop", [an_outcome("users", rejected=1200, dead_letters=1234), an_outcome("orders"), failed])
    told = capsys.readouterr().out
    assert "rejected" in told
    assert "dead letters" in told
    (users,) = (line for line in told.splitlines() if "users" in line)
    assert "1,200" in users
    assert "1,234" in users
    assert "failed" in told


def test_rows_that_are_all_kept_as_dead_letters_are_counted_once(capsys: pytest.CaptureFixture[str]) -> None:
    summary("shop", [an_outcome("users", rejected=2, dead_letters=2)])
    told = capsys.readouterr().out
    assert "dead letters" in told
    assert "rejected" not in told


def test_where_every_row_arrived_there_is_no_word_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    summary("shop", [an_outcome("users")])
    told = capsys.readouterr().out
    assert "rejected" not in told
    assert "dead letters" not in told


def test_json_has_both_counts_always() -> None:
    told = an_outcome("users", rejected=2, dead_letters=3).as_json()
    assert (told["rejected"], told["dead_letters"]) == (2, 3)
    failed = Outcome("users", error=SourceError("no")).as_json()
    assert (failed["rejected"], failed["dead_letters"]) == (0, 0)
