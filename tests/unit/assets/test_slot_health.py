from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rapidbyte_dagster.assets.slot_health import Alarm, slot_alarms, slot_health_result, slot_metadata
from rapidbyte_dagster.assets.slot_names import SlotPlace
from rapidbyte_dagster.config import CaptureOptions
from rapidbyte_dagster.engine.capture.slots import SlotStatus
from tests.pipelines import make_pipeline

ALL = {"users", "orders"}
KEY = dg.AssetKey(["shop", "cdc", "slot"])
POSITIONS = {"users": 0x2000, "orders": 0x3000}
GIGABYTE = 1024**3

WELL = SlotStatus(
    slot="rapidbyte_shop",
    publication="rapidbyte_shop",
    exists=True,
    active=False,
    active_pid=None,
    active_application=None,
    restart_lsn="0/1000",
    confirmed_flush_lsn="0/2000",
    wal_position="0/9000",
    lag_bytes=0x7000,
    retained_bytes=0x8000,
    wal_status="reserved",
    safe_wal_size=None,
    invalidation_reason=None,
    fault=None,
    publication_exists=True,
    publication_is_ours=True,
    published=("public.users", "crm.orders"),
    unpublished=(),
    unpublished_streams=(),
    change_counter="a",
)
GONE = replace(WELL, exists=False, restart_lsn=None, confirmed_flush_lsn=None, lag_bytes=None, retained_bytes=None)


@pytest.fixture
def place(tmp_path: Path) -> SlotPlace:
    config = {"host": "db", "user": "etl", "database": "shop"}
    streams = [{"name": "users", "sync_mode": "cdc"}, {"name": "orders", "sync_mode": "cdc", "schema": "crm"}]
    pipeline = make_pipeline(tmp_path, config, config, streams, write_mode="upsert")
    return SlotPlace(pipeline, pipeline.slot_groups[0])


def judged(status: SlotStatus, lag_seconds: float | None = 0.0, **options: Any) -> dg.AssetCheckResult:
    return slot_health_result(KEY, CaptureOptions(**options), status, alarms=[], lag_seconds=lag_seconds)


def test_a_slot_whose_streams_have_read_no_less_than_it_confirmed_is_well(place: SlotPlace) -> None:
    assert slot_alarms(place, WELL, POSITIONS) == []
    found = judged(WELL)
    assert (found.passed, found.description) == (True, "The slot is well.")


def test_a_slot_that_is_not_there_is_an_alarm_once_anything_was_read_from_it(place: SlotPlace) -> None:
    assert slot_alarms(place, GONE, {}) == []
    assert judged(GONE, None).description == "There is no slot yet: the first run makes it."
    (alarm,) = slot_alarms(place, GONE, POSITIONS)
    assert alarm.streams == ALL
    told = alarm.text
    assert told.startswith("replication slot 'rapidbyte_shop' is gone, and with it the changes of users (since 0/2000)")
    assert "`rapidbyte run shop.yaml --stream users --stream orders --full-refresh`" in told
    assert "ops: {shop__cdc: {config: {full_refresh: [users, orders]}}}" in told


def test_only_the_streams_that_have_lost_changes_are_to_be_copied_anew(place: SlotPlace) -> None:
    (alarm,) = slot_alarms(place, replace(WELL, confirmed_flush_lsn="0/2001"), POSITIONS)
    assert alarm.streams == {"users"}
    assert "begins at 0/2001, behind what was read of users (since 0/2000)" in alarm.text
    assert "--stream users --full-refresh" in alarm.text
    assert "orders" not in alarm.text


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"wal_status": "lost"}, "max_slot_wal_keep_size"), ({"invalidation_reason": "idle_timeout"}, "idle_timeout")],
)
def test_a_lost_slot_says_why_and_what_drops_it(place: SlotPlace, options: dict[str, Any], reason: str) -> None:
    (alarm,) = slot_alarms(place, replace(WELL, fault="lost", **options), POSITIONS)
    assert alarm.streams == ALL
    assert "is lost: the source gave it up" in alarm.text
    assert reason in alarm.text
    assert "`rapidbyte cdc teardown shop.yaml`" in alarm.text


def test_a_slot_of_another_kind_is_an_alarm_before_anything_was_read(place: SlotPlace) -> None:
    (alarm,) = slot_alarms(place, replace(WELL, fault="it is of the plugin 'wal2json'"), {})
    assert alarm.streams == ALL
    assert "wal2json" in alarm.text


def test_tables_that_the_publication_has_lost_are_an_alarm_for_streams_that_ever_began(place: SlotPlace) -> None:
    status = replace(WELL, published=("public.users",), unpublished=("crm.orders",), unpublished_streams=("orders",))
    assert slot_alarms(place, status, {"users": 0x2000}) == []
    (alarm,) = slot_alarms(place, status, POSITIONS)
    assert alarm.streams == {"orders"}
    assert alarm.text.startswith("the publication tells of orders no more")
    assert slot_alarms(place, replace(status, confirmed_flush_lsn="0/3001"), {"orders": 0x3000}) == [alarm]


@pytest.mark.parametrize(
    ("status", "lag_seconds", "told"),
    [
        (WELL, 901.0, "changes have waited for 15 min 1 s (max_lag: 15 min)"),
        (replace(WELL, lag_bytes=2 * GIGABYTE), 0.0, "2.0 GB of WAL are not read (max_lag_bytes: 1.0 GB)"),
        (replace(WELL, retained_bytes=11 * GIGABYTE), 0.0, "the source keeps 11.0 GB of WAL for the slot"),
        (replace(WELL, safe_wal_size=GIGABYTE - 1), 0.0, "after 1,024.0 MB more of WAL the source gives the slot up"),
        (replace(WELL, safe_wal_size=-5), 0.0, "after 0 bytes more of WAL"),
    ],
)
def test_beyond_each_limit_the_check_warns(status: SlotStatus, lag_seconds: float, told: str) -> None:
    found = judged(status, lag_seconds)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert told.lower() in str(found.description).lower()


def test_a_slot_that_is_about_to_be_lost_fails_the_check() -> None:
    found = judged(replace(WELL, wal_status="unreserved"))
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_alarms_come_before_warnings(place: SlotPlace) -> None:
    found = slot_health_result(
        KEY, CaptureOptions(), GONE, alarms=[Alarm("the slot is gone", frozenset(ALL))], lag_seconds=901
    )
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert str(found.description).startswith("The slot is gone; changes have waited")


def test_figures_are_numbers_and_there_when_they_are_zero() -> None:
    told = slot_metadata(GONE, 0.0)
    assert (told["lag_bytes"], told["lag_seconds"], told["retained_bytes"]) == (0, 0.0, 0)
    assert "safe_wal_size" not in told
    assert "lag_seconds" not in slot_metadata(WELL, None)
