"""Where a run starts, for every way in which destination and state store can disagree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.engine.start import Start, StartFinder, StartingPoint
from rapidbyte_dagster.state import Checkpoint, RunRecord, StateStore, Watermark
from rapidbyte_dagster.state.sqlite import SqliteStateStore
from tests.pipelines import make_pipeline

NOWHERE = {"host": "db.example", "user": "u", "database": "d"}
CURSOR = {"field": "at", "value": "2024-01-01"}
INCREMENTAL = {"name": "users", "sync_mode": "incremental", "cursor_field": "at"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqliteStateStore]:
    with SqliteStateStore(tmp_path / "state.db") as store:
        yield store


def checkpoint(sequence: int, run_id: str = "before", cursor: Any = None) -> Checkpoint:
    return Checkpoint(
        pipeline="shop",
        stream="users",
        sequence=sequence,
        cursor=cursor,
        rows=10,
        bytes=100,
        run_id=run_id,
        committed_at=datetime.now(timezone.utc),
    )


def remember(
    state: StateStore,
    sequence: int,
    *,
    run_id: str = "before",
    cursor: Any = None,
    status: str = "ok",
    anew_after: int | None = None,
) -> None:
    """A checkpoint that was committed, and how its run ended."""
    state.prepare(checkpoint(sequence, run_id, cursor).model_copy(update={"anew_after": anew_after}))
    state.finalise("shop", "users", sequence)
    started = datetime.now(timezone.utc)
    state.record_run(RunRecord(run_id=run_id, pipeline="shop", stream="users", status=status, started_at=started))


def pipeline(folder: Path, stream: str | dict[str, Any] = "users", write_mode: str = "append") -> Pipeline:
    return make_pipeline(folder, NOWHERE, NOWHERE, [stream], write_mode=write_mode)


def find(
    pipeline: Pipeline,
    state: StateStore,
    watermark: Watermark | None,
    *,
    start: Start = Start.RESUME,
    in_doubt: int | None = None,
    repeats: Sequence[str] = (),
    lines: list[str] | None = None,
) -> StartingPoint:
    def say(level: int, line: str) -> None:
        if lines is not None:
            lines.append(line)

    finder = StartFinder(pipeline, pipeline.streams[0], start, state=state, run_id="now", on_log=say, repeats=repeats)
    return finder.find(watermark, in_doubt=in_doubt)


def committed(sequence: int, *, run_id: str = "before", cursor: Any = None, final: bool = True) -> Watermark:
    return Watermark(sequence=sequence, cursor=cursor, run_id=run_id, final=final)


def test_a_stream_that_never_ran_starts_from_the_beginning(tmp_path: Path, state: StateStore) -> None:
    assert find(pipeline(tmp_path, INCREMENTAL), state, None) == StartingPoint(0, None, "any", None)


def test_an_incremental_stream_resumes_and_wants_its_table(tmp_path: Path, state: StateStore) -> None:
    remember(state, 3, cursor=CURSOR)
    point = find(pipeline(tmp_path, INCREMENTAL), state, committed(3, cursor=CURSOR))
    assert point == StartingPoint(3, CURSOR, "must_exist", None)


def test_the_destination_is_followed_when_the_state_store_is_empty(tmp_path: Path, state: StateStore) -> None:
    point = find(pipeline(tmp_path, INCREMENTAL), state, committed(7, cursor=CURSOR))
    assert point == StartingPoint(7, CURSOR, "must_exist", None)


def test_a_destination_that_was_restored_is_followed_and_told_of(tmp_path: Path, state: StateStore) -> None:
    remember(state, 9, cursor={"value": "later"})
    lines: list[str] = []
    point = find(pipeline(tmp_path, INCREMENTAL), state, committed(5, cursor=CURSOR), lines=lines)
    assert (point.sequence, point.cursor) == (9, CURSOR)
    assert "at checkpoint 5 and the state store at 9" in lines[0]


@pytest.mark.parametrize(("write_mode", "target"), [("append", "must_not_exist"), ("upsert", "any")])
def test_a_destination_without_its_watermark_is_appended_to_only_where_there_is_no_table(
    tmp_path: Path, state: StateStore, write_mode: str, target: str
) -> None:
    remember(state, 9, cursor=CURSOR)
    point = find(pipeline(tmp_path, INCREMENTAL, write_mode), state, None)
    assert point == StartingPoint(9, None, target, None)


def test_a_full_refresh_has_no_cursor_even_if_one_is_stored(tmp_path: Path, state: StateStore) -> None:
    remember(state, 3, cursor=CURSOR)
    assert find(pipeline(tmp_path), state, committed(3, cursor=CURSOR)) == StartingPoint(3, None, "any", None)


@pytest.mark.parametrize("start", [Start.RESET, Start.FULL_REFRESH])
def test_a_run_may_forget_the_cursor(tmp_path: Path, state: StateStore, start: Start) -> None:
    remember(state, 3, cursor=CURSOR)
    point = find(pipeline(tmp_path, INCREMENTAL), state, committed(3, cursor=CURSOR), start=start)
    assert point == StartingPoint(3, None, "any", None)


def test_what_a_reset_run_has_committed_itself_is_not_forgotten_by_its_next_attempt(
    tmp_path: Path, state: StateStore
) -> None:
    remember(state, 4, run_id="now", cursor=CURSOR, status="running")
    mark = committed(4, run_id="now", cursor=CURSOR, final=False)
    assert find(pipeline(tmp_path, INCREMENTAL), state, mark, start=Start.RESET).cursor == CURSOR


@pytest.mark.parametrize("status", ["running", "failed", "cancelled"])
def test_an_interrupted_append_that_was_committed_is_completed(tmp_path: Path, state: StateStore, status: str) -> None:
    remember(state, 3, status=status)
    lines: list[str] = []
    point = find(pipeline(tmp_path), state, committed(3), lines=lines)
    assert point.completes is not None
    assert (point.completes.sequence, point.completes.run_id, point.completes.rows) == (3, "before", 10)
    assert "was interrupted after it had committed its 10 rows" in lines[0]


def test_a_prepared_checkpoint_that_the_watermark_knows_is_completed_too(tmp_path: Path, state: StateStore) -> None:
    started = datetime.now(timezone.utc)
    state.record_run(RunRecord(run_id="before", pipeline="shop", stream="users", status="running", started_at=started))
    state.prepare(checkpoint(3))
    assert find(pipeline(tmp_path), state, committed(3)).completes is not None


def test_an_append_that_ended_well_is_followed_by_another_one(tmp_path: Path, state: StateStore) -> None:
    remember(state, 3)
    assert find(pipeline(tmp_path), state, committed(3)).completes is None


def test_a_run_that_another_state_store_knows_is_taken_to_have_ended(tmp_path: Path, state: StateStore) -> None:
    """Its prepared checkpoint has the number of the other's commit, and did not happen."""
    started = datetime.now(timezone.utc)
    state.record_run(RunRecord(run_id="before", pipeline="shop", stream="users", status="running", started_at=started))
    state.prepare(checkpoint(3))
    assert find(pipeline(tmp_path), state, committed(3, run_id="elsewhere")).completes is None
    assert state.checkpoints("shop", "users") == []


@pytest.mark.parametrize(("stream", "write_mode"), [("users", "replace"), ("users", "upsert"), (INCREMENTAL, "append")])
def test_what_can_be_done_again_without_harm_is_done_again(
    tmp_path: Path, state: StateStore, stream: str | dict[str, Any], write_mode: str
) -> None:
    remember(state, 3, status="running", cursor=CURSOR)
    assert find(pipeline(tmp_path, stream, write_mode), state, committed(3, cursor=CURSOR)).completes is None


def test_a_reset_does_not_complete_the_run_before(tmp_path: Path, state: StateStore) -> None:
    remember(state, 3, status="running")
    assert find(pipeline(tmp_path), state, committed(3), start=Start.RESET).completes is None


def test_a_run_that_is_executed_again_under_its_own_id_is_not_repeated(tmp_path: Path, state: StateStore) -> None:
    remember(state, 3, run_id="now")
    assert find(pipeline(tmp_path), state, committed(3, run_id="now")).completes is not None
    incremental = find(pipeline(tmp_path, INCREMENTAL), state, committed(3, run_id="now"))
    assert incremental.completes is None


def test_an_attempt_whose_last_commit_is_in_doubt_is_settled_in_every_mode(tmp_path: Path, state: StateStore) -> None:
    remember(state, 3, run_id="now", status="running")
    mark = committed(3, run_id="now")
    for number, write_mode in enumerate(["append", "replace", "upsert"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert find(pipeline(folder, "users", write_mode), state, mark, in_doubt=3).completes is not None
    assert find(pipeline(tmp_path), state, committed(2), in_doubt=3).completes is None


@pytest.mark.parametrize("write_mode", ["replace", "upsert"])
def test_a_commit_of_an_earlier_execution_of_the_run_settles_none_that_is_in_doubt(
    tmp_path: Path, state: StateStore, write_mode: str
) -> None:
    remember(state, 3, run_id="now")
    mark = committed(3, run_id="now")
    assert find(pipeline(tmp_path, "users", write_mode), state, mark, in_doubt=4).completes is None


def test_a_reset_that_takes_up_a_failed_one_forgets_nothing_that_it_committed(
    tmp_path: Path, state: StateStore
) -> None:
    remember(state, 3, cursor=CURSOR, status="failed")
    stream, mark = pipeline(tmp_path, INCREMENTAL), committed(3, cursor=CURSOR, final=False)
    assert find(stream, state, mark, start=Start.RESET).cursor is None
    assert find(stream, state, mark, start=Start.RESET, repeats=["earlier", "before"]).cursor == CURSOR
    assert find(stream, state, mark, start=Start.RESET, repeats=["earlier"]).cursor is None


def test_a_reset_that_takes_up_an_interrupted_append_completes_it(tmp_path: Path, state: StateStore) -> None:
    remember(state, 3, status="running")
    assert find(pipeline(tmp_path), state, committed(3), start=Start.RESET).completes is None
    completes = find(pipeline(tmp_path), state, committed(3), start=Start.RESET, repeats=["before"]).completes
    assert completes is not None
    assert completes.sequence == 3


# Whether all that the source has is read


@pytest.mark.parametrize(("write_mode", "anew_after"), [("append", None), ("replace", None), ("upsert", 3)])
def test_a_full_refresh_that_merges_reads_everything_anew(
    tmp_path: Path, state: StateStore, write_mode: str, anew_after: int | None
) -> None:
    remember(state, 3)
    assert find(pipeline(tmp_path, "users", write_mode), state, committed(3)).anew_after == anew_after


def test_a_full_refresh_that_is_taken_up_again_begins_anew(tmp_path: Path, state: StateStore) -> None:
    """What its attempt before has told of is read once more."""
    remember(state, 3)
    remember(state, 4, run_id="now", anew_after=3, status="running")
    point = find(pipeline(tmp_path, "users", "upsert"), state, committed(4, run_id="now", final=False))
    assert (point.cursor, point.anew_after) == (None, 4)


@pytest.mark.parametrize(("start", "anew_after"), [(Start.RESUME, None), (Start.RESET, 3), (Start.FULL_REFRESH, None)])
def test_an_incremental_stream_is_merged_anew_only_by_a_reset(
    tmp_path: Path, state: StateStore, start: Start, anew_after: int | None
) -> None:
    """A full refresh replaces its table."""
    remember(state, 3, cursor=CURSOR)
    point = find(pipeline(tmp_path, INCREMENTAL, "upsert"), state, committed(3, cursor=CURSOR), start=start)
    assert point.anew_after == anew_after


@pytest.mark.parametrize(
    ("run_id", "final", "began", "anew_after"),
    [
        ("now", False, 2, 2),
        ("retried", False, 2, 2),
        ("now", False, None, None),
        ("now", True, 2, None),
        ("before", False, 2, None),
    ],
)
def test_an_attempt_that_goes_on_from_its_own_commit_began_where_that_began(
    tmp_path: Path, state: StateStore, run_id: str, final: bool, began: int | None, anew_after: int | None
) -> None:
    remember(state, 3, run_id=run_id, cursor=CURSOR, anew_after=began)
    watermark = committed(3, run_id=run_id, cursor=CURSOR, final=final)
    point = find(pipeline(tmp_path, INCREMENTAL, "upsert"), state, watermark, repeats=["retried"])
    assert (point.cursor, point.anew_after) == (CURSOR, anew_after)
