"""Dead letters in the stores' SQL: how they are written, which of them count, and which were replayed.

add, in chunks ─▶ [letters of sequence 7] ─▶ prepare checkpoint 7 ─▶ COMMIT ─▶ finalise: now they count
                   └── reconcile deletes those whose checkpoint is not committed ──┘

mark, in chunks ─▶ [letters, replayed by sequence 8] ─▶ prepare 8 ─▶ COMMIT ─▶ finalise: now they are replayed
                    └── reconcile takes the mark from those whose replay is not committed ──┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rapidbyte_dagster.state.models import Checkpoint, DeadLetter, LetterChoice, MarkedLetter
from rapidbyte_dagster.state.texts import as_text, storable

if TYPE_CHECKING:
    from rapidbyte_dagster.state.sql import Execute

DEFAULT_TABLE = "_rapidbyte_dlq"

# Dead letters of one transaction or one page, and characters of theirs: a transaction has to end within a statement's
# time, and in SQLite it keeps every other stream waiting; a page is held in memory. One letter alone may be larger.
LETTERS_AT_ONCE = 1000
CHARACTERS_AT_ONCE = 16 * 1024 * 1024

# Old versions of SQLite take 999 parameters: dead letters of one INSERT, and ids of one condition.
_LETTERS_OF_STATEMENT = 75
_IDS_OF_STATEMENT = 500
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

# A record and its types, so that it can be written again; but not bytes of a source that are no text.
IS_TOLD = (
    "record_json <> 'null' AND types_json IS NOT NULL AND types_json <> '{}'"
    " AND NOT (stage = 'source' AND error_category = 'invalid_text')"
)

_OF_STREAM = "pipeline_name = ? AND stream_name = ?"

# The same, so that no index is of use: where letters are read in the order of their numbers, a database would otherwise
# find and sort all of the stream's for each page.
_OF_STREAM_BY_NUMBER = "pipeline_name || '' = ? AND stream_name || '' = ?"

Condition = tuple[str, tuple[Any, ...]]
"""SQL and its parameters."""


class LetterTable:
    """The conditions on one table of dead letters. Its name needs no more quoting than its quotes."""

    def __init__(self, name: str = DEFAULT_TABLE) -> None:
        self.name = name
        self.sql = sql = f'"{name}"'
        self.is_committed = (
            f"EXISTS (SELECT 1 FROM _rapidbyte_checkpoints AS c WHERE c.pipeline_name = {sql}.pipeline_name"
            f" AND c.stream_name = {sql}.stream_name AND c.sequence = {sql}.checkpoint_sequence"
            f" AND c.run_id = {sql}.run_id AND c.status = 'committed')"
        )
        """Whether a dead letter counts."""
        self.is_replayed = (
            f"({sql}.replayed_by_run IS NOT NULL AND EXISTS (SELECT 1 FROM _rapidbyte_checkpoints AS c"
            f" WHERE c.pipeline_name = {sql}.pipeline_name AND c.stream_name = {sql}.stream_name"
            f" AND c.sequence = {sql}.replayed_sequence AND c.run_id = {sql}.replayed_by_run"
            " AND c.status = 'committed'))"
        )
        """Whether the replay that took it is known to be committed."""
        self.is_superseded = (
            f"{sql}.checkpoint_sequence < (SELECT coalesce(max(CASE WHEN c.replaced = 1 THEN c.sequence"
            " WHEN c.is_final = 1 THEN c.anew_after + 1 END), 0) FROM _rapidbyte_checkpoints AS c"
            f" WHERE c.pipeline_name = {sql}.pipeline_name AND c.stream_name = {sql}.stream_name"
            " AND c.status = 'committed')"
        )
        """Whether its row has been read again since, by a run that replaced the table or merged everything anew."""
        self.waits = f"(NOT {self.is_replayed} AND NOT {self.is_superseded})"

    def of(self, pipeline: str, stream: str, choice: LetterChoice) -> Iterator[Condition]:
        """The dead letters that count and that `choice` means: one condition for each part of its ids."""
        condition = f"{_OF_STREAM} AND {self.is_committed}"
        parameters: tuple[Any, ...] = (pipeline, stream)
        if choice.run_id is not None:
            condition += " AND run_id = ?"
            parameters += (choice.run_id,)
        if choice.categories:
            condition += f" AND error_category IN ({_places(choice.categories)})"
            parameters += tuple(category.value for category in choice.categories)
        if choice.failed_before is not None:
            condition += " AND failed_at < ?"
            parameters += (as_text(choice.failed_before),)
        if choice.waiting is not None:
            condition += f" AND {'' if choice.waiting else 'NOT '}{self.waits}"
        if not choice.ids:
            yield condition, parameters
        ids = sorted(set(choice.ids))
        for start in range(0, len(ids), _IDS_OF_STATEMENT):
            some = tuple(ids[start : start + _IDS_OF_STATEMENT])
            yield f"{condition} AND id IN ({_places(some)})", (*parameters, *some)

    def of_types(self, condition: Condition, types: Sequence[str]) -> Iterator[Condition]:
        """Those of `condition` that have one of `types`: one condition for each part of these."""
        sql, parameters = condition
        for start in range(0, len(types), _IDS_OF_STATEMENT):
            some = tuple(types[start : start + _IDS_OF_STATEMENT])
            yield f"{sql} AND types_json IN ({_places(some)})", (*parameters, *some)

    def marked(
        self, pipeline: str, stream: str, run_id: str, sequence: int, stages: Sequence[str] | None = None
    ) -> Condition:
        """Those that a replay has taken for its checkpoint `sequence`; of `stages`, where they are named."""
        condition = "pipeline_name = ? AND stream_name = ? AND replayed_by_run = ? AND replayed_sequence = ?"
        if stages is not None:
            condition += f" AND stage IN ({_places(stages)})"
        return condition, (pipeline, stream, run_id, sequence, *(stages or ()))


def _places(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


class Gather:
    """Gives a checkpoint the letters of the numbers that its run announced since its last checkpoint and skipped.

    As many as one transaction can take; it answers how many they were.
    """

    def __init__(self, table: LetterTable, checkpoint: Checkpoint) -> None:
        self._table = table.sql
        self._sequence = checkpoint.sequence
        self._key = (checkpoint.pipeline, checkpoint.stream, checkpoint.run_id)

    def __call__(self, execute: Execute) -> int:
        return execute(
            f"UPDATE {self._table} SET checkpoint_sequence = ? WHERE id IN (SELECT id FROM {self._table}"
            " WHERE pipeline_name = ? AND stream_name = ? AND run_id = ? AND checkpoint_sequence < ?"
            " AND checkpoint_sequence > (SELECT coalesce(max(sequence), 0) FROM _rapidbyte_checkpoints"
            " WHERE pipeline_name = ? AND stream_name = ? AND run_id = ? AND sequence < ?) LIMIT ?)",
            (self._sequence, *self._key, self._sequence, *self._key, self._sequence, LETTERS_AT_ONCE),
        ).rowcount


class Append:
    """Inserts dead letters, once, although the transaction may be done again: nobody else adds any of their run."""

    def __init__(self, table: LetterTable, rows: list[tuple[Any, ...]], *key: str) -> None:
        self._table = table.sql
        self._rows = rows
        self._key = key
        """Pipeline, stream and run."""
        self._newest: int | None = None
        """The newest dead letter of all before these, once it was looked up."""

    def __call__(self, execute: Execute) -> None:
        if self._newest is None:
            [self._newest] = execute(f"SELECT coalesce(max(id), 0) FROM {self._table}").fetchone()
        elif execute(
            f"SELECT 1 FROM {self._table}"
            " WHERE id > ? AND pipeline_name = ? AND stream_name = ? AND run_id = ? LIMIT 1",
            (self._newest, *self._key),
        ).fetchone():
            return
        row = f"({_places(_LETTER_COLUMNS)})"
        for start in range(0, len(self._rows), _LETTERS_OF_STATEMENT):
            rows = self._rows[start : start + _LETTERS_OF_STATEMENT]
            execute(
                f"INSERT INTO {self._table} ({', '.join(_LETTER_COLUMNS)}) VALUES {', '.join([row] * len(rows))}",
                tuple(value for each in rows for value in each),
            )


class Change(NamedTuple):
    """One change of many letters: of those that meet its condition when their turn comes."""

    sql: str
    """`DELETE FROM …` or `UPDATE … SET …`, with the parameters `values`."""
    values: tuple[Any, ...]
    condition: Condition


def mark(table: LetterTable, condition: Condition, run_id: str, sequence: int, *, told: bool) -> Change:
    """Takes letters that wait, also from a replay that came to nothing: under the stream's lock nobody else is at work.
    `told`: only those that can be written again as they are kept."""
    sql, parameters = condition
    change = f"UPDATE {table.sql} SET replayed_by_run = ?, replayed_sequence = ?"
    return Change(change, (run_id, sequence), (f"{sql} AND {IS_TOLD}" if told else sql, parameters))


def unmark(table: LetterTable, pipeline: str, stream: str, run_id: str | None = None) -> Change:
    """Takes the marks from letters whose replay, or that of `run_id`, is not committed."""
    sql = f"pipeline_name = ? AND stream_name = ? AND replayed_by_run IS NOT NULL AND NOT {table.is_replayed}"
    if run_id is None:
        return give_back(table, (sql, (pipeline, stream)))
    return give_back(table, (f"{sql} AND replayed_by_run = ?", (pipeline, stream, run_id)))


def give_back(table: LetterTable, condition: Condition) -> Change:
    """Takes the marks from letters that were marked."""
    return Change(f"UPDATE {table.sql} SET replayed_by_run = NULL, replayed_sequence = NULL", (), condition)


def purge(table: LetterTable, condition: Condition) -> Change:
    """Deletes letters, but none that a replay has taken of which nobody knows yet what became of it."""
    sql, parameters = condition
    sql += f" AND (replayed_by_run IS NULL OR {table.is_replayed})"
    return Change(f"DELETE FROM {table.sql}", (), (sql, parameters))


def pages(
    read: Callable[[str, tuple[Any, ...]], list[Any]], table: LetterTable, columns: str, condition: Condition
) -> Iterator[list[Any]]:
    """The `columns` of the letters that meet `condition`, oldest first, in parts that memory can take."""
    sql, parameters = condition
    [(oldest, newest)] = read(f"SELECT min(id), max(id) FROM {table.sql} WHERE {sql}", parameters)
    if oldest is None:
        return
    sql = sql.replace(_OF_STREAM, _OF_STREAM_BY_NUMBER, 1)
    after = oldest - 1
    while sizes := read(
        f"SELECT id, length(record_json) + coalesce(length(types_json), 0) FROM {table.sql}"
        f" WHERE {sql} AND id > ? AND id <= ? ORDER BY id LIMIT ?",
        (*parameters, after, newest, LETTERS_AT_ONCE),
    ):
        first = after
        size = 0
        for number, (id, characters) in enumerate(sizes):
            size += characters
            last = number + 1 == len(sizes)
            if last or size + sizes[number + 1][1] > CHARACTERS_AT_ONCE:
                yield read(
                    f"SELECT {columns} FROM {table.sql} WHERE {sql} AND id > ? AND id <= ? ORDER BY id",
                    (*parameters, first, id),
                )
                first, size = id, 0
        after = sizes[-1][0]


def marked_letter(row: tuple[Any, ...]) -> MarkedLetter:
    return MarkedLetter(*row)


def chunks(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """`letters` in parts that one transaction can take."""
    chunk: list[DeadLetter] = []
    size = 0
    for letter in letters:
        if chunk and (len(chunk) == LETTERS_AT_ONCE or size + letter.size > CHARACTERS_AT_ONCE):
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
