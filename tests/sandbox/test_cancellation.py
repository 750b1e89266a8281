"""`cancel` stops a guest within half a second, wherever it is, from any thread."""

from __future__ import annotations

import _thread
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rapidbyte_dagster.engine import CancelToken
from rapidbyte_dagster.engine.stages import Stages
from rapidbyte_dagster.errors import Kind, RapidbyteError, RunCancelled, SourceError, Stage
from rapidbyte_dagster.runtime import Instance, Item, NoData, StreamAborted, Worker
from rapidbyte_dagster.runtime.status import Status
from tests.sandbox.connectors import Scripted, Step, buffer, call, connect, perform, sandbox

CANCEL_SECONDS = 0.5
"""From `cancel` to the end of the verb."""

UNROUTED = "192.0.2.1"
"""TEST-NET-1: an address at which nothing answers."""


@contextmanager
def silent_server(*, backlog: int = 8) -> Iterator[int]:
    """A port that accepts connections in its backlog and never says or reads anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        yield server.getsockname()[1]


def cancelled_after(instance: Instance, steps: list[Step], delay: float) -> tuple[RapidbyteError, float]:
    """Run `steps`, cancel after `delay` seconds: the error, and the seconds from there to the verb's end."""
    cancelled_at: list[float] = []

    def cancel() -> None:
        cancelled_at.append(time.monotonic())
        instance.cancel()

    timer = threading.Timer(delay, cancel)
    timer.start()
    try:
        with pytest.raises(RapidbyteError) as caught:
            perform(instance, *steps)
        return caught.value, time.monotonic() - cancelled_at[0]
    finally:
        timer.join()


def assert_cancelled_in_time(scripted: Scripted, *steps: Step) -> None:
    with scripted.instance() as instance:
        error, seconds = cancelled_after(instance, list(steps), 0.3)
        assert isinstance(error, RunCancelled), error
        assert seconds < CANCEL_SECONDS


def test_a_computing_guest_is_stopped(scripted: Scripted) -> None:
    assert_cancelled_in_time(scripted, {"loop": True})


def test_a_guest_that_calls_the_host_all_the_time_is_stopped(scripted: Scripted) -> None:
    assert_cancelled_in_time(scripted, call("is_cancelled", repeat=10**9))


def test_a_guest_that_waits_in_recv_is_stopped(scripted: Scripted) -> None:
    with silent_server() as port:
        assert_cancelled_in_time(scripted, connect("127.0.0.1", port), call("tcp_recv", 1, buffer(8), 0))


def test_a_guest_that_waits_in_send_is_stopped(scripted: Scripted) -> None:
    with silent_server() as port:
        send = call("tcp_send", 1, buffer(1_000_000), 0, repeat=1_000)
        assert_cancelled_in_time(scripted, connect("127.0.0.1", port), send)


def test_a_guest_that_waits_for_a_connection_is_stopped(scripted: Scripted) -> None:
    # The backlog of this server is full: further attempts wait.
    with silent_server(backlog=0) as port, socket.socket() as filler, socket.socket() as second:
        for sock in (filler, second):
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        time.sleep(0.1)
        assert_cancelled_in_time(scripted, connect("127.0.0.1", port, 60_000))


def test_a_guest_that_waits_for_a_name_is_stopped(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def slow_resolver(*_arguments: Any, **_options: Any) -> Any:
        answer.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "slow")

    monkeypatch.setattr(socket, "getaddrinfo", slow_resolver)
    try:
        assert_cancelled_in_time(scripted, connect("slow.example", 5432, 60_000))
    finally:
        answer.set()


def test_a_guest_that_waits_in_the_tls_handshake_is_stopped(scripted: Scripted) -> None:
    with silent_server() as port:
        handshake = call("tcp_start_tls", 1, {"server_name": "x", "verify": "none"})
        assert_cancelled_in_time(scripted, connect("127.0.0.1", port), handshake)


class BlockingHost(NoData):
    """Blocks in `emit` and `next` until `wake`, as the engine's channel does, then tells that the stream is over."""

    def __init__(self) -> None:
        self.wake = threading.Event()

    def emit(self, message: bytes | bytearray) -> None:
        self._block()

    def next(self) -> Item:
        self._block()
        raise AssertionError("unreachable")

    def _block(self) -> None:
        assert self.wake.wait(10)
        raise StreamAborted


@pytest.mark.parametrize("step", [{"emit": ["x"]}, {"take": True}])
def test_a_guest_that_waits_in_the_host_is_stopped_once_the_host_is_woken(scripted: Scripted, step: Step) -> None:
    host = BlockingHost()
    with scripted.instance(host=host) as instance:
        threading.Timer(0.3, host.wake.set).start()
        error, seconds = cancelled_after(instance, [step, {"loop": True}], 0.3)
        assert isinstance(error, RunCancelled)
        assert seconds < CANCEL_SECONDS


def test_an_aborted_stream_does_not_stop_the_guest(scripted: Scripted) -> None:
    host = BlockingHost()
    host.wake.set()
    assert scripted.run({"take": True}, call("now"), host=host).statuses[0] == Status.ABORTED
    with pytest.raises(StreamAborted):
        scripted.run(call("next", 1024, strict=True), host=host)


def test_the_reason_is_the_first_one(scripted: Scripted) -> None:
    with scripted.instance() as instance:
        instance.cancel(Kind.TIMEOUT)
        instance.cancel()
        with pytest.raises(SourceError) as caught:
            perform(instance)
        assert caught.value.kind is Kind.TIMEOUT


def test_cancelling_before_the_start_keeps_it_from_starting(scripted: Scripted) -> None:
    instance = scripted.instance()
    instance.cancel()
    with pytest.raises(RunCancelled), instance:
        pass


def test_cancelling_after_the_end_does_nothing(scripted: Scripted) -> None:
    with scripted.instance() as instance:
        perform(instance)
    instance.cancel()
    instance.cancel()


def test_a_cancelled_instance_is_not_closed_by_its_guest(scripted: Scripted) -> None:
    with silent_server() as port, scripted.instance() as instance:
        perform(instance, connect("127.0.0.1", port))
        instance.cancel()
        with pytest.raises(RunCancelled):
            perform(instance)


def test_the_time_limit_reaches_a_waiting_socket(scripted: Scripted) -> None:
    started = time.monotonic()
    with (
        silent_server() as port,
        pytest.raises(SourceError, match=r"ran past its limit of 0\.4 s"),
        scripted.instance(sandbox=sandbox(timeout_seconds=0.4)) as instance,
    ):
        perform(instance, connect("127.0.0.1", port), call("tcp_recv", 1, buffer(8), 0))
    assert time.monotonic() - started < 0.4 + CANCEL_SECONDS


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_handler_in_the_main_thread_may_raise(scripted: Scripted) -> None:
    threading.Timer(0.3, _thread.interrupt_main).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), scripted.instance() as instance:
        perform(instance, {"loop": True})
    assert time.monotonic() - started < 0.3 + CANCEL_SECONDS


def test_a_guest_on_another_thread_is_stopped(scripted: Scripted) -> None:
    errors: list[BaseException] = []
    with scripted.instance() as instance:

        def work() -> None:
            try:
                perform(instance, {"loop": True})
            except RapidbyteError as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)
        instance.cancel()
        thread.join(CANCEL_SECONDS)
        assert not thread.is_alive()
    assert [type(error) for error in errors] == [RunCancelled]


def test_a_second_interruption_while_stages_are_stopped_leaves_none_of_them_behind(scripted: Scripted) -> None:
    interruptions = iter(range(3))

    def interrupt() -> None:
        if next(interruptions, None) is not None:
            raise KeyboardInterrupt

    # Where a signal may strike: first between two ticks, then in the middle of stopping.
    stages = Stages(interrupt)
    instance = scripted.instance()

    def loop(_: Worker) -> None:
        perform(instance, {"loop": True})

    stages.add(Stage.SOURCE, instance, loop, "endless")
    try:
        with pytest.raises(KeyboardInterrupt):
            stages.run(interrupt, CancelToken())
        assert next(interruptions, None) is None, "not every interruption has struck"
        assert not [thread for thread in threading.enumerate() if thread.name == "source-endless"]
    finally:
        instance.cancel()
