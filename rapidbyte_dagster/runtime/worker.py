"""What the engine asks of a connector, wherever it runs: in a sandbox (`Instance`), or in the host itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self

from rapidbyte_dagster.config.manifest import Manifest
from rapidbyte_dagster.errors import Kind, RapidbyteError, Stage
from rapidbyte_dagster.runtime.host import Host
from rapidbyte_dagster.runtime.sandbox import Sandbox


class Worker(Protocol):
    """One connector at work. `call` is for one thread at a time, `cancel` for any."""

    stage: Stage

    @property
    def peak_memory(self) -> int:
        """Bytes; kept after its end."""
        ...

    @property
    def stopped(self) -> RapidbyteError | None:
        """The error of whoever is still in it, once it was cancelled or its time was up."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def call(self, verb: str, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Run `verb`; what it answers. Raises `RapidbyteError`, or `StreamAborted` where the host did."""
        ...

    def cancel(self, reason: Kind = Kind.CANCELLED) -> None:
        """Stop it within 0.5 s, for good; any number of times, the first reason stays."""
        ...


class Runnable(Protocol):
    """A connector as loaded: any number of workers can be made of it."""

    @property
    def manifest(self) -> Manifest: ...

    def offers(self, verb: str) -> bool:
        """Whether `verb` can be called in its workers."""
        ...

    def worker(self, host: Host, sandbox: Sandbox, stage: Stage) -> Worker: ...
