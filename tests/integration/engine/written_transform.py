"""Transform connectors of a few lines, for what a real one does on a bad day only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.engine.written_destination import TAKE
from tests.integration.engine.written_module import NOTHING_FOUND, OK, Module, write_connector

SPIN: tuple[str, None] = ("spin", None)
"""Computes for ever."""


def emit(message: bytes) -> tuple[str, bytes]:
    return "emit", message


def passed(sequence: int, **counts: int) -> tuple[str, Any]:
    return "barrier", {"sequence": sequence, **counts}


@dataclass
class WrittenTransform:
    """`rb_transform` logs its argument, takes `steps` (`TAKE`, `SPIN`, what to emit, or a host function and what to
    tell it) and answers `answer`. `rb_check` finds nothing."""

    steps: Sequence[tuple[str, Any]] = ()
    answer: dict[str, Any] = field(default_factory=lambda: OK)
    opened: dict[str, Any] = field(default_factory=lambda: OK)

    def write(self, folder: Path) -> str:
        """The path of the connector, for `use`."""
        folder.mkdir(exist_ok=True)
        return write_connector(folder, "transform", self._text())

    def _text(self) -> str:
        module = Module()
        ok = module.answer(OK)
        verbs = "".join(
            f'(func (export "{name}") (param i32 i32) (result i64) {ok})' for name in ("rb_spec", "rb_close")
        )
        return module.text(
            ["next", "read", "emit", "barrier", "emit_dlq_batch", "log"],
            f"""{verbs}
            (func (export "rb_open") (param i32 i32) (result i64) {module.answer(self.opened)})
            (func (export "rb_check") (param i32 i32) (result i64) {module.answer(NOTHING_FOUND)})
            (func (export "rb_transform") (param i32 i32) (result i64)
                (drop (call $log (i32.const 0) (local.get 0) (local.get 1)))
                {" ".join(_step(module, *step) for step in self.steps)} {module.answer(self.answer)})""",
        )


def _step(module: Module, function: str, told: Any) -> str:
    if (function, told) == TAKE:
        return module.take()
    if (function, told) == SPIN:
        return "(loop $spin (br $spin))"
    return module.emit(told) if function == "emit" else module.tell(function, told)
