"""Dead letters in the stores' SQL: how they are written, and which of them count.

add, in chunks ─▶ [letters of sequence 7] ─▶ prepare checkpoint 7 ─▶ COMMIT ─▶ finalise: now they count
                   └── reconcile deletes those whose checkpoint is not committed ──┘
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rapidbyte_dagster.state.models import Checkpoint, DeadLetter
from rapidbyte_dagster.state.texts import as_text, storable

if TYPE_CHECKING:
    from rapidbyte_dagster.state.sql import Execute

# Dead letters of one transaction, and characters of theirs: it has to end within a statement's time, and in SQLite it
# keeps every other stream waiting. One letter alone may be larger.
_LETTERS_AT_ONCE = 1000
_CHARACTERS_AT_ONCE = 16 * 1024 * 1024

# Dead letters of one INSERT: old versions of SQLite take 999 parameters.
_LETTERS_OF_STATEMENT = 75
_LETTER_COLUMNS = (
    "pipeline_name",
    "stream_name",
    "run_id",
    "checkpoint_sequence",
    "stage",
    "failed_at",
    "record_json",
    "types_json",
    "error_message",
    "error_category",
    "sqlstate",
    "constraint_name",
    "column_name",
)

# Whether a dead letter counts.
IS_COMMITTED = (
    "EXISTS (SELECT 1 FROM _rapidbyte_checkpoints AS c WHERE c.pipeline_name = _rapidbyte_dlq.pipeline_name"
    " AND c.stream_name = _rapidbyte_dlq.stream_name AND c.sequence = _rapidbyte_dlq.checkpoint_sequence"
    " AND c.run_id = _rapidbyte_dlq.run_id AND c.status = 'committed')"
)


class Gather:
    """Gives a checkpoint the letters of the numbers that its run announced since its last checkpoint and skipped.

    As many as one transaction can take; it answers how many they were.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._sequence = checkpoint.sequence
        self._key = (checkpoint.pipeline, checkpoint.stream, checkpoint.run_id)

    def __call__(self, execute: Execute) -> int:
        return execute(
            "UPDATE _rapidbyte_dlq SET checkpoint_sequence = ? WHERE id IN (SELECT id FROM _rapidbyte_dlq"
            " WHERE pipeline_name = ? AND stream_name = ? AND run_id = ? AND checkpoint_sequence < ?"
            " AND checkpoint_sequence > (SELECT coalesce(max(sequence), 0) FROM _rapidbyte_checkpoints"
            " WHERE pipeline_name = ? AND stream_name = ? AND run_id = ? AND sequence < ?) LIMIT ?)",
            (self._sequence, *self._key, self._sequence, *self._key, self._sequence, _LETTERS_AT_ONCE),
        ).rowcount


class Append:
    """Inserts dead letters, once, although the transaction may be done again: nobody else adds any of their run."""

    def __init__(self, rows: list[tuple[Any, ...]], *key: str) -> None:
        self._rows = rows
        self._key = key
        """Pipeline, stream and run."""
        self._newest: int | None = None
        """The newest dead letter of all before these, once it was looked up."""

    def __call__(self, execute: Execute) -> None:
        if self._newest is None:
            [self._newest] = execute("SELECT coalesce(max(id), 0) FROM _rapidbyte_dlq").fetchone()
        elif execute(
            "SELECT 1 FROM _rapidbyte_dlq"
            " WHERE id > ? AND pipeline_name = ? AND stream_name = ? AND run_id = ? LIMIT 1",
            (self._newest, *self._key),
        ).fetchone():
            return
        row = f"({', '.join('?' * len(_LETTER_COLUMNS))})"
        for start in range(0, len(self._rows), _LETTERS_OF_STATEMENT):
            rows = self._rows[start : start + _LETTERS_OF_STATEMENT]
            execute(
                f"INSERT INTO _rapidbyte_dlq ({', '.join(_LETTER_COLUMNS)}) VALUES {', '.join([row] * len(rows))}",
                tuple(value for each in rows for value in each),
            )


def chunks(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """`letters` in parts that one transaction can take."""
    chunk: list[DeadLetter] = []
    size = 0
    for letter in letters:
        if chunk and (len(chunk) == _LETTERS_AT_ONCE or size + letter.size > _CHARACTERS_AT_ONCE):
            yield chunk
            chunk, size = [], 0
        chunk.append(letter)
        size += letter.size
    if chunk:
        yield chunk


def letter_row(letter: DeadLetter, pipeline: str, stream: str, run_id: str, sequence: int) -> tuple[Any, ...]:
    """In the order of `_LETTER_COLUMNS`."""
    texts = (letter.message, letter.category.value, letter.sqlstate, letter.constraint, letter.column)
    return (
        *(pipeline, stream, run_id, sequence, letter.stage, as_text(letter.failed_at)),
        *(letter.record_json, letter.types_json),
        *(storable(text) if text is not None else None for text in texts),
    )


def letters_of(pipeline: str, stream: str, run_id: str | None) -> tuple[str, tuple[str, ...]]:
    """The condition of the dead letters that count, and its parameters."""
    condition = f"pipeline_name = ? AND stream_name = ? AND {IS_COMMITTED}"
    if run_id is None:
        return condition, (pipeline, stream)
    return f"{condition} AND run_id = ?", (pipeline, stream, run_id)
