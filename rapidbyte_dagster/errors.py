"""Every error of this package, as one tree.

    RapidbyteError            exit code
    ├── ConfigError            2   the pipeline file, the environment, a connector that is not one
    ├── SchemaError            3   source and destination disagree about a table's shape
    ├── SourceError            4   the source connector or the database behind it
    ├── DestinationError       5   the destination connector or the database behind it
    ├── StateError             6   the state store
    ├── RunCancelled           7   somebody asked the run to stop
    ├── TransformError         8   a transform, or a row that it refuses
    ├── UsageError            64   the command line
    └── InternalError         70   a bug of ours

The class says *where* (and so the exit code), `kind` says *what* (and so whether it is worth trying again).
An error reads as one message: what happened, where, and what to do next.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar

from typing_extensions import Self, TypedDict, Unpack

BUG_FRAMES = 3
"""How many of the innermost frames a bug's message names: enough to find it, short enough to be read."""


class Kind(str, Enum):
    """What went wrong. The values are part of the connector ABI: guests report them by name."""

    __str__ = str.__str__

    CONFIG = "config"
    UNSUPPORTED = "unsupported"
    SCHEMA = "schema"
    AUTH = "auth"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    DENIED = "denied"
    """The sandbox refused: a host outside the allowed ones, a file that the config does not name."""
    TLS = "tls"
    TRANSIENT_NETWORK = "transient_network"
    TRANSIENT_DB = "transient_db"
    RATE_LIMIT = "rate_limit"
    DATA = "data"
    """A row's own fault: out of range, a constraint, text that is not UTF-8."""
    RESOURCE = "resource"
    """Disk full, memory limit reached, too many connections for good."""
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PROTOCOL = "protocol"
    """The peer or the connector said something that its protocol does not allow."""
    CONNECTOR = "connector"
    """The module itself: not a connector, tampered with, trapped, handed over a wild pointer."""
    STATE = "state"
    USAGE = "usage"
    INTERNAL = "internal"

    @property
    def retryable(self) -> bool:
        return self in (Kind.TRANSIENT_NETWORK, Kind.TRANSIENT_DB, Kind.RATE_LIMIT)


class Stage(str, Enum):
    """Which part of a run an error belongs to."""

    __str__ = str.__str__

    CONFIG = "config"
    SOURCE = "source"
    TRANSFORM = "transform"
    DESTINATION = "destination"
    STATE = "state"
    ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What an error carries beside its message; every part but `kind` and `message` may be missing."""

    kind: Kind
    message: str
    stage: Stage | None = None
    stream: str | None = None
    detail: str | None = None
    hint: str | None = None
    sqlstate: str | None = None

    def with_context(self, *, stage: Stage | None = None, stream: str | None = None) -> ErrorInfo:
        """The same error, told where it happened unless it already knows."""
        return replace(self, stage=self.stage or stage, stream=self.stream or stream)


class ErrorParts(TypedDict, total=False):
    """What an error may be raised with beside its kind; its class knows the rest."""

    stage: Stage | None
    stream: str | None
    detail: str | None
    hint: str | None
    sqlstate: str | None


class RapidbyteError(Exception):
    """The root of the tree. Raise a leaf."""

    exit_code: ClassVar[int] = 70
    default_kind: ClassVar[Kind] = Kind.INTERNAL
    default_stage: ClassVar[Stage | None] = None

    def __init__(self, message: str, *, kind: Kind | None = None, **parts: Unpack[ErrorParts]) -> None:
        super().__init__(message)
        info = ErrorInfo(kind or self.default_kind, message, **parts)
        self.info = info.with_context(stage=self.default_stage)

    @classmethod
    def from_info(cls, info: ErrorInfo) -> Self:
        error = cls(info.message)
        error.info = info.with_context(stage=cls.default_stage)
        return error

    @property
    def kind(self) -> Kind:
        return self.info.kind

    @property
    def retryable(self) -> bool:
        """Whether whoever called may try the whole run again."""
        return self.info.kind.retryable

    @property
    def hint(self) -> str | None:
        return self.info.hint

    def __str__(self) -> str:
        return render(self.info)


class ConfigError(RapidbyteError):
    """The pipeline file or its environment. `problems` holds every one that was found, not only the first."""

    exit_code = 2
    default_kind = Kind.CONFIG
    default_stage = Stage.CONFIG

    def __init__(
        self, message: str, *, problems: Sequence[str] = (), kind: Kind | None = None, **parts: Unpack[ErrorParts]
    ) -> None:
        super().__init__(message, kind=kind, **parts)
        self.problems = tuple(problems)


class SchemaError(RapidbyteError):
    exit_code = 3
    default_kind = Kind.SCHEMA


class SourceError(RapidbyteError):
    exit_code = 4
    default_stage = Stage.SOURCE


class DestinationError(RapidbyteError):
    exit_code = 5
    default_stage = Stage.DESTINATION


class StateError(RapidbyteError):
    exit_code = 6
    default_kind = Kind.STATE
    default_stage = Stage.STATE


class RunCancelled(RapidbyteError):
    exit_code = 7
    default_kind = Kind.CANCELLED


class TransformError(RapidbyteError):
    exit_code = 8
    default_stage = Stage.TRANSFORM


class UsageError(RapidbyteError):
    exit_code = 64
    default_kind = Kind.USAGE


class InternalError(RapidbyteError):
    exit_code = 70
    default_kind = Kind.INTERNAL


def bug(error: BaseException, *, stage: Stage | None = None, stream: str | None = None) -> InternalError:
    """An exception that nobody expected, as an error: with the lines it came from, and without their values."""
    frames = traceback.extract_tb(error.__traceback__)[-BUG_FRAMES:]
    failure = InternalError(
        f"{type(error).__name__}: {error}",
        stage=stage,
        stream=stream,
        detail=", ".join(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames) or None,
        hint="this is a bug: please report it with this message",
    )
    failure.__cause__ = error
    return failure


def error_from(info: ErrorInfo) -> RapidbyteError:
    """The leaf of the tree that belongs to `info`: by kind where the kind decides, else by stage."""
    by_kind: dict[Kind, type[RapidbyteError]] = {
        Kind.CONFIG: ConfigError,
        Kind.UNSUPPORTED: ConfigError,
        Kind.SCHEMA: SchemaError,
        Kind.CANCELLED: RunCancelled,
        Kind.STATE: StateError,
        Kind.USAGE: UsageError,
        Kind.INTERNAL: InternalError,
    }
    by_stage: dict[Stage, type[RapidbyteError]] = {
        Stage.CONFIG: ConfigError,
        Stage.SOURCE: SourceError,
        Stage.TRANSFORM: TransformError,
        Stage.DESTINATION: DestinationError,
        Stage.STATE: StateError,
        Stage.ENGINE: InternalError,
    }
    at_stage = by_stage.get(info.stage or Stage.ENGINE, InternalError)
    if info.kind is Kind.INTERNAL and info.sqlstate:
        # A database reported it, so that it is no bug of ours: a trigger's own exception, a damaged index.
        return at_stage.from_info(info)
    return by_kind.get(info.kind, at_stage).from_info(info)


def render(info: ErrorInfo) -> str:
    """`info` as the text a person reads: where, what, detail, hint."""
    where = " ".join(part for part in (f"stream {info.stream!r}" if info.stream else "", str(info.stage or "")) if part)
    text = f"{where}: {info.message}" if where else info.message
    if info.sqlstate:
        text += f" (SQLSTATE {info.sqlstate})"
    text += f" [{info.kind}]"
    if info.detail:
        text += f"\n  detail: {_indented(info.detail)}"
    if info.hint:
        text += f"\n  hint: {_indented(info.hint)}"
    return text


def _indented(text: str) -> str:
    """`text` below its label, without blank lines: what databases and compilers tell has several lines."""
    return "\n    ".join(line.rstrip() for line in text.strip().splitlines() if line.strip())
