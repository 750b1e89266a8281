"""One bad row among many, from a pipeline file to the destination's table and the state store's dead letters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.errors import DestinationError, Kind, RapidbyteError
from rapidbyte_dagster.state import open_state
from rapidbyte_dagster.state.sql import SqlStateStore
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database
from tests.recovery.proxy import Moment, Proxy

ROWS = 10_000
BAD = 7_777

SOURCE = f"""
    CREATE TABLE sales (id bigint PRIMARY KEY, amount numeric(12,2), note text);
    INSERT INTO sales SELECT i, CASE WHEN i = {BAD} THEN -12.50 ELSE i / 100.0 END, 'no. ' || i
    FROM generate_series(1, {ROWS}) i
"""
TARGET = """
    CREATE SCHEMA raw;
    CREATE TABLE raw.sales (
        id bigint {key}, amount numeric(12,2) CONSTRAINT positive CHECK (amount >= 0), note text
    );
"""
FULL_REFRESH = {"sync_mode": "full_refresh"}
INCREMENTAL = {"sync_mode": "incremental", "cursor_field": "id"}
MODES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "append": ("append", FULL_REFRESH),
    "replace": ("replace", FULL_REFRESH),
    "upsert": ("upsert", FULL_REFRESH),
    "incremental append": ("append", INCREMENTAL),
    "incremental upsert": ("upsert", INCREMENTAL),
}
EACH_MODE = pytest.mark.parametrize("mode", MODES)
SOME_MODES = pytest.mark.parametrize(
    "mode",
    [
        pytest.param(mode, marks=[] if mode in ("append", "incremental upsert") else [pytest.mark.full])
        for mode in MODES
    ],
)


@dataclass(frozen=True)
class Sales:
    """The stream from `sales` to `raw.sales`, which refuses one of its rows."""

    folder: Path
    source: Database
    destination: Database

    def pipeline(
        self,
        mode: str,
        on_data_error: str,
        *,
        config: Mapping[str, Any] | None = None,
        stream: Mapping[str, Any] | None = None,
        **resources: Any,
    ) -> Pipeline:
        write_mode, section = MODES[mode]
        return make_pipeline(
            self.folder,
            self.source,
            config or self.destination,
            [{"name": "sales", **section, **(stream or {})}],
            write_mode=write_mode,
            destination_section={"on_data_error": on_data_error},
            resources={"max_retries": 0, **resources},
        )

    def count(self) -> int:
        """Rows of the table."""
        return int(self.destination.fetch_value("SELECT count(*) FROM raw.sales"))

    def has_bad_row(self) -> bool:
        return bool(self.destination.fetch_value("SELECT count(*) FROM raw.sales WHERE id = %s", [BAD]))


@pytest.fixture
def sales(tmp_path: Path, source_db: Database, destination_db: Database) -> Sales:
    source_db.execute(SOURCE)
    destination_db.execute(TARGET.format(key=""))
    return Sales(tmp_path, source_db, destination_db)


def letters(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Those that count."""
    with open_state(pipeline, {}) as state:
        return state.dead_letters("shop", "sales").to_pylist()


def letters_in_all(pipeline: Pipeline) -> int:
    """Those that do not count included."""
    with open_state(pipeline, {}) as state:
        assert isinstance(state, SqlStateStore)
        [(count,)] = state._read("SELECT count(*) FROM _rapidbyte_dlq", ())
    return int(count)


@EACH_MODE
def test_without_leave_to_do_otherwise_one_bad_row_keeps_all_out(sales: Sales, mode: str) -> None:
    pipeline = sales.pipeline(mode, "fail", checkpoint_interval_rows=0)
    with pytest.raises(DestinationError, match="positive") as caught:
        run(pipeline)
    assert caught.value.kind is Kind.DATA
    assert (sales.count(), letters_in_all(pipeline)) == (0, 0)
    with open_state(pipeline, {}) as state:
        assert state.checkpoints("shop", "sales") == []
        [record] = state.runs("shop", "sales")
    assert (record.status, record.rows, record.rejected, record.dead_letters) == ("failed", 0, 0, 0)


@pytest.mark.parametrize("mode", ["incremental append", "incremental upsert"])
def test_without_leave_to_do_otherwise_one_bad_row_keeps_out_what_came_since_the_last_checkpoint(
    sales: Sales, mode: str
) -> None:
    pipeline = sales.pipeline(mode, "fail", checkpoint_interval_rows=1_000, max_batch_bytes="64kb")
    with pytest.raises(DestinationError, match="positive"):
        run(pipeline)
    with open_state(pipeline, {}) as state:
        checkpoints = state.checkpoints("shop", "sales")
    assert len(checkpoints) >= 2
    assert sales.count() == sum(checkpoint.rows for checkpoint in checkpoints) < BAD
    assert sales.destination.fetch_value("SELECT max(id) FROM raw.sales") == sales.count(), "and there is no gap"


@EACH_MODE
def test_a_row_that_is_skipped_is_counted_and_all_others_are_there(sales: Sales, mode: str) -> None:
    pipeline = sales.pipeline(mode, "skip")
    lines: list[str] = []
    result = run(pipeline, on_log=lambda level, message: lines.append(message))
    assert (result.rows, result.rejected, result.dead_letters) == (ROWS - 1, 1, 0)
    assert (sales.count(), sales.has_bad_row(), letters_in_all(pipeline)) == (ROWS - 1, False, 0)
    assert [line for line in lines if "positive" in line], lines
    with open_state(pipeline, {}) as state:
        [record] = state.runs("shop", "sales")
        assert sum(checkpoint.rejected for checkpoint in state.checkpoints("shop", "sales")) == 1
    assert (record.status, record.rows, record.rejected, record.dead_letters) == ("ok", ROWS - 1, 1, 0)


@EACH_MODE
def test_a_row_that_is_kept_is_one_dead_letter_and_all_others_are_there(sales: Sales, mode: str) -> None:
    pipeline = sales.pipeline(mode, "dlq")
    result = run(pipeline)
    assert (result.rows, result.rejected, result.dead_letters) == (ROWS - 1, 1, 1)
    assert (sales.count(), sales.has_bad_row(), letters_in_all(pipeline)) == (ROWS - 1, False, 1)
    [letter] = letters(pipeline)
    assert json.loads(letter["record_json"]) == {"id": BAD, "amount": "-12.50", "note": f"no. {BAD}"}
    assert json.loads(letter["types_json"]) == {"id": "bigint", "amount": "numeric(12,2)", "note": "text"}
    assert (letter["error_category"], letter["sqlstate"]) == ("check", "23514")
    assert (letter["constraint_name"], letter["stage"]) == ("positive", "destination")
    assert (letter["pipeline_name"], letter["stream_name"]) == ("shop", "sales")
    assert letter["checkpoint_sequence"] == result.checkpoint.sequence or mode.startswith("incremental")
    assert letter["replayed_by_run"] is None


@EACH_MODE
def test_the_next_run_tells_of_the_rows_that_it_brought_and_of_no_others(sales: Sales, mode: str) -> None:
    pipeline = sales.pipeline(mode, "dlq")
    run(pipeline)
    [first] = letters(pipeline)
    result = run(pipeline)
    again = letters(pipeline)
    assert again[0] == first
    assert letters_in_all(pipeline) == len(again)
    if mode.startswith("incremental"):
        assert (result.rows, result.rejected, result.dead_letters) == (0, 0, 0)
        assert len(again) == 1
        assert sales.count() == ROWS - 1
    else:
        assert (result.rows, result.rejected, result.dead_letters) == (ROWS - 1, 1, 1)
        assert [letter["record_json"] for letter in again] == [first["record_json"]] * 2
        assert again[1]["run_id"] == result.checkpoint.run_id != first["run_id"]
        assert sales.count() == (2 * (ROWS - 1) if mode == "append" else ROWS - 1)


@pytest.mark.parametrize("mode", ["replace", "upsert", "incremental upsert"])
def test_a_row_that_was_mended_at_the_source_is_there_after_the_next_run(sales: Sales, mode: str) -> None:
    """And its dead letter is still what happened."""
    sales.source.execute(
        "ALTER TABLE sales ADD version bigint; UPDATE sales SET version = id;"
        " CREATE INDEX sales_version ON sales (version)"
    )
    sales.destination.execute("ALTER TABLE raw.sales ADD version bigint")
    cursor = {"cursor_field": "version"} if mode.startswith("incremental") else {}
    pipeline = sales.pipeline(mode, "dlq", stream=cursor)
    run(pipeline)
    sales.source.execute(f"UPDATE sales SET amount = 12.50, version = 20000 WHERE id = {BAD}")
    result = run(pipeline)
    assert (result.rejected, result.dead_letters) == (0, 0)
    assert (sales.count(), sales.has_bad_row(), len(letters(pipeline))) == (ROWS, True, 1)


@pytest.mark.parametrize("mode", ["upsert", "incremental upsert"])
def test_a_row_that_went_bad_leaves_the_row_that_was_there(sales: Sales, mode: str) -> None:
    """The table keeps what it last took; what came since is a dead letter."""
    sales.source.execute(
        f"UPDATE sales SET amount = 12.50 WHERE id = {BAD};"
        " ALTER TABLE sales ADD version bigint; UPDATE sales SET version = id"
    )
    sales.destination.execute("ALTER TABLE raw.sales ADD version bigint")
    cursor = {"cursor_field": "version"} if mode.startswith("incremental") else {}
    pipeline = sales.pipeline(mode, "dlq", stream=cursor)
    assert run(pipeline).rows == ROWS
    sales.source.execute(f"UPDATE sales SET amount = -1, version = 20000 WHERE id = {BAD}")
    assert run(pipeline).dead_letters == 1
    assert sales.destination.fetch("SELECT amount::text FROM raw.sales WHERE id = %s", [BAD]) == [("12.50",)]
    assert [json.loads(letter["record_json"])["amount"] for letter in letters(pipeline)] == ["-1.00"]


@pytest.mark.parametrize("mode", ["upsert", "incremental upsert"])
@pytest.mark.parametrize("on_data_error", ["fail", "skip", "dlq"])
def test_a_row_without_a_key_is_a_row_that_fails_on_its_data(sales: Sales, mode: str, on_data_error: str) -> None:
    sales.source.execute(
        f"ALTER TABLE sales ADD code text; UPDATE sales SET amount = 1, code = nullif(id, {BAD})::text"
    )
    sales.destination.execute("DROP TABLE raw.sales")
    pipeline = sales.pipeline(mode, on_data_error, stream={"primary_key": ["code"]})
    if on_data_error == "fail":
        with pytest.raises(DestinationError) as caught:
            run(pipeline)
        assert caught.value.kind is Kind.DATA
        return
    result = run(pipeline)
    assert (result.rows, result.rejected) == (ROWS - 1, 1)
    assert (sales.count(), sales.has_bad_row()) == (ROWS - 1, False)
    assert [(letter["error_category"], letter["column_name"]) for letter in letters(pipeline)] == (
        [("null_key", "code")] if on_data_error == "dlq" else []
    )


# What is not the row's fault

TRIGGER = """
    CREATE SEQUENCE raw.times;
    CREATE FUNCTION raw.strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.id = 7000 THEN {what}; END IF;
        RETURN new;
    END $$;
    CREATE TRIGGER strike BEFORE INSERT ON raw.sales FOR EACH ROW EXECUTE FUNCTION raw.strike()
"""
# SQLSTATEs that say nothing about the row, although a row is what they come with.
FAULTS = {
    "deadlock": ("40P01", Kind.TRANSIENT_DB),
    "serialization failure": ("40001", Kind.TRANSIENT_DB),
    "lock not available": ("55P03", Kind.TRANSIENT_DB),
    "shutdown": ("57P01", Kind.TRANSIENT_DB),
    "disk full": ("53100", Kind.RESOURCE),
    "out of memory": ("53200", Kind.RESOURCE),
    "permission": ("42501", Kind.PERMISSION),
    "read-only": ("25006", Kind.PERMISSION),
    "I/O error": ("58030", None),
    "undefined function": ("42883", None),
    "corrupted": ("XX001", None),
}


QUICK_FAULTS = {
    *(("append", "dlq", fault) for fault in ("deadlock", "disk full", "permission")),
    *(("upsert", "dlq", fault) for fault in ("serialization failure", "undefined function")),
    ("replace", "skip", "shutdown"),
}


@pytest.mark.parametrize(
    ("mode", "on_data_error", "fault"),
    [
        pytest.param(*case, marks=[] if case in QUICK_FAULTS else [pytest.mark.full])
        for case in itertools.product(MODES, ("skip", "dlq"), FAULTS)
    ],
)
def test_what_is_not_the_rows_fault_fails_the_run_and_makes_no_dead_letter(
    sales: Sales, mode: str, on_data_error: str, fault: str
) -> None:
    sqlstate, kind = FAULTS[fault]
    raising = f"RAISE 'a fault that comes with a row' USING ERRCODE = '{sqlstate}'"
    sales.destination.execute(TRIGGER.format(what=raising))
    pipeline = sales.pipeline(mode, on_data_error, checkpoint_interval_rows=0)
    with pytest.raises(RapidbyteError, match="a fault that comes with a row") as caught:
        run(pipeline)
    assert caught.value.kind is not Kind.DATA
    assert kind in (None, caught.value.kind)
    assert (sales.count(), letters(pipeline)) == (0, [])
    sales.destination.execute("DROP TRIGGER strike ON raw.sales")
    kept = 1 if on_data_error == "dlq" else 0
    result = run(pipeline)
    assert (result.rejected, result.dead_letters) == (1, kept)
    assert (sales.count(), letters_in_all(pipeline)) == (ROWS - 1, kept), "what the failed run had told of is gone"


@SOME_MODES
def test_a_session_that_is_terminated_over_a_row_is_tried_again(sales: Sales, mode: str) -> None:
    """In the middle of the row, once."""
    strike = "IF nextval('raw.times') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF"
    sales.destination.execute(TRIGGER.format(what=strike))
    pipeline = sales.pipeline(mode, "dlq", max_retries=4)
    result = run(pipeline)
    assert result.attempts == 2
    assert (result.rejected, result.dead_letters) == (1, 1)
    assert (sales.count(), sales.has_bad_row()) == (ROWS - 1, False)
    [letter] = letters(pipeline)
    assert json.loads(letter["record_json"])["id"] == BAD
    assert letters_in_all(pipeline) == 1


@SOME_MODES
def test_a_session_that_is_terminated_after_a_row_was_refused_is_tried_again(sales: Sales, mode: str) -> None:
    with Proxy(sales.destination) as proxy:
        pipeline = sales.pipeline(
            mode, "dlq", config=proxy.config(sales.destination, schema="raw"), max_retries=4, checkpoint_interval_rows=0
        )
        proxy.arm(Moment("^ROLLBACK TO SAVEPOINT rapidbyte_rows", "answered"), terminating(sales), cuts=False)
        result = run(pipeline)
        assert proxy.struck.is_set()
    assert result.attempts == 2
    assert (sales.count(), sales.has_bad_row()) == (ROWS - 1, False)
    assert (len(letters(pipeline)), letters_in_all(pipeline)) == (1, 1)


@SOME_MODES
def test_a_privilege_that_is_revoked_while_rows_are_left_out_fails_the_run(sales: Sales, mode: str) -> None:
    """Whatever the rows that come now hold: none of them is a dead letter."""

    def revoke() -> None:
        sales.destination.execute("REVOKE INSERT ON raw.sales FROM etl", superuser=True)

    with Proxy(sales.destination) as proxy:
        pipeline = sales.pipeline(
            mode, "dlq", config=proxy.config(sales.destination, schema="raw"), checkpoint_interval_rows=0
        )
        proxy.arm(Moment("^ROLLBACK TO SAVEPOINT rapidbyte_rows", "answered"), revoke, cuts=False)
        with pytest.raises(DestinationError) as caught:
            run(pipeline)
        assert proxy.struck.is_set()
        assert caught.value.kind is Kind.PERMISSION
        assert (sales.count(), letters(pipeline)) == (0, [])
        sales.destination.execute("GRANT INSERT ON raw.sales TO etl", superuser=True)
        assert run(pipeline).dead_letters == 1
    assert (sales.count(), letters_in_all(pipeline)) == (ROWS - 1, 1)


def terminating(sales: Sales) -> Callable[[], object]:
    return lambda: sales.destination.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'rapidbyte/%%'",
        superuser=True,
    )
