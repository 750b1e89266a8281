"""The step of a replication slot: its streams run together, and each one's outcome is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pytest

from tests.integration.assets.project import Project, materialization, materialized, step_failure

STEP = "shop__cdc"
TABLES = ("users", "orders")


def parts(*tables: str) -> set[str]:
    return {f"shop/{table}{part}" for table in tables for part in ("", "/checkpoint", "/schema", "/dlq")}


class Captured:
    """A pipeline of two captured tables, run by run."""

    def __init__(self, project: Project, **options: Any) -> None:
        self.project = project
        streams = [{"name": name, "sync_mode": "cdc"} for name in TABLES]
        project.add_pipeline(*streams, write_mode="upsert", **options)
        self.definitions = project.definitions()

    def run(
        self, selection: Sequence[str] | None = None, config: dict[str, Any] | None = None, **options: Any
    ) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def("shop__cdc_job")
        return job.execute_in_process(
            asset_selection=[dg.AssetKey.from_user_string(key) for key in selection] if selection else None,
            run_config={"ops": {STEP: {"config": config}}} if config else None,
            raise_on_error=False,
            **options,
        )

    def is_mirrored(self, table: str) -> bool:
        query = "select count(*), sum(hashtextextended(t::text, 0)::numeric) from {} as t"
        there = self.project.destination.fetch(query.format(f"raw.{table}"))
        return there == self.project.source.fetch(query.format(table))


@pytest.fixture
def captured(project: Project) -> Captured:
    """One that has run."""
    captured = Captured(project)
    assert captured.run().success
    return captured


def test_one_step_materialises_all_assets_of_all_streams(project: Project, instance: dg.DagsterInstance) -> None:
    captured = Captured(project)
    result = captured.run(instance=instance)
    assert result.success
    assert materialized(result.all_events) == parts(*TABLES)
    assert {event.step_key for event in result.all_events if event.is_step_success} == {STEP}
    assert all(map(captured.is_mirrored, TABLES))
    told = materialization(result.all_events, "shop/orders")
    assert told["rows"] == 5000
    assert "/" in told["position"]
    lineage = told["dagster/column_lineage"]
    assert lineage.deps_by_column["total"][0].asset_key.to_user_string() == "shop/source/public/orders"
    records = instance.all_logs(result.run_id)
    assert any("transactions were read, up to" in record.user_message for record in records)
    assert str(project.source.config["password"]) not in "\n".join(map(str, records))


def test_a_stream_that_stops_is_named_and_the_others_are_materialised(captured: Captured) -> None:
    source, destination = captured.project.source, captured.project.destination
    destination.execute("alter table raw.users add constraint short check (length(email) < 30)")
    source.execute(f"update users set email = '{'x' * 40}' where id = 1; update orders set total = 0 where id = 1")
    for _ in range(2):
        result = captured.run()
        assert not result.success
        assert materialized(result.all_events) == parts("orders")
        failure = step_failure(result.all_events, STEP)
        assert "stream 'users'" in failure.description
        assert "short" in failure.description
        assert failure.metadata["kind"].value == "data"
        assert captured.is_mirrored("orders")
        # The slot keeps what the stream has not read, whatever else goes on.
        source.execute("delete from orders where id = (select max(id) from orders); delete from users where id = 2")
    destination.execute("alter table raw.users drop constraint short")
    assert captured.run().success
    assert all(map(captured.is_mirrored, TABLES))


def test_streams_that_stop_each_for_a_reason_of_its_own_are_all_named(captured: Captured) -> None:
    captured.project.source.fetch("select pg_drop_replication_slot('rapidbyte_shop')")
    result = captured.run()
    assert not materialized(result.all_events)
    failure = step_failure(result.all_events, STEP)
    assert failure.description.startswith("2 streams failed:")
    for stream in TABLES:
        assert f"so that changes of {stream} since " in failure.description
    assert failure.metadata["streams"].value == list(TABLES)


def test_a_selected_table_is_captured_alone_and_the_slot_waits_for_the_others(captured: Captured) -> None:
    captured.project.source.execute("delete from users where id <= 100; delete from orders where id <= 100")
    result = captured.run(["shop/users"])
    assert result.success
    assert materialized(result.all_events) == {"shop/users"}
    assert captured.is_mirrored("users")
    assert captured.project.rows("orders") == 5000
    assert captured.run().success
    assert all(map(captured.is_mirrored, TABLES))


def test_kept_assets_alone_read_nothing_from_the_slot(captured: Captured) -> None:
    captured.project.source.execute("delete from users where id <= 100")
    result = captured.run(["shop/users/checkpoint", "shop/orders/dlq"])
    assert result.success
    assert materialized(result.all_events) == {"shop/users/checkpoint", "shop/orders/dlq"}
    assert captured.project.rows("users") == 1000


def test_a_stream_of_full_refresh_is_copied_anew_and_its_changes_go_on(captured: Captured) -> None:
    source, destination = captured.project.source, captured.project.destination
    destination.execute("delete from raw.users where id > 10; insert into raw.orders values (-1, 1, 1)")
    result = captured.run(config={"full_refresh": ["users"]})
    assert result.success
    assert captured.is_mirrored("users")
    assert materialization(result.all_events, "shop/users")["start"] == "full_refresh"
    assert "start" not in materialization(result.all_events, "shop/orders")
    assert captured.project.rows("orders") == 5001, "the others are left as they are"
    source.execute("delete from users where id = 1")
    assert captured.run().success
    assert captured.is_mirrored("users")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"full_refresh": ["user"]}, "full_refresh: the slot has no stream 'user'"),
        ({"tail_seconds": -1.0}, "tail_seconds: found -1"),
    ],
)
def test_run_config_that_makes_no_sense_moves_nothing(project: Project, config: dict[str, Any], told: str) -> None:
    captured = Captured(project)
    result = captured.run(config=config)
    assert told in step_failure(result.all_events, STEP).description
    assert not materialized(result.all_events)
    assert project.destination.fetch_value("select to_regnamespace('raw') is null")


@pytest.mark.full
def test_a_tail_applies_changes_as_they_come_and_ends_by_itself(captured: Captured) -> None:
    source, destination = captured.project.source, captured.project.destination
    over = threading.Event()
    delays: list[float] = []

    def change() -> None:
        """Writes a row, waits until it has arrived, and so on."""
        with source.connect() as writer, destination.connect() as reader:
            while not over.is_set():
                number = 5000 + len(delays)
                writer.execute("insert into users values (%s, 'tailed')", [number])
                began = time.monotonic()
                while reader.execute("select 1 from raw.users where id = %s", [number]).fetchone() is None:
                    if over.wait(0.01):
                        return
                delays.append(time.monotonic() - began)

    writing = threading.Thread(target=change)
    writing.start()
    started = time.monotonic()
    result = captured.run(config={"tail_seconds": 5.0})
    over.set()
    writing.join()
    assert result.success
    assert time.monotonic() - started >= 5
    assert len(delays) > 1, "a tail commits as it goes"
    # Of a quiet machine it is a tenth of that.
    assert min(delays) < 1
    assert materialization(result.all_events, "shop/users")["rows_inserted"] >= len(delays)
    assert captured.run().success
    assert captured.is_mirrored("users")


def reconciled(captured: Captured, *tables: str) -> dict[str, dg.AssetCheckEvaluation]:
    """What the check of each table says, executed alone."""
    slot = dg.AssetKey(["shop", "cdc", "slot"])
    checks = {dg.AssetCheckKey(slot, f"reconciliation_{table}") for table in tables}
    job = captured.definitions.resolve_implicit_global_asset_job_def()
    result = job.get_subset(asset_selection=set(), asset_check_selection=checks).execute_in_process()
    assert not materialized(result.all_events)
    return {found.check_name.removeprefix("reconciliation_"): found for found in result.get_asset_check_evaluations()}


def test_a_reconciliation_catches_up_and_finds_what_differs_at_one_position(captured: Captured) -> None:
    source, destination = captured.project.source, captured.project.destination
    source.execute("delete from users where id <= 100; update orders set total = 7 where id = 1")
    found = reconciled(captured, "users", "orders")
    assert {name: evaluation.passed for name, evaluation in found.items()} == {"users": True, "orders": True}
    assert str(found["users"].description).startswith("900 rows on both sides, of the same contents, at ")
    assert all(map(captured.is_mirrored, TABLES))

    destination.execute("update raw.orders set total = 8 where id = 2; delete from raw.users where id > 950")
    found = reconciled(captured, "users", "orders")
    assert not any(evaluation.passed for evaluation in found.values())
    assert "900 rows at the source, 850 at the destination" in str(found["users"].description)
    assert str(found["orders"].description).endswith("and their contents differ.")


def test_a_run_that_moves_rows_evaluates_no_reconciliation(captured: Captured) -> None:
    job = captured.definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process()
    assert result.success
    evaluated = {found.check_name for found in result.get_asset_check_evaluations()}
    assert evaluated == {"schema_drift", "slot_health"}


def test_a_change_that_is_set_aside_is_judged_by_the_tables_check(project: Project) -> None:
    captured = Captured(project, destination_section={"on_data_error": "dlq"})
    assert captured.run().success
    project.destination.execute("alter table raw.users add constraint short check (length(email) < 30)")
    project.source.execute(f"update users set email = '{'x' * 40}' where id = 1; delete from users where id = 2")
    result = captured.run()
    assert result.success
    found = {
        evaluation.asset_key.path[-1]: evaluation
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == "dead_letters"
    }
    assert not found["users"].passed
    assert "1 check" in str(found["users"].description)
    assert "orders" not in found or found["orders"].passed
    assert materialization(result.all_events, "shop/users/dlq")["dead_letters_check"] == 1
    assert project.rows("users") == 999
