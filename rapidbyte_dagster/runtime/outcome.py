"""What the end of a verb means: a JSON result, a trap, or a stop, as a value or an error of this package."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

import wasmtime

from rapidbyte_dagster.errors import ConfigError, ErrorInfo, Kind, RapidbyteError, Stage, error_from
from rapidbyte_dagster.runtime import abi
from rapidbyte_dagster.runtime.guest_json import loads
from rapidbyte_dagster.runtime.sandbox import Sandbox

HOST: Final = "host"
"""The `kind` by which a guest says: a host function failed and I give up because of it."""

MAX_TEXT_CHARACTERS: Final = 16 * 1024
"""Of a guest's message, detail or hint; what is longer is cut."""

MAX_FRAMES: Final = 8
"""Function names of a trap's stack that an error shows."""

NEARLY_FULL: Final = 0.9
"""A trap with this share of the memory limit in use is put down to it: guests panic when an allocation fails."""

_GUEST_KINDS = frozenset(kind.value for kind in Kind) - {"connector", "state", "usage"}

_TRAPS = {
    wasmtime.TrapCode.STACK_OVERFLOW: "it used up its stack",
    wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS: "it accessed memory outside its own",
    wasmtime.TrapCode.TABLE_OUT_OF_BOUNDS: "it called a function that does not exist",
    wasmtime.TrapCode.INDIRECT_CALL_TO_NULL: "it called a function that does not exist",
    wasmtime.TrapCode.BAD_SIGNATURE: "it called a function by the wrong type",
    wasmtime.TrapCode.INTEGER_OVERFLOW: "an integer overflowed",
    wasmtime.TrapCode.INTEGER_DIVISION_BY_ZERO: "it divided by zero",
    wasmtime.TrapCode.BAD_CONVERSION_TO_INTEGER: "it converted a number that is no integer",
    wasmtime.TrapCode.UNREACHABLE: "it panicked",
}

_SQLSTATE = re.compile("[0-9A-Z]{5}")

_MEMORY_LIMIT: Final = "`limits.max_memory`"
"""What a guest's hint calls its memory limit; which keys of the pipeline file set it only the host knows."""

_MEMORY_HINT: Final = f"raise {_MEMORY_LIMIT}, or lower `resources.max_batch_bytes`"

_BUG_HINT = "this is a bug in the connector: report it with this message"


class Malformed(Exception):
    """What the guest returned breaks the ABI; reads on from "its result …"."""


def parse_result(text: bytes) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """`(ok, {})` or `(None, err)` of a verb's result. Raises `Malformed`."""
    try:
        value = loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"is not JSON: {error}") from error
    if not isinstance(value, dict) or len(value) != 1:
        raise Malformed('is neither {"ok": …} nor {"err": …}')
    if "ok" in value:
        ok = {} if value["ok"] is None else value["ok"]
        if not isinstance(ok, dict):
            raise Malformed("has no object under `ok`")
        return ok, {}
    err = value.get("err")
    if not isinstance(err, dict) or not isinstance(err.get("message"), str) or not isinstance(err.get("kind"), str):
        raise Malformed("has no `kind` and `message` under `err`")
    return None, err


@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes the errors of one instance: each says which connector, in which stage, within which limits."""

    connector: str
    stage: Stage
    sandbox: Sandbox

    def guest_failed(self, err: dict[str, Any]) -> RapidbyteError:
        """A failure of the guest's own. A kind that the ABI does not have is the connector's fault."""
        kind = Kind(err["kind"]) if err["kind"] in _GUEST_KINDS else Kind.CONNECTOR
        hint, sqlstate = _text(err.get("hint")), _sqlstate(err.get("sqlstate"))
        if kind is Kind.RESOURCE and sqlstate is None:
            hint = self._memory_hint(hint or _MEMORY_HINT)
        failure = self._error(
            kind, err["message"][:MAX_TEXT_CHARACTERS], detail=_text(err.get("detail")), hint=hint, sqlstate=sqlstate
        )
        return error_from(failure.info.with_context(stream=_text(err.get("stream"))))

    def host_failed(self, kept: ErrorInfo, context: str) -> RapidbyteError:
        """A host function's failure, after what the guest says it was doing."""
        info = replace(kept, stage=kept.stage or self.stage)
        if kept.kind is Kind.CONNECTOR:
            message = f"connector {self.connector!r} broke the ABI: {kept.message}"
            info = replace(info, message=message, hint=kept.hint or _BUG_HINT)
        if context := context[:MAX_TEXT_CHARACTERS].rstrip(" :.\n"):
            info = replace(info, message=f"{context}: {info.message}")
        return error_from(info)

    def nothing_failed(self, context: str) -> RapidbyteError:
        return self._error(
            Kind.CONNECTOR,
            f"connector {self.connector!r} blames the host, where nothing failed: {context[:MAX_TEXT_CHARACTERS]}",
            hint=_BUG_HINT,
        )

    def trapped(self, trap: wasmtime.Trap, what: str, memory: int) -> RapidbyteError:
        """A trap of the guest's own making, with `memory` bytes in use."""
        code = trap.trap_code
        reason = _TRAPS.get(code) if code is not None else None
        reason = reason or trap.message.strip().splitlines()[-1].strip()
        # Once per function: a stack that overflowed holds the same one thousands of times.
        names = dict.fromkeys(frame.func_name or f"function {frame.func_index}" for frame in trap.frames)
        frames = list(names)[:MAX_FRAMES]
        where = "in " + " < ".join(frames) if frames else None
        if memory >= self.sandbox.max_memory * NEARLY_FULL:
            return self.out_of_memory(f"{reason} {where or ''}".rstrip())
        message = f"connector {self.connector!r} trapped in {what}: {reason}"
        return self._error(Kind.CONNECTOR, message, detail=where, hint=_BUG_HINT)

    def out_of_memory(self, detail: str) -> RapidbyteError:
        limit = shown_size(self.sandbox.max_memory)
        message = f"connector {self.connector!r} used up its memory limit of {limit}"
        return self._error(Kind.RESOURCE, message, detail=detail, hint=self._memory_hint(_MEMORY_HINT))

    def stopped(self, reason: Kind) -> RapidbyteError:
        """The instance was interrupted: by its own time limit, or from outside."""
        limit = self.sandbox.timeout_seconds
        if reason is Kind.TIMEOUT and limit is not None:
            message = f"connector {self.connector!r} ran past its limit of {limit:g} s"
            keys = self.sandbox.timeout_set_by or (f"`{self.sandbox.section or self.stage}.limits.timeout_seconds`",)
            hint = f"raise {' and '.join(keys)}, or find out what it waits for"
            return self._error(reason, message, hint=hint)
        if reason is Kind.CANCELLED:
            return self._error(reason, "the run was cancelled")
        return self._error(reason, f"connector {self.connector!r} was stopped")

    def malformed(self, reason: Malformed, what: str) -> RapidbyteError:
        message = f"connector {self.connector!r} broke the ABI: its result of {what} {reason}"
        return self._error(Kind.CONNECTOR, message, hint=_BUG_HINT)

    def wrong_version(self, version: object) -> RapidbyteError:
        return ConfigError(
            f"connector {self.connector!r} implements ABI version {version}, this host has {abi.VERSION}",
            kind=Kind.CONNECTOR,
            hint="use a connector that was built for this version",
        )

    def not_started(self, error: wasmtime.WasmtimeError) -> RapidbyteError:
        if "memory minimum size" in str(error):
            return self.out_of_memory("it needs more than that to start")
        message = f"connector {self.connector!r} cannot be started"
        return ConfigError(message, kind=Kind.CONNECTOR, detail=str(error))

    def _memory_hint(self, hint: str) -> str:
        """`hint`, and where it is about the memory limit, the limit and the keys that set it."""
        if _MEMORY_LIMIT not in hint:
            return hint
        keys = " and ".join(self.sandbox.memory_set_by or ("`resources.max_memory`",))
        return f"its memory limit is {shown_size(self.sandbox.max_memory)}: {hint.replace(_MEMORY_LIMIT, keys)}"

    def _error(
        self,
        kind: Kind,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        sqlstate: str | None = None,
    ) -> RapidbyteError:
        return error_from(ErrorInfo(kind, message, self.stage, detail=detail, hint=hint, sqlstate=sqlstate))


def shown_size(size: int) -> str:
    """Bytes as the pipeline file writes them, when they are whole megabytes."""
    megabytes, rest = divmod(size, 1024 * 1024)
    return f"{size} bytes" if rest else f"{megabytes}mb"


def _sqlstate(value: object) -> str | None:
    return value if isinstance(value, str) and _SQLSTATE.fullmatch(value) else None


def _text(value: object) -> str | None:
    return value[:MAX_TEXT_CHARACTERS] if isinstance(value, str) and value else None
