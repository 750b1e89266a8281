"""Messages, barriers and the ambient functions between a guest and its host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from rapidbyte_dagster.errors import InternalError, Kind, RapidbyteError, RunCancelled, SourceError, StateError
from rapidbyte_dagster.runtime import Barrier, End, LogLevel, Message, NoData, StreamAborted
from rapidbyte_dagster.runtime.abi import MAX_CONTROL_BYTES, MAX_LETTERS_BYTES, MAX_METRICS
from rapidbyte_dagster.runtime.status import Status
from tests.sandbox.connectors import MEGABYTE, Recorder, Scripted, buffer, call, sandbox


def test_pieces_arrive_as_one_message(scripted: Scripted) -> None:
    host = Recorder()
    assert scripted.run({"emit": ["schema ", "", "body"]}, {"emit": ["x" * MEGABYTE]}, host=host).statuses == [0, 0]
    assert host.emitted == [b"schema body", b"x" * MEGABYTE]


@pytest.mark.parametrize("size", [0, 1, 70_000, 3 * MEGABYTE])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_message_reaches_the_guest_unchanged(scripted: Scripted, kind: Callable[[bytes], bytes], size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    result = scripted.run({"take": True}, host=Recorder(items=[Message(kind(data))]))
    assert result.statuses == [1]
    assert result.shown == [data.decode()]


def test_barriers_and_the_end_are_told_apart(scripted: Scripted) -> None:
    host = Recorder(items=[Message(b"m"), Barrier(b'{"sequence": 1}'), End()])
    result = scripted.run(*[{"take": True}] * 5, host=host)
    assert result.statuses == [1, 2, 3, 3, 3], "the end stays the end, and the host is not asked again"
    assert result.shown == ["m", '{"sequence": 1}']


def test_what_is_called_out_of_order_is_invalid(scripted: Scripted) -> None:
    host = Recorder(items=[Message(b"four")])
    steps = [
        call("read", 1024, 4),
        call("next", 1024),
        call("next", 1024),
        call("read", 1024, 3),
        call("read", 1024, 5),
        call("read", 1024, 4),
        call("read", 1024, 4),
    ]
    statuses = [Status.INVALID, 1, Status.INVALID, Status.INVALID, Status.INVALID, Status.OK, Status.INVALID]
    assert scripted.run(*steps, host=host).statuses == statuses


def test_control_messages_arrive_as_objects(scripted: Scripted) -> None:
    host = Recorder()
    steps = [
        call("barrier", {"cursor": None, "final": True}),
        call("prepare", {"sequence": 7}),
        call("committed", {"sequence": 7}),
        call("drift", {"changes": []}),
        call("emit_dlq_batch", {"letters": []}),
    ]
    assert scripted.run(*steps, host=host).statuses == [0, 0, 0, 0, 0]
    assert host.calls == [
        ("barrier", {"cursor": None, "final": True}),
        ("prepare", {"sequence": 7}),
        ("committed", {"sequence": 7}),
        ("drift", {"changes": []}),
        ("emit_dlq_batch", {"letters": []}),
    ]


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": 1', "[" * 100_000])
@pytest.mark.parametrize("name", ["barrier", "prepare", "committed", "drift", "emit_dlq_batch", "tcp_connect"])
def test_malformed_json_is_invalid(scripted: Scripted, name: str, text: str) -> None:
    host = Recorder()
    assert scripted.run(call(name, text), host=host).statuses == [Status.INVALID]
    assert host.calls == []


@pytest.mark.parametrize(
    "step",
    [
        {"emit": ["x"]},
        call("barrier", {}),
        call("next", 1024),
        call("prepare", {}),
        call("committed", {}),
        call("drift", {}),
        call("emit_dlq_batch", {}),
    ],
)
def test_outside_of_a_stream_there_are_no_batches(scripted: Scripted, step: dict[str, Any]) -> None:
    assert scripted.run(step, host=NoData()).statuses == [Status.INVALID]


@pytest.mark.parametrize(
    ("raised", "status", "expected"),
    [
        (StreamAborted(), Status.ABORTED, StreamAborted),
        (RunCancelled("stop"), Status.CANCELLED, RunCancelled),
        (StateError("the disk is full"), Status.FAILED, StateError),
        (SourceError("too slow", kind=Kind.TIMEOUT), Status.TIMEOUT, SourceError),
        (ValueError("a bug"), Status.FAILED, InternalError),
        (KeyboardInterrupt(), Status.FAILED, InternalError),
    ],
)
def test_what_the_host_raises_is_a_status_first_and_an_error_later(
    scripted: Scripted, raised: BaseException, status: Status, expected: type[Exception]
) -> None:
    class Failing(Recorder):
        def barrier(self, payload: dict[str, Any]) -> None:
            raise raised

    assert scripted.run(call("barrier", {}), host=Failing()).statuses == [status]
    with pytest.raises(expected) as caught:
        scripted.run(call("barrier", {}, strict=True), host=Failing())
    if isinstance(caught.value, RapidbyteError):
        assert str(caught.value.info.message).startswith("calling barrier: ")


def test_a_failure_of_an_earlier_verb_is_not_blamed_for_a_later_one(scripted: Scripted) -> None:
    with scripted.instance() as instance:
        instance.call("rb_read", {"steps": [call("random", -1, 8)]})
        with pytest.raises(SourceError, match="where nothing failed"):
            instance.call("rb_read", {"steps": [{"answer": '{"err": {"kind": "host", "message": "m"}}'}]})


def test_log_lines_and_metrics_reach_the_host(scripted: Scripted) -> None:
    host = Recorder()
    steps = [
        call("log", 0, "debug"),
        call("log", 3, "an error: ü"),
        call("log", 4, "no such level"),
        call("log", 1, "x" * 100_000),
        call("metric", "rows", 2.5),
        call("metric", "rows", 1.5),
        call("metric", "", 1.5),
        call("metric", "x" * 129, 1.5),
    ]
    assert scripted.run(*steps, host=host).statuses == [0, 0, Status.INVALID, 0, 0, 0, Status.INVALID, Status.INVALID]
    assert host.lines[:2] == [(LogLevel.DEBUG, "debug"), (LogLevel.ERROR, "an error: ü")]
    assert len(host.lines[2][1]) == 16 * 1024
    assert host.metrics == {"rows": 4.0}


def test_the_clock_is_the_hosts(scripted: Scripted) -> None:
    before = time.time_ns() // 1000
    (told,) = scripted.run(call("now")).statuses
    assert before <= told <= time.time_ns() // 1000


def test_random_bytes_differ(scripted: Scripted) -> None:
    class Keeping(Recorder):
        pass

    host = Keeping()
    # The buffer of `random` is emitted: log it as text would be lossy.
    result = scripted.run(call("random", buffer(32)), call("random", 0, 2 * MEGABYTE), host=host)
    assert result.statuses == [0, Status.INVALID]


def test_nobody_is_cancelled_until_somebody_is(scripted: Scripted) -> None:
    assert scripted.run(call("is_cancelled")).statuses == [0]


def test_the_number_of_counters_is_limited(scripted: Scripted) -> None:
    host = Recorder()
    steps = [call("metric", f"n{number}", 1.0) for number in range(MAX_METRICS + 1)]
    statuses = scripted.run(*steps, call("metric", "n0", 1.0), host=host).statuses
    assert statuses == [Status.OK] * MAX_METRICS + [Status.INVALID, Status.OK]
    assert len(host.metrics) == MAX_METRICS


@pytest.mark.parametrize("cursor", ["NaN", "-Infinity", '"\\ud800"'])
def test_a_barrier_that_only_python_would_read_is_refused(scripted: Scripted, cursor: str) -> None:
    host = Recorder()
    text = f'{{"cursor": {cursor}, "final": true}}'
    assert scripted.run(call("barrier", text), host=host).statuses == [Status.INVALID]
    assert host.calls == []


def test_dead_letters_may_be_larger_than_other_control_messages(scripted: Scripted) -> None:
    host = Recorder()
    row = {"letters": [{"record": {"v": "x" * MAX_CONTROL_BYTES}}]}
    roomy = sandbox(max_memory=256 * MEGABYTE)
    assert scripted.run(call("emit_dlq_batch", row), host=host, sandbox=roomy).statuses == [Status.OK]
    assert host.calls == [("emit_dlq_batch", row)]


@pytest.mark.parametrize(("name", "limit"), [("drift", MAX_CONTROL_BYTES), ("emit_dlq_batch", MAX_LETTERS_BYTES)])
def test_a_control_message_has_a_limit(scripted: Scripted, name: str, limit: int) -> None:
    with pytest.raises(SourceError, match=f"{limit + 1} bytes of JSON, over the limit of {limit}"):
        scripted.run(call(name, 0, limit + 1, strict=True), host=Recorder())
