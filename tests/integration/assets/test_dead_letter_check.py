"""The check `dead_letters`: real Dagster runs of connectors that set rows aside."""

# No postponed annotations here: Dagster reads those of an op's function.

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster import RapidbyteResource, default_resources, rapidbyte_stream_asset
from tests.integration.assets.setting_aside import KEPT, TABLE, Stream, refused, replayed
from tests.integration.engine.written_destination import WrittenDestination, drift
from tests.integration.engine.written_source import WrittenSource, a_schema

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
KEY = dg.AssetCheckKey(dg.AssetKey(TABLE.split("/")), "dead_letters")
CHECK_ALONE = dg.AssetSelection.checks(KEY)
LOST = {"kind": "transient_network", "message": "the connection was lost"}


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Stream(tmp_path)


def evaluations(result: dg.ExecuteInProcessResult) -> list[dg.AssetCheckEvaluation]:
    return [
        data
        for event in result.all_events
        if isinstance(data := event.event_specific_data, dg.AssetCheckEvaluation) and data.check_name == KEY.name
    ]


def evaluation(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = evaluations(result)
    assert found.asset_key == KEY.asset_key
    return found


def metadata_of(found: dg.AssetCheckEvaluation) -> Mapping[str, Any]:
    return {name: value.value for name, value in found.metadata.items()}


def test_a_run_that_leaves_no_row_out_passes(stream: Stream) -> None:
    result = stream.run()
    assert result.success
    found = evaluation(result)
    assert found.passed
    assert found.description == "No row was left out of 100 rows."
    assert metadata_of(found) == {
        "run_id": result.run_id,
        "rows": 100,
        "left_out": 0,
        "left_out_percent": 0.0,
        "warn_above": "0",
    }


def test_one_row_warns_and_the_run_succeeds(stream: Stream) -> None:
    result = stream.run(refused("check"))
    assert result.success
    found = evaluation(result)
    assert (found.passed, found.severity) == (False, WARN)
    assert found.description == "1 of 100 rows left out (1.00%): 1 check. More than warn_above allows: 0."
    assert found.target_materialization_data is not None
    told = metadata_of(found)
    assert (told["rows"], told["left_out"], told["left_out_percent"]) == (99, 1, 1.0)
    assert told["categories"].splitlines()[2:] == ["| `check` | 1 |"]


def test_categories_are_counted_the_most_frequent_first(stream: Stream) -> None:
    found = evaluation(stream.run(refused("unique", "check", "not_null", "check")))
    assert found.description is not None
    assert found.description.startswith("4 of 100 rows left out (4.00%): 2 check, 1 not_null, 1 unique.")


def test_rows_that_are_only_counted_are_judged_as_well(stream: Stream) -> None:
    stream.on_data_error = "skip"
    stream.limits = {"fail_above": "2%"}
    result = stream.run(rejected=3)
    assert result.success
    found = evaluation(result)
    assert (found.passed, found.severity) == (False, ERROR)
    assert found.description == "3 of 100 rows left out (3.00%). More than fail_above allows: 2% of the run's rows."
    assert "categories" not in found.metadata


@pytest.mark.parametrize(
    ("limits", "options", "rows", "severity"),
    [
        ({"warn_above": 3}, {}, 3, None),
        ({"warn_above": 3}, {}, 4, WARN),
        ({"warn_above": "3%"}, {}, 3, None),
        ({"warn_above": "3%"}, {}, 4, WARN),
        ({"warn_above": 1, "fail_above": 3}, {}, 3, WARN),
        ({"warn_above": 1, "fail_above": 3}, {}, 4, ERROR),
        ({"fail_above": 3}, {"dead_letters": {"fail_above": 5}}, 4, WARN),
        ({"warn_above": 9}, {"dead_letters": {"fail_above": "9.5%"}}, 9, None),
        ({"warn_above": 9}, {"dead_letters": {"fail_above": "9.5%"}}, 10, ERROR),
    ],
)
def test_the_limits_of_the_file_decide(
    stream: Stream, limits: dict[str, Any], options: dict[str, Any], rows: int, severity: dg.AssetCheckSeverity | None
) -> None:
    stream.limits, stream.options = limits, options
    found = evaluation(stream.run(refused(*["check"] * rows)))
    assert (found.passed, None if found.passed else found.severity) == (severity is None, severity)


def test_each_run_is_judged_by_its_own_rows(stream: Stream) -> None:
    assert not evaluation(stream.run(refused("check"))).passed
    assert evaluation(stream.run()).passed


def test_a_run_that_fails_is_judged_by_what_it_had_committed(stream: Stream) -> None:
    result = stream.run(refused("check", "check"), failure=LOST)
    assert not result.success
    found = evaluation(result)
    assert (found.passed, found.severity) == (False, WARN)
    assert metadata_of(found)["left_out"] == 2
    order = [event.event_type_value for event in result.all_events]
    assert order.index("ASSET_CHECK_EVALUATION") < order.index("STEP_FAILURE")


def test_a_stream_that_leaves_no_row_out_has_no_such_check(stream: Stream) -> None:
    stream.on_data_error = "fail"
    result = stream.run()
    assert result.success
    assert evaluations(result) == []


def test_a_check_that_is_not_selected_says_nothing(stream: Stream) -> None:
    table = dg.AssetSelection.assets(KEY.asset_key).without_checks()
    result = stream.run(refused("check"), selection=table)
    assert result.success
    assert evaluations(result) == []
    assert evaluations(stream.look(KEPT)) == []


def test_alone_it_passes_where_no_run_was_yet(stream: Stream) -> None:
    found = evaluation(stream.look(CHECK_ALONE))
    assert found.passed
    assert found.description == "No run has moved rows yet. Dead letters that wait, of all runs: 0."


def test_alone_it_judges_the_last_run_and_says_which(stream: Stream) -> None:
    run = stream.run(refused("check", "unique"))
    result = stream.look(CHECK_ALONE)
    assert result.success
    assert result.get_asset_materialization_events() == []
    found = evaluation(result)
    assert (found.passed, found.severity) == (False, WARN)
    assert found.description is not None
    assert found.description.startswith(f"Last run `{run.run_id[:8]}`, begun 20")
    assert found.description.endswith(
        " UTC: 2 of 100 rows left out (2.00%): 1 check, 1 unique. Dead letters that wait, of all runs: 2."
        " More than warn_above allows (0): the last run and the dead letters that wait."
    )
    assert (metadata_of(found)["run_id"], metadata_of(found)["waiting_dead_letters"]) == (run.run_id, 2)


def test_alone_it_judges_letters_of_earlier_runs_that_wait(stream: Stream) -> None:
    stream.limits = {"warn_above": 1, "fail_above": "1%"}
    stream.run(refused("check", "check"))
    stream.run()
    found = evaluation(stream.look(CHECK_ALONE))
    assert (found.passed, found.severity) == (False, WARN)
    assert found.description is not None
    assert "no row was left out of 100 rows. Dead letters that wait, of all runs: 2." in found.description
    assert found.description.endswith("More than warn_above allows (1): the dead letters that wait.")


def test_alone_it_no_longer_holds_replayed_letters_against_their_run(stream: Stream) -> None:
    stream.limits = {"fail_above": "1%"}
    run = stream.run(refused("check", "check"))
    replayed(stream, run.run_id, 1)
    found = evaluation(stream.look(CHECK_ALONE))
    assert (found.passed, found.severity) == (False, WARN)
    assert found.description is not None
    assert "Of these, 1 still waits for a replay. Dead letters that wait, of all runs: 1." in found.description
    replayed(stream, run.run_id, 2)
    assert evaluation(stream.look(CHECK_ALONE)).passed


def test_alone_it_judges_rows_that_were_only_counted(stream: Stream) -> None:
    stream.on_data_error = "skip"
    stream.run(rejected=2)
    found = evaluation(stream.look(CHECK_ALONE))
    assert (found.passed, found.severity) == (False, WARN)
    assert found.description is not None
    assert found.description.endswith(
        "Dead letters that wait, of all runs: 0. More than warn_above allows (0): the last run."
    )


def test_the_other_check_alone_leaves_this_one_alone(stream: Stream) -> None:
    stream.run(refused("check"))
    compares = stream.pipeline(WrittenDestination(comparison=[drift()]), WrittenSource(description=[a_schema()]))
    other = dg.AssetSelection.checks(dg.AssetCheckKey(KEY.asset_key, "schema_drift"))
    result = stream.execute(compares, other)
    assert result.success
    assert evaluations(result) == []
    result = stream.execute(compares, other | CHECK_ALONE)
    assert result.success
    assert not evaluation(result).passed


def test_a_body_of_ones_own_passes_the_check_on(stream: Stream) -> None:
    stream.run(refused("check"))
    seen: list[Any] = []

    @rapidbyte_stream_asset(pipeline=stream.pipeline(), stream="users")
    def users(context: dg.AssetExecutionContext, rapidbyte: RapidbyteResource) -> Any:
        for result in rapidbyte.run(context):
            seen.append(result)
            yield result

    result = dg.materialize([users], selection=CHECK_ALONE, resources=default_resources(), raise_on_error=False)
    assert result.success
    assert [type(each) for each in seen] == [dg.AssetCheckResult]
    assert not evaluation(result).passed
