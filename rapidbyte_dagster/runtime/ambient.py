"""The host functions of the guest's surroundings: log, counters, the clock, randomness, the stop signal."""

from __future__ import annotations

import math
import os
import time

from rapidbyte_dagster.runtime import abi
from rapidbyte_dagster.runtime.dialing import StopSignal
from rapidbyte_dagster.runtime.host import Host, LogLevel
from rapidbyte_dagster.runtime.memory import GuestMemory
from rapidbyte_dagster.runtime.status import Refusal, Status


class Ambient:
    """What a guest knows of the world beside its sockets: only what it was given."""

    def __init__(self, memory: GuestMemory, host: Host, stopping: StopSignal) -> None:
        self._memory = memory
        self._host = host
        self._stopping = stopping
        self._counters: set[str] = set()

    def log(self, level: int, address: int, length: int) -> int:
        line = bytes(self._memory.view(address, length)[: abi.MAX_LOG_BYTES])
        try:
            named = LogLevel(level)
        except ValueError:
            raise Refusal(Status.INVALID, f"`log` has no level {level}") from None
        self._host.log(named, line.decode("utf-8", "replace"))
        return Status.OK

    def metric(self, address: int, length: int, value: float) -> int:
        if not 0 < length <= abi.MAX_METRIC_NAME_BYTES:
            raise Refusal(Status.INVALID, f"`metric` takes a name of 1 to {abi.MAX_METRIC_NAME_BYTES} bytes")
        try:
            name = bytes(self._memory.view(address, length)).decode("utf-8")
        except UnicodeDecodeError:
            raise Refusal(Status.INVALID, "`metric` takes a name in UTF-8") from None
        if not math.isfinite(value):
            raise Refusal(Status.INVALID, f"`metric` cannot add {value} to {name!r}")
        if name not in self._counters:
            if len(self._counters) >= abi.MAX_METRICS:
                raise Refusal(Status.INVALID, f"`metric` keeps at most {abi.MAX_METRICS} counters")
            self._counters.add(name)
        self._host.metric(name, value)
        return Status.OK

    def now(self) -> int:
        return time.time_ns() // 1000

    def random(self, address: int, length: int) -> int:
        if length > abi.MAX_RANDOM_BYTES:
            raise Refusal(Status.INVALID, f"`random` gives at most {abi.MAX_RANDOM_BYTES} bytes at once")
        self._memory.view(address, length)[:] = os.urandom(length)
        return Status.OK

    def pause(self, milliseconds: int) -> int:
        if self._stopping():
            return Status.CANCELLED
        time.sleep(min(milliseconds, abi.MAX_PAUSE_MS) / 1000)
        return Status.OK

    def is_cancelled(self) -> int:
        return 1 if self._stopping() else 0
