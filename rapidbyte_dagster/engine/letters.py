"""Rows that a connector set aside, as it tells of them, read: a guest is not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rapidbyte_dagster.config import Redactor
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.state import DeadLetter, LetterCategory, utc_now

# Characters that a letter takes up in the channel beside those of its row: its objects, its short texts.
_OVERHEAD = 512


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead letters of a source or a transform on their way through the channel, to the checkpoint that covers them."""

    letters: tuple[DeadLetter, ...]
    sequence: int
    """The number of the barrier that follows them."""
    size: int
    """What they weigh, about as many bytes."""
    stream: str | None = None
    """Whose they are, where several streams share a channel."""


class _Letter(BaseModel):
    model_config = ConfigDict(strict=True)

    record: dict[str, Any] | None
    types: dict[str, str]
    message: str
    category: LetterCategory = Field(strict=False)
    sqlstate: Annotated[str, StringConstraints(pattern="^[0-9A-Z]{5}$")] | None = None
    constraint: str | None = None
    column: str | None = None


class _Batch(BaseModel):
    letters: tuple[_Letter, ...]


def read_letters(
    payload: Mapping[str, Any], stage: Stage, redactor: Redactor, *, place: str | None = None
) -> tuple[DeadLetter, ...]:
    """The argument of `emit_dlq_batch`. Raises an error of kind `protocol` that shows none of its values.

    `place` is what a letter has as its stage, where several connectors are of one.

    What is told about a row is without secrets. The row itself, and its types, stay as they are: it is to be written
    again some day.
    """
    faults = []
    try:
        letters = _Batch.model_validate(payload).letters
    except ValidationError as invalid:
        letters = ()
        faults = [
            f"{'.'.join(map(str, fault['loc'][:_SHOWN]))}: {fault['msg']}"
            for fault in invalid.errors(include_input=False)
        ]
    for number, letter in enumerate(letters):
        if not all(type(value) in _SCALARS for value in (letter.record or {}).values()):
            faults.append(f"letters.{number}.record: a value is null, true, false, a whole number or a text")
            break
    if faults:
        raise violation(stage, f"told of dead letters in a form that the ABI does not have: {faults[0]}")
    now = utc_now()
    return tuple(
        DeadLetter(
            record_json=_text(letter.record),
            types_json=_text(letter.types),
            message=redactor.redact(letter.message),
            category=letter.category,
            stage=place or str(stage),
            failed_at=now,
            sqlstate=letter.sqlstate,
            constraint=redactor.redact(letter.constraint) if letter.constraint is not None else None,
            column=redactor.redact(letter.column) if letter.column is not None else None,
        )
        for letter in letters
    )


def size_of(letters: tuple[DeadLetter, ...]) -> int:
    return sum(letter.size + _OVERHEAD for letter in letters)


_SCALARS = (type(None), bool, int, str)

# Of the place of a fault: letters, number, key. What is below are the names of columns.
_SHOWN = 3


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
