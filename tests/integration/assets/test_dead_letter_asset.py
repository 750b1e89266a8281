"""The asset `…/dlq` as it is shown and loaded: real Dagster runs of connectors that set rows aside."""

# No postponed annotations here: Dagster reads those of an op's function.

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from rapidbyte_dagster import (
    DeadLetters,
    DlqIOManager,
    RapidbyteResource,
    default_resources,
    rapidbyte_stream_asset,
)
from rapidbyte_dagster.state.dead_letters import DEAD_LETTER_SCHEMA
from tests.integration.assets.setting_aside import KEPT, TABLE, Stream, refused
from tests.unit.state.samples import a_checkpoint, a_letter

DLQ = dg.AssetKey(KEPT[0].split("/"))
REPORT = "report"


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Stream(tmp_path)


def with_selection(stream: Stream, selection: Any) -> None:
    stream.resources = {**default_resources(), "rapidbyte_dlq_io_manager": DlqIOManager(selection=selection)}


class Report:
    """A downstream asset that keeps what it loads."""

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        @dg.asset(name=REPORT, ins={"letters": dg.AssetIn(DLQ, metadata=dict(metadata or {}))})
        def report(letters: pa.Table) -> None:
            self.tables.append(letters)

        self.tables: list[pa.Table] = []
        self.asset = report

    def messages(self) -> list[str]:
        """Of the table that was loaded last."""
        return [str(message) for message in self.tables[-1]["error_message"].to_pylist()]


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the dead letters' materialisation."""
    assert result.success
    (found,) = result.asset_materializations_for_node("shop__users")[-1:]
    assert found.asset_key == DLQ
    return {name: value.value for name, value in found.metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult, step: str) -> Any:
    (event,) = [event for event in result.get_step_failure_events() if event.step_key == step]
    return event.step_failure_data.user_failure_data


def test_counts_are_there_with_nothing_too_so_that_they_plot(stream: Stream) -> None:
    assert told(stream.run()) == {
        "dead_letters": 0,
        "new_dead_letters": 0,
        "waiting_dead_letters": 0,
        "categories": "There are none.",
        "newest": "There are none.",
    }


def test_each_category_that_occurs_is_counted_in_all_and_of_the_run(stream: Stream) -> None:
    stream.run(refused("check", "check", "unique"))
    found = told(stream.run(refused("check", "not_null")))
    counts = {name: value for name, value in found.items() if isinstance(value, int)}
    assert counts == {
        "dead_letters": 5,
        "new_dead_letters": 2,
        "waiting_dead_letters": 5,
        "dead_letters_check": 3,
        "new_dead_letters_check": 1,
        "dead_letters_not_null": 1,
        "new_dead_letters_not_null": 1,
        "dead_letters_unique": 1,
        "new_dead_letters_unique": 0,
    }
    assert found["categories"].splitlines() == [
        "| category | of this run | in all |",
        "| --- | --- | --- |",
        "| `check` | 1 | 3 |",
        "| `not_null` | 1 | 1 |",
        "| `unique` | 0 | 1 |",
    ]


def test_the_newest_ten_are_shown_newest_first(stream: Stream) -> None:
    stream.run(refused(*["check"] * 9, message="old"))
    found = told(stream.run(refused("unique", "check", message="new")))
    header, _, *rows = found["newest"].splitlines()
    assert header == "| failed at | category | message | column | row |"
    assert [row.split(" | ")[2] for row in rows] == ["new 2", "new 1", *(f"old {n}" for n in range(9, 1, -1))]
    assert rows[1].endswith('| `unique` | new 1 |  | `{"id":1}` |')


def test_a_preview_keeps_its_table_and_its_size_whatever_the_rows_hold(stream: Stream) -> None:
    record = '{"id":"' + "x" * 1_000_000 + '"}'
    with stream.state() as state:
        letters = [a_letter("a|b\n" + "m" * 500, record=record), a_letter(record='{"a":"`|`<b>"}')]
        state.add_dead_letters("shop", "users", letters, run_id="run", sequence=1)
        state.prepare(a_checkpoint(1, cursor={"id": 1}, dead_letters=2))
        state.finalise("shop", "users", 1)
    found = told(stream.look(KEPT))
    assert len(found["newest"]) < 2000
    _, _, short, long = found["newest"].splitlines()
    assert short.endswith('| ``{"a":"`\\|`<b>"}`` |')
    assert "| a\\|b m" in long
    assert long.endswith("x… (1,000,009 characters)` |")


def test_alone_it_shows_the_store_again_and_counts_nothing_as_new(stream: Stream) -> None:
    stream.run(refused("check"))
    found = told(stream.look(KEPT))
    assert (found["dead_letters"], found["new_dead_letters"], found["dead_letters_check"]) == (1, 0, 1)
    assert "no 1" in found["newest"]


def test_an_input_loads_the_whole_history_as_a_table(stream: Stream) -> None:
    report = Report()
    stream.run(refused("check", message="first"))
    stream.run(refused("check", message="second"), report.asset, selection=[TABLE, *KEPT, REPORT])
    assert report.tables[-1].schema == DEAD_LETTER_SCHEMA
    assert report.messages() == ["first 1", "second 1"]


def test_an_input_of_a_stream_without_dead_letters_is_an_empty_table(stream: Stream) -> None:
    report = Report()
    assert stream.look([REPORT], report.asset).success
    with_selection(stream, "run")
    assert stream.look([REPORT], report.asset).success
    assert [(table.num_rows, table.schema) for table in report.tables] == [(0, DEAD_LETTER_SCHEMA)] * 2


def test_the_runs_own_dead_letters_are_a_choice_of_the_io_manager(stream: Stream) -> None:
    with_selection(stream, "run")
    report = Report()
    stream.run(refused("check", message="first"))
    result = stream.run(refused("check", message="second"), report.asset, selection=[TABLE, *KEPT, REPORT])
    assert report.messages() == ["second 1"]
    found = told(result)
    assert (found["dead_letters"], found["new_dead_letters"]) == (2, 1)
    assert "second 1" in found["newest"]
    assert "first 1" not in found["newest"]
    stream.run((), report.asset, selection=[TABLE, *KEPT, REPORT])
    assert report.messages() == []


def test_a_run_that_moves_nothing_loads_what_the_last_one_left_out(stream: Stream) -> None:
    with_selection(stream, "run")
    report = Report()
    stream.run(refused("check", message="first"))
    stream.run(refused("check", message="second"))
    assert stream.look([REPORT], report.asset).success
    assert report.messages() == ["second 1"]
    assert stream.look([*KEPT, REPORT], report.asset).success
    assert report.messages() == ["second 1"]


@pytest.mark.parametrize("name", ["rapidbyte/run_id", "run_id"])
def test_an_input_may_name_the_run(stream: Stream, name: str) -> None:
    first = stream.run(refused("check", message="first"))
    stream.run(refused("check", message="second"))
    report = Report({name: first.run_id})
    assert stream.look([REPORT], report.asset).success
    assert report.messages() == ["first 1"]


@pytest.mark.parametrize(
    ("selection", "asked", "loaded"),
    [("all", "latest", ["second 1"]), ("run", "all", ["first 1", "second 1"])],
)
def test_an_input_may_choose_otherwise_than_the_io_manager(
    stream: Stream, selection: str, asked: str, loaded: list[str]
) -> None:
    with_selection(stream, selection)
    stream.run(refused("check", message="first"))
    stream.run(refused("check", message="second"))
    report = Report({"rapidbyte/run_id": asked})
    assert stream.look([REPORT], report.asset).success
    assert report.messages() == loaded


@pytest.mark.parametrize(
    ("metadata", "message", "hint"),
    [
        ({"run_id": "nothing"}, "of run 'nothing', and the state store knows no such run", "the newest are "),
        ({"run_id": 5}, "of what is no run: run_id: 5", "is the id of one run, `latest`, or `all`"),
        ({"run_id": " "}, "of what is no run: run_id: ' '", "is the id of one run"),
        ({"run_id": "a", "rapidbyte/run_id": "b"}, "of what is no run: rapidbyte/run_id: 'b', run_id: 'a'", "of one"),
    ],
)
def test_an_input_that_names_no_run_fails_and_says_why(
    stream: Stream, metadata: dict[str, Any], message: str, hint: str
) -> None:
    run = stream.run(refused("check"))
    failure = failure_of(stream.look([REPORT], Report(metadata).asset), REPORT)
    assert message in failure.description
    assert hint in failure.metadata["hint"].value
    assert run.run_id in failure.metadata["hint"].value or "nothing" not in message


def test_a_selection_that_is_none_is_refused_when_the_definitions_load() -> None:
    with pytest.raises(ValueError, match="Input should be 'all' or 'run'"):
        DlqIOManager(selection="newest")  # type: ignore[arg-type]


def test_a_body_sees_the_dead_letters_before_they_are_read(stream: Stream) -> None:
    run = stream.run(refused("check", "unique"))
    seen: list[Any] = []

    @rapidbyte_stream_asset(pipeline=stream.pipeline(), stream="users")
    def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
        for result in rapidbyte.run(context):
            assert isinstance(result, dg.MaterializeResult)
            seen.append(result.value)
            yield result

    assert dg.materialize([users], selection=KEPT, resources=default_resources()).success
    (letters,) = seen
    assert isinstance(letters, DeadLetters)
    assert letters.run_id is None
    assert letters.table().num_rows == 2
    assert [page.num_rows for page in letters.pages(run.run_id)] == [2]
    assert letters.table("another").num_rows == 0


def test_pages_are_bounded_however_many_dead_letters_there_are(stream: Stream) -> None:
    with stream.state() as state:
        letters = [a_letter(f"no {number}") for number in range(2500)]
        state.add_dead_letters("shop", "users", letters, run_id="run", sequence=1)
        state.prepare(a_checkpoint(1, dead_letters=2500))
        state.finalise("shop", "users", 1)
    pipeline = stream.pipeline()
    pages = list(DeadLetters(pipeline, pipeline.streams[0]).pages())
    assert [page.num_rows for page in pages] == [1000, 1000, 500]
    assert pa.concat_tables(pages)["error_message"].to_pylist() == [f"no {number}" for number in range(2500)]


def test_a_value_of_ones_own_is_refused_and_never_taken_for_the_dead_letters(stream: Stream) -> None:
    stream.run(refused("check"))

    @rapidbyte_stream_asset(pipeline=stream.pipeline(), stream="users")
    def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
        for result in rapidbyte.run(context):
            assert isinstance(result, dg.MaterializeResult)
            yield dg.MaterializeResult(asset_key=result.asset_key, value=result.value.table())

    result = dg.materialize([users], selection=KEPT, resources=default_resources(), raise_on_error=False)
    failure = failure_of(result, "shop__users")
    assert "was given a value of type Table, and no dead letters" in failure.description
