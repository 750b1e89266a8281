"""A connector that traps, loops, over-allocates or answers nonsense gives one clear error, and dies alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.errors import InternalError, Kind, RapidbyteError, SourceError, Stage
from rapidbyte_dagster.runtime import Connector, Instance, NoData
from rapidbyte_dagster.runtime import instance as instance_module
from tests.sandbox.connectors import (
    EXPORTS_OF_A_SOURCE,
    MEGABYTE,
    OPEN_SANDBOX,
    Recorder,
    Scripted,
    Step,
    perform,
    sandbox,
    write_module,
)


def failure(scripted: Scripted, *steps: Step, **limits: Any) -> RapidbyteError:
    with pytest.raises(RapidbyteError) as caught:
        scripted.run(*steps, sandbox=sandbox(**limits))
    return caught.value


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("unreachable", "it panicked"),
        ("bounds", "it accessed memory outside its own"),
        ("stack", "it used up its stack"),
    ],
)
def test_a_trap_says_what_happened(scripted: Scripted, kind: str, reason: str) -> None:
    error = failure(scripted, {"trap": kind})
    assert isinstance(error, SourceError)
    assert error.kind is Kind.CONNECTOR
    assert f"connector 'scripted' trapped in rb_read: {reason}" in str(error)


def test_nothing_is_called_in_an_instance_that_trapped(scripted: Scripted) -> None:
    host = Recorder()
    with scripted.instance(host=host) as instance:
        with pytest.raises(SourceError):
            perform(instance, {"trap": "unreachable"})
        with pytest.raises(InternalError, match="after the connector's end"):
            perform(instance)
    assert host.lines == [], "rb_close would have logged"


def test_an_instance_that_lives_is_closed_once(scripted: Scripted) -> None:
    host = Recorder()
    with scripted.instance(host=host) as instance:
        perform(instance)
    assert [line for _, line in host.lines] == ["closing"]


def test_a_failing_close_does_not_mask_the_first_error(scripted: Scripted) -> None:
    class Hostile(Recorder):
        def log(self, level: object, message: str) -> None:
            raise RuntimeError("no logging today")

    def work() -> None:
        with scripted.instance(host=Hostile()) as instance:
            perform(instance)
            raise ValueError("the first error")

    with pytest.raises(ValueError, match="the first error"):
        work()


@pytest.mark.parametrize("step", [{"loop": True}, {"trap": "unreachable"}, {"answer": "nonsense"}])
def test_a_close_that_goes_wrong_undoes_no_success(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    monkeypatch.setattr(instance_module, "CLOSE_SECONDS", 0.3)
    host = Recorder()
    started = time.monotonic()
    result = scripted.run({"on_close": json.dumps({"steps": [step]})}, host=host)
    assert time.monotonic() - started < 1
    assert result.statuses == []
    assert [line for _, line in host.lines] == ["closing"]


def test_a_loop_ends_at_the_time_limit(scripted: Scripted) -> None:
    started = time.monotonic()
    error = failure(scripted, {"loop": True}, timeout_seconds=0.5)
    assert time.monotonic() - started < 1.0
    assert error.kind is Kind.TIMEOUT
    assert "connector 'scripted' ran past its limit of 0.5 s" in str(error)
    assert "`source.limits.timeout_seconds`" in str(error)


@pytest.mark.parametrize("where", ["start", "rb_abi_version"])
def test_a_loop_before_the_first_verb_ends_at_the_time_limit(tmp_path: Path, where: str) -> None:
    text = EXPORTS_OF_A_SOURCE
    if where == "start":
        text += "(func $start (loop $l (br $l))) (start $start)"
    else:
        text = text.replace("i32.const 1)", "(loop $l (br $l)) i32.const 1)", 1)
    connector = Connector.load(write_module(tmp_path, text))
    with (
        pytest.raises(SourceError, match=r"ran past its limit of 0\.3 s"),
        Instance(connector, host=NoData(), sandbox=sandbox(timeout_seconds=0.3), stage=Stage.SOURCE),
    ):
        pass


def test_the_time_limit_counts_between_verbs_too(scripted: Scripted) -> None:
    with scripted.instance(sandbox=sandbox(timeout_seconds=0.2)) as instance:
        perform(instance)
        time.sleep(0.4)
        with pytest.raises(SourceError, match=r"ran past its limit of 0.2 s"):
            perform(instance)


def test_memory_grows_up_to_its_limit_and_no_further(scripted: Scripted) -> None:
    limit = 16 * MEGABYTE
    with scripted.instance(sandbox=sandbox(max_memory=limit)) as instance:
        perform(instance, {"grow": 4 * MEGABYTE})
        assert 4 * MEGABYTE < instance.peak_memory <= limit
        with pytest.raises(SourceError, match="out of memory") as caught:
            perform(instance, {"grow": 64 * MEGABYTE})
        assert caught.value.kind is Kind.RESOURCE
        assert "its memory limit is 16mb: raise `resources.max_memory`" in str(caught.value)
    assert instance.peak_memory <= limit


def test_a_panic_with_the_memory_used_up_is_put_down_to_the_limit(scripted: Scripted) -> None:
    error = failure(scripted, {"grow": 64 * MEGABYTE, "panic": True}, max_memory=16 * MEGABYTE)
    assert error.kind is Kind.RESOURCE
    assert "used up its memory limit of 16mb" in str(error)


def test_a_connector_that_needs_more_than_the_limit_to_start_is_told_apart(scripted: Scripted) -> None:
    error = failure(scripted, max_memory=65_536)
    assert error.kind is Kind.RESOURCE
    assert "it needs more than that to start" in str(error)


def test_an_argument_that_finds_no_memory_is_a_matter_of_the_limit(tmp_path: Path) -> None:
    text = EXPORTS_OF_A_SOURCE.replace("i32.const 1024", "i32.const 0")
    error = answer_of(tmp_path, text)
    assert error.kind is Kind.RESOURCE
    assert "it found no 2 bytes for the argument of rb_read" in str(error)


def test_an_argument_is_not_written_outside_the_memory(tmp_path: Path) -> None:
    error = answer_of(tmp_path, EXPORTS_OF_A_SOURCE.replace("i32.const 1024", "i32.const -1"))
    assert error.kind is Kind.CONNECTOR
    assert "`rb_alloc` answered nonsense" in str(error)


def answer_of(folder: Path, text: str) -> RapidbyteError:
    connector = Connector.load(write_module(folder, text))
    with (
        pytest.raises(RapidbyteError) as caught,
        Instance(connector, host=NoData(), sandbox=OPEN_SANDBOX, stage=Stage.SOURCE) as instance,
    ):
        instance.call("rb_read", {})
    return caught.value


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"ok": 1}',
        '{"ok": {}, "err": {}}',
        '{"err": {}}',
        '{"err": {"kind": "auth"}}',
        '{"err": {"kind": 3, "message": "x"}}',
        '{"ok": {"n": NaN}}',
        '{"ok": ' + "[" * 200_000,
        '{"ok": {"n": ' + "9" * 10_000 + "}}",
    ],
)
def test_a_result_that_breaks_the_abi_is_the_connectors_fault(scripted: Scripted, answer: str) -> None:
    error = failure(scripted, {"answer": answer})
    assert error.kind is Kind.CONNECTOR
    assert "connector 'scripted' broke the ABI: its result of rb_read" in str(error)


def test_a_result_in_broken_utf_8_is_the_connectors_fault(tmp_path: Path) -> None:
    text = EXPORTS_OF_A_SOURCE.replace(
        '"rb_read") (param i32 i32) (result i64) i64.const 0',
        f'"rb_read") (param i32 i32) (result i64) i64.const {64 << 32 | 4}',
    )
    error = answer_of(tmp_path, text + r'(data (i32.const 64) "\22\ff\fe\22")')
    assert "is not JSON" in str(error)


@pytest.mark.parametrize(
    ("address", "length", "reason"),
    [
        (-8, 100, "lies outside its memory"),
        (64 * MEGABYTE, 1, "lies outside its memory"),
        (1024, 64 * MEGABYTE, "lies outside its memory"),
        (0, -1, "the limit is 67108864"),
        (8, 64 * MEGABYTE + 1, "the limit is 67108864"),
    ],
)
def test_a_result_outside_the_memory_is_not_read(scripted: Scripted, address: int, length: int, reason: str) -> None:
    error = failure(scripted, {"return": [address, length]})
    assert error.kind is Kind.CONNECTOR
    assert reason in str(error)


def test_a_guests_own_error_arrives_with_all_its_parts(scripted: Scripted) -> None:
    answer = (
        '{"err": {"kind": "auth", "message": "password authentication failed", "detail": "d", "hint": "h",'
        ' "sqlstate": "28P01"}}'
    )
    error = failure(scripted, {"answer": answer})
    assert isinstance(error, SourceError)
    info = error.info
    assert (info.kind, info.detail, info.hint, info.sqlstate) == (Kind.AUTH, "d", "h", "28P01")
    assert info.stage is Stage.SOURCE


def test_an_error_leaves_the_instance_alive(scripted: Scripted) -> None:
    with scripted.instance() as instance:
        with pytest.raises(SourceError, match="nope"):
            perform(instance, {"answer": '{"err": {"kind": "data", "message": "nope"}}'})
        assert perform(instance).statuses == []


@pytest.mark.parametrize("kind", ["connector", "state", "usage", "no such kind"])
def test_a_guest_cannot_use_a_kind_that_is_not_its_own(scripted: Scripted, kind: str) -> None:
    error = failure(scripted, {"answer": f'{{"err": {{"kind": "{kind}", "message": "x"}}}}'})
    assert error.kind is Kind.CONNECTOR


def test_blaming_the_host_where_nothing_failed_is_the_connectors_fault(scripted: Scripted) -> None:
    error = failure(scripted, {"answer": '{"err": {"kind": "host", "message": "it was you"}}'})
    assert error.kind is Kind.CONNECTOR
    assert "blames the host, where nothing failed: it was you" in str(error)
