"""How a run's streams ended, for the terminal and for `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.engine import StreamResult
from rapidbyte_dagster.errors import RapidbyteError, RunCancelled


@dataclass(frozen=True)
class Outcome:
    """How one stream ended."""

    stream: str
    result: StreamResult | None = None
    error: RapidbyteError | None = None
    attempts: int = 0

    @property
    def status(self) -> str:
        if self.error is None:
            return "ok"
        return "cancelled" if isinstance(self.error, RunCancelled) else "failed"

    def as_json(self) -> dict[str, Any]:
        result = self.result
        return {
            "stream": self.stream,
            "status": self.status,
            "rows": result.rows if result else 0,
            "bytes": result.bytes if result else 0,
            "seconds": round(result.seconds, 3) if result else 0.0,
            "rejected": result.rejected if result else 0,
            "filtered": (result.filtered or 0) if result else 0,
            "dead_letters": result.dead_letters if result else 0,
            **({"changes": dict(result.changes)} if result and result.changes is not None else {}),
            "attempts": self.attempts,
            "error": str(self.error) if self.error else None,
        }
