"""Destination connectors of a few lines, for what a real one tells the host: they write nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.engine.written_module import NOTHING_FOUND, OK, Module, write_connector

TAKE: tuple[str, None] = ("take", None)
"""Waits for what comes next, and takes it."""


def drift(*changes: Mapping[str, Any]) -> tuple[str, Any]:
    return "drift", {"changes": changes}


def letters(*messages: str, **others: Any) -> tuple[str, Any]:
    return "emit_dlq_batch", {"letters": [a_letter(message, **others) for message in messages]}


def a_letter(message: str, **others: Any) -> dict[str, Any]:
    return {"record": {"id": 1}, "types": {"id": "integer"}, "message": message, "category": "check", **others}


def commit(sequence: int, rows: int, rejected: int = 0) -> tuple[tuple[str, Any], tuple[str, Any]]:
    prepare = {"sequence": sequence, "rows": rows, "bytes": 0, "rejected": rejected}
    return ("prepare", prepare), ("committed", {"sequence": sequence})


@dataclass
class WrittenDestination:
    """`rb_write` logs its argument, takes `steps` (`TAKE`, or a host function and what to tell it) and answers.

    `rb_compare` takes the steps of `comparison`; without them it is not offered. `rb_check` finds nothing.
    """

    steps: Sequence[tuple[str, Any]] = ()
    columns: Sequence[Mapping[str, Any]] = ()
    failure: Mapping[str, Any] | None = None
    """The error to answer with; without one the table has `columns`."""
    comparison: Sequence[tuple[str, Any]] | None = None
    watermark: Mapping[str, Any] | None = None
    """What `rb_open` tells of the stream's last commit."""

    def write(self, folder: Path) -> str:
        """The path of the connector, for `use`."""
        return write_connector(folder, "destination", self._text())

    def _text(self) -> str:
        module = Module()
        ok = module.answer(OK)
        if self.failure is not None:
            answer = module.answer({"err": dict(self.failure)})
        else:
            answer = module.answer({"ok": {"schema": "raw", "table": "users", "columns": list(self.columns)}})
        verbs = "".join(f'(func (export "{name}") (param i32 i32) (result i64) {ok})' for name in _VERBS)
        opened = module.answer({"ok": {"watermark": self.watermark}})
        verbs += f'(func (export "rb_open") (param i32 i32) (result i64) {opened})'
        if self.comparison is not None:
            comparison = _taken(module, self.comparison)
            verbs += f'(func (export "rb_compare") (param i32 i32) (result i64) {comparison} {ok})'
        return module.text(
            ["next", "read", "drift", "emit_dlq_batch", "prepare", "committed", "log"],
            f"""{verbs}
            (func (export "rb_check") (param i32 i32) (result i64) {module.answer(NOTHING_FOUND)})
            (func (export "rb_write") (param i32 i32) (result i64)
                (drop (call $log (i32.const 0) (local.get 0) (local.get 1)))
                {_taken(module, self.steps)} {answer})""",
        )


def _taken(module: Module, steps: Sequence[tuple[str, Any]]) -> str:
    return " ".join(module.take() if function == "take" else module.tell(function, told) for function, told in steps)


_VERBS = ("rb_spec", "rb_close")
