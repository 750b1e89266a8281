"""Source connectors of a few lines, for what a real one does on a bad day only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.integration.engine.written_module import NOTHING_FOUND, OK, Module, write_connector

SCHEMA = pa.schema([pa.field("id", pa.int32())])
FINAL: dict[str, Any] = {"cursor": None, "final": True}

_SPIN = "(loop $spin (br $spin))"


def a_batch(*ids: int) -> bytes:
    batch = pa.RecordBatch.from_arrays([pa.array(ids, pa.int32())], schema=SCHEMA)
    return bytes(batch.serialize().to_pybytes())


def a_schema() -> bytes:
    return bytes(SCHEMA.serialize().to_pybytes())


@dataclass
class WrittenSource:
    """`rb_read` sets `letters` aside, emits `messages`, marks `barriers`, computes for a while (or for ever) and
    answers `answer`.

    `rb_describe` emits `description`; without one it is not offered. `rb_check` finds nothing.
    """

    messages: Sequence[bytes] = ()
    barriers: Sequence[dict[str, Any]] = ()
    answer: dict[str, Any] = field(default_factory=lambda: OK)
    spins_before_answer: int = 0
    never_answers: bool = False
    never_closes: bool = False
    description: Sequence[bytes] | None = None
    letters: Sequence[dict[str, Any]] = ()

    def write(self, folder: Path) -> str:
        """The path of the connector, for `use`."""
        return write_connector(folder, "source", _text(self))


def _text(source: WrittenSource) -> str:
    module = Module()
    steps = []
    if source.letters:
        steps.append(module.tell("emit_dlq_batch", {"letters": list(source.letters)}))
    steps += [module.emit(message) for message in source.messages]
    steps += [module.tell("barrier", barrier) for barrier in source.barriers]
    if source.never_answers:
        steps.append(_SPIN)
    if source.spins_before_answer:
        steps.append(
            f"(local.set $n (i64.const {source.spins_before_answer})) (loop $wait"
            " (local.set $n (i64.sub (local.get $n) (i64.const 1)))"
            " (br_if $wait (i64.ne (local.get $n) (i64.const 0))))"
        )
    steps.append(module.answer(source.answer))
    ok = module.answer(OK)
    close = _SPIN if source.never_closes else ""
    verbs = "".join(f'(func (export "{name}") (param i32 i32) (result i64) {ok})' for name in _VERBS)
    if source.description is not None:
        description = " ".join(module.emit(message) for message in source.description)
        verbs += f'(func (export "rb_describe") (param i32 i32) (result i64) {description} {ok})'
    return module.text(
        ["emit", "barrier", "emit_dlq_batch"],
        f"""{verbs}
        (func (export "rb_check") (param i32 i32) (result i64) {module.answer(NOTHING_FOUND)})
        (func (export "rb_close") (param i32 i32) (result i64) {close} {ok})
        (func (export "rb_read") (param i32 i32) (result i64) (local $n i64) {" ".join(steps)})""",
    )


_VERBS = ("rb_spec", "rb_open", "rb_discover")
