"""One connector at work: its engine, its guest, its time limit, and the switch that stops it.

    Connector.load ── enter ── call("rb_open") ── call("rb_read" | "rb_write" | …) ── exit (rb_close)
                                    │
                       a host function fails: status to the guest, reason kept here
                       the guest gives up with kind "host": `call` raises the reason

Host functions never raise through wasmtime (see `linking.py`). A trap, a stop or a result that breaks the ABI is the
instance's death: nothing more is called in it, `rb_close` neither.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import wasmtime
from typing_extensions import Self

from rapidbyte_dagster.errors import InternalError, Kind, RapidbyteError, Stage
from rapidbyte_dagster.runtime import abi
from rapidbyte_dagster.runtime.compiled import new_engine
from rapidbyte_dagster.runtime.guest import Guest, NoMemory
from rapidbyte_dagster.runtime.host import Host, StreamAborted
from rapidbyte_dagster.runtime.outcome import HOST, Malformed, Reporter, parse_result
from rapidbyte_dagster.runtime.sandbox import Sandbox
from rapidbyte_dagster.runtime.status import STATUS_OF_KIND, Refusal, Status

if TYPE_CHECKING:
    from rapidbyte_dagster.runtime.connector import Connector

_LOG = logging.getLogger(__name__)

DISPOSAL_SECONDS: Final = 5.0
"""How long the end of an instance waits for a thread that is still inside the host after `cancel`."""

CLOSE_SECONDS: Final = 10.0
"""For `rb_close`, which says goodbye to a server that may have vanished."""

SIGNAL_SLICE_SECONDS: Final = 0.1
"""How often the main thread looks for signals while a guest runs on a thread of its own."""

T = TypeVar("T")


class Instance:
    """A sandboxed, running connector. A context manager; `call` is for one thread at a time, `cancel` for any.

    `host` is what its batch functions reach, `stage` where its errors are told to have happened. Its time limit runs
    from `__enter__` on.
    """

    def __init__(self, connector: Connector, *, host: Host, sandbox: Sandbox, stage: Stage) -> None:
        self._connector = connector
        self._host = host
        self._sandbox = sandbox
        self.stage = stage
        self._report = Reporter(connector.manifest.name, stage, sandbox)
        # Reentrant: a signal handler may cancel while its own thread is in here.
        self._lock = threading.RLock()
        self._running = threading.Lock()
        """Held while a thread is inside the guest."""
        self._stop: Kind | None = None
        self._timer: threading.Timer | None = None
        self._engine: wasmtime.Engine | None = None
        self._guest: Guest | None = None
        self._alive = False
        self._failure: BaseException | None = None
        """What a host function failed with last, during the current verb."""
        self._peak_memory = 0

    @property
    def peak_memory(self) -> int:
        """The most bytes of linear memory it had, as of the end of its last verb; kept after its end."""
        return self._peak_memory

    @property
    def stopped(self) -> RapidbyteError | None:
        """The error of whoever is still in it, once it was cancelled or its time was up."""
        return None if self._stop is None else self._report.stopped(self._stop)

    def __enter__(self) -> Self:
        if self._sandbox.timeout_seconds is not None:
            self._timer = threading.Timer(self._sandbox.timeout_seconds, self.cancel, (Kind.TIMEOUT,))
            self._timer.daemon = True
            self._timer.start()
        try:
            self._run(self._start)
        except BaseException:
            self._dispose()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._alive:
                self._close()
        finally:
            self._dispose()

    def call(self, verb: str, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Run `verb`; what it answers under `ok`.

        Raises the `RapidbyteError` that fits: the guest's own (`err`), the host's reason that made the guest give up,
        kind `connector` for a trap or a broken ABI, `resource` for too little memory, `RunCancelled` or kind `timeout`
        once stopped. Raises `StreamAborted` when the host did and the guest gave up because of it.
        """
        if not self._alive:
            raise self.stopped or InternalError(f"{verb} was called after the connector's end", stage=self.stage)
        if not self._connector.offers(verb):
            raise InternalError(f"connector {self._connector.manifest.name} has no verb {verb}", stage=self.stage)
        text = json.dumps(argument, allow_nan=False, default=dict).encode()
        return self._run(lambda: self._call(verb, text))

    def cancel(self, reason: Kind = Kind.CANCELLED) -> None:
        """Stop the guest within 0.5 s, for good. For any thread, any number of times; the first reason stays.

        A computing guest is interrupted, a wait for a socket ends, every later host call answers `CANCELLED`. A thread
        that waits inside `Host.emit` or `Host.next` is the host's own to wake.
        """
        with self._lock:
            self._stop = self._stop or reason
            if self._engine is not None:
                self._engine.increment_epoch()
            if self._guest is not None:
                self._guest.sockets.wake_all()

    def _start(self) -> None:
        with self._lock:
            if (stopped := self.stopped) is not None:
                raise stopped
            self._engine = new_engine()
            self._guest = guest = Guest(
                self._engine,
                self._sandbox,
                host=self._host,
                stage=self.stage,
                stopping=lambda: self._stop is not None,
                keep=self._keep,
            )
        with self._reported("its start"):
            guest.instantiate(self._connector.compiled)
            version = guest.abi_version()
        if version != abi.VERSION:
            raise self._report.wrong_version(version)
        self._alive = True

    def _call(self, verb: str, argument: bytes) -> dict[str, Any]:
        assert self._guest is not None
        self._failure = None
        self._alive = False
        with self._reported(verb):
            ok, err = parse_result(self._guest.run_verb(verb, argument))
        self._alive = True
        if ok is not None:
            return ok
        raise self._given_up(err)

    def _close(self) -> None:
        """What goes wrong here hides nothing that happened before and undoes nothing that succeeded."""
        limit = threading.Timer(CLOSE_SECONDS, self.cancel, (Kind.TIMEOUT,))
        limit.daemon = True
        limit.start()
        try:
            with contextlib.suppress(RapidbyteError, StreamAborted):
                self.call("rb_close", {})
        finally:
            limit.cancel()

    def _given_up(self, err: dict[str, Any]) -> Exception:
        """The error behind a guest's `err`."""
        if (stopped := self.stopped) is not None:
            # Whatever the guest made of it, a lost connection for instance: it was stopped.
            return stopped
        if err["kind"] != HOST:
            return self._report.guest_failed(err)
        failure = self._failure
        if isinstance(failure, StreamAborted):
            return failure
        if isinstance(failure, Refusal | RapidbyteError):
            error = self._report.host_failed(failure.info, err["message"])
            error.__cause__ = failure
            return error
        return self._report.nothing_failed(err["message"])

    @contextlib.contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """However `what` ends without a result, as an error of this package."""
        try:
            yield
        except wasmtime.Trap as trap:
            raise self.stopped or self._report.trapped(trap, what, self._memory_in_use()) from trap
        except wasmtime.WasmtimeError as error:
            raise self._report.not_started(error) from error
        except NoMemory as reason:
            raise self._report.out_of_memory(str(reason)) from reason
        except Malformed as reason:
            raise self.stopped or self._report.malformed(reason, what) from reason
        finally:
            self._peak_memory = max(self._peak_memory, self._memory_in_use())

    def _memory_in_use(self) -> int:
        return self._guest.memory.size if self._guest is not None else 0

    def _keep(self, function: str, failure: BaseException) -> int:
        """Keep what host function `function` raised; the status for the guest. Called at the edge: must not raise."""
        if isinstance(failure, Refusal):
            status = failure.status
        elif isinstance(failure, StreamAborted):
            status = Status.ABORTED
        elif isinstance(failure, RapidbyteError):
            status = STATUS_OF_KIND.get(failure.kind, Status.FAILED)
        else:
            status = Status.FAILED
            bug = InternalError(f"host function `{function}` failed: {type(failure).__name__}: {failure}")
            bug.__cause__ = failure
            failure = bug
        self._failure = failure
        return status

    def _run(self, work: Callable[[], T]) -> T:
        """Do `work` in the guest, on a thread that no signal handler interrupts.

        Python runs signal handlers on the main thread: their exception could surface inside a callback of wasmtime,
        and a long native call would keep them waiting. So there the work gets a thread of its own.
        """
        if threading.current_thread() is not threading.main_thread():
            with self._running:
                return work()
        results: list[T] = []
        failures: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                with self._running:
                    results.append(work())
            except BaseException as failure:  # noqa: BLE001  a thread's edge: raised again below
                failures.append(failure)
            finally:
                done.set()

        thread = threading.Thread(target=run, name=f"connector {self._report.connector}", daemon=True)
        try:
            thread.start()
            # Not one long wait: not everything that sets off a signal handler wakes the thread too.
            while not done.wait(SIGNAL_SLICE_SECONDS):
                pass
        except BaseException:
            self.cancel()
            done.wait(DISPOSAL_SECONDS)
            raise
        if failures:
            raise failures[0]
        return results[0]

    def _dispose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._alive = False
        if not self._running.acquire(timeout=DISPOSAL_SECONDS):
            # Freeing memory under a thread that is still inside would crash the process.
            _LOG.warning("connector %s does not come back from its host; its memory is kept", self._report.connector)
            return
        try:
            with self._lock:
                guest, engine = self._guest, self._engine
                self._guest = self._engine = None
            if guest is not None:
                guest.close()
            if engine is not None:
                engine.close()
        finally:
            self._running.release()
