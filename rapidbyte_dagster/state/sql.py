"""What the stores have in common: the statements, in the SQL that SQLite and PostgreSQL share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from pydantic import TypeAdapter
from typing_extensions import Self

from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state.dead_letter_sql import (
    IS_TOLD,
    LETTERS_AT_ONCE,
    Append,
    Change,
    Gather,
    LetterTable,
    chunks,
    give_back,
    letter_row,
    mark,
    marked_letter,
    pages,
    purge,
    unmark,
)
from rapidbyte_dagster.state.models import (
    Checkpoint,
    Committed,
    DeadLetter,
    DeadLetterCounts,
    DeadLetterPreview,
    LetterChoice,
    MadeSlot,
    MarkedLetter,
    ResumePoint,
    RunRecord,
    SchemaChange,
    SchemaEvent,
    SchemaState,
    SchemaVersion,
    Watermark,
    utc_now,
)
from rapidbyte_dagster.state.texts import as_text, storable

if TYPE_CHECKING:
    import pyarrow as pa

_SELECT_RUNS = (
    "SELECT run_id, pipeline_name, stream_name, status, started_at, ended_at, row_count, byte_count, attempts,"
    " error_message, rejected_count, dead_letter_count, kind FROM _rapidbyte_runs"
)
_RUN_FIELDS = (
    "run_id",
    "pipeline",
    "stream",
    "status",
    "started_at",
    "ended_at",
    "rows",
    "bytes",
    "attempts",
    "error",
    "rejected",
    "dead_letters",
    "kind",
)

_CHANGES: Final = TypeAdapter(tuple[SchemaChange, ...])

# What a bigint holds: beyond it a database would not even look.
_LARGEST_SEQUENCE = 2**63 - 1


class Rows(Protocol):
    """What a statement gave back: a cursor of either library."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


class Execute(Protocol):
    """Runs one statement; `?` in it stands for a parameter."""

    def __call__(self, statement: str, parameters: tuple[Any, ...] = (), /) -> Rows: ...


T = TypeVar("T")


class SqlStateStore(ABC):
    """See `StateStore`. A backend brings its transactions and its connection."""

    _letters = LetterTable()
    """Where its dead letters are."""

    @abstractmethod
    def _write_together(self, pipeline: str, streams: Sequence[str], work: Callable[[Execute], T]) -> T:
        """`work` in one transaction, while nobody else writes these streams' rows.

        It may be called again, from the start, when nobody knows whether its transaction was committed.
        """

    def _write(self, pipeline: str, stream: str, work: Callable[[Execute], T]) -> T:
        return self._write_together(pipeline, [stream], work)

    @abstractmethod
    def _read(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """The rows of one query."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Checkpoints

    def reconcile(self, pipeline: str, stream: str, watermark: Watermark | None) -> ResumePoint:
        committed = watermark.sequence if watermark else 0
        committer = watermark.run_id if watermark else None
        # Above every number that either side knows of, so that a prepared one is not taken for a committed one.
        highest = committed

        def follow(execute: Execute) -> None:
            nonlocal highest
            # Before anything is discarded: its commit may still be under way in a server that nobody can ask yet.
            (known,) = execute(
                "SELECT max(sequence) FROM _rapidbyte_checkpoints WHERE pipeline_name = ? AND stream_name = ?",
                (pipeline, stream),
            ).fetchone()
            highest = max(highest, known or 0)
            execute(
                "UPDATE _rapidbyte_checkpoints SET status = 'committed', committed_at = ?"
                " WHERE pipeline_name = ? AND stream_name = ? AND status = 'prepared'"
                " AND sequence <= ? AND run_id = coalesce(?, run_id)",
                (_now(), pipeline, stream, committed, committer),
            )
            # Nor can anybody go back to what was committed and is gone again. Without any watermark nobody can tell.
            lost = committed if watermark else _LARGEST_SEQUENCE
            execute(
                "DELETE FROM _rapidbyte_checkpoints"
                " WHERE pipeline_name = ? AND stream_name = ? AND (status = 'prepared' OR sequence > ?)",
                (pipeline, stream, lost),
            )
            execute(
                f"DELETE FROM {self._letters.sql}"
                f" WHERE pipeline_name = ? AND stream_name = ? AND NOT {self._letters.is_committed}",
                (pipeline, stream),
            )

        self._write(pipeline, stream, follow)
        self._change_letters(pipeline, stream, unmark(self._letters, pipeline, stream))
        return ResumePoint(sequence=highest, cursor=watermark.cursor if watermark else None)

    def prepare(self, checkpoint: Checkpoint) -> None:
        self.prepare_together([checkpoint])

    def prepare_together(self, checkpoints: Sequence[Checkpoint]) -> None:
        rows = [(checkpoint, _row(checkpoint)) for checkpoint in checkpoints]

        def insert(execute: Execute) -> Checkpoint | None:
            for checkpoint, row in rows:
                # A unique key alone would refuse to hear the same thing twice.
                inserted = execute(
                    "INSERT INTO _rapidbyte_checkpoints AS known"
                    " VALUES (?, ?, ?, 'prepared', ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (pipeline_name, stream_name, sequence) DO UPDATE SET prepared_at = known.prepared_at"
                    " WHERE known.run_id = excluded.run_id AND known.cursor_json = excluded.cursor_json"
                    " AND known.row_count = excluded.row_count AND known.byte_count = excluded.byte_count"
                    " AND coalesce(known.schema_changes_json, '') = coalesce(excluded.schema_changes_json, '')"
                    " AND known.rejected_count = excluded.rejected_count"
                    " AND known.dead_letter_count = excluded.dead_letter_count",
                    row,
                ).rowcount
                if inserted != 1:
                    return checkpoint
            return None

        for checkpoint in checkpoints:
            self._gather_dead_letters(checkpoint)
        refused = self._write_together(checkpoints[0].pipeline, [c.stream for c in checkpoints], insert)
        if refused is not None:
            raise StateError(
                f"checkpoint {refused.sequence} of {refused.pipeline}/{refused.stream} cannot be prepared:"
                " it is another run's",
                stream=refused.stream,
                hint="two runs of one stream were at work at once: nothing of this one is committed, run it again",
            )

    def finalise(self, pipeline: str, stream: str, sequence: int) -> None:
        self.finalise_together(pipeline, {stream: sequence})

    def finalise_together(self, pipeline: str, sequences: Mapping[str, int]) -> None:
        def mark(execute: Execute) -> str | None:
            missing = None
            for stream, sequence in sequences.items():
                marked = execute(
                    "UPDATE _rapidbyte_checkpoints SET status = 'committed', committed_at = coalesce(committed_at, ?)"
                    " WHERE pipeline_name = ? AND stream_name = ? AND sequence = ?",
                    (_now(), pipeline, stream, sequence),
                ).rowcount
                if marked != 1:
                    missing = stream
            return missing

        missing = self._write_together(pipeline, list(sequences), mark)
        if missing is not None:
            raise StateError(
                f"checkpoint {sequences[missing]} of {pipeline}/{missing} was committed but never prepared",
                stream=missing,
                hint="the data is safe: the next run follows the destination's watermark",
            )

    def fold(self, pipeline: str, stream: str, run_id: str, *, after: int) -> None:
        foldable = (
            " WHERE pipeline_name = ? AND stream_name = ? AND run_id = ? AND status = 'committed' AND sequence > ?"
            " AND sequence < ? AND rejected_count = 0 AND dead_letter_count = 0 AND schema_changes_json IS NULL"
        )

        def gather(execute: Execute) -> None:
            (newest,) = execute(
                "SELECT max(sequence) FROM _rapidbyte_checkpoints"
                " WHERE pipeline_name = ? AND stream_name = ? AND run_id = ? AND status = 'committed'",
                (pipeline, stream, run_id),
            ).fetchone()
            which = (pipeline, stream, run_id, after, newest or 0)
            rows, size = execute(
                "SELECT coalesce(sum(row_count), 0), coalesce(sum(byte_count), 0) FROM _rapidbyte_checkpoints"
                + foldable,
                which,
            ).fetchone()
            execute(
                "UPDATE _rapidbyte_checkpoints SET row_count = row_count + ?, byte_count = byte_count + ?"
                " WHERE pipeline_name = ? AND stream_name = ? AND sequence = ?",
                (int(rows), int(size), pipeline, stream, newest or 0),
            )
            execute("DELETE FROM _rapidbyte_checkpoints" + foldable, which)

        self._write(pipeline, stream, gather)

    def latest_checkpoint(self, pipeline: str, stream: str) -> Checkpoint | None:
        found = self.checkpoints(pipeline, stream, limit=1)
        return found[0] if found else None

    def checkpoints(self, pipeline: str, stream: str, limit: int = 100) -> list[Checkpoint]:
        return self._checkpoints(pipeline, stream, "status = 'committed'", limit=limit)

    def checkpoint(self, pipeline: str, stream: str, sequence: int) -> Checkpoint | None:
        if not 0 < sequence <= _LARGEST_SEQUENCE:
            return None
        found = self._checkpoints(pipeline, stream, "status = 'committed' AND sequence = ?", sequence, limit=1)
        return found[0] if found else None

    def prepared_checkpoint(self, pipeline: str, stream: str) -> Checkpoint | None:
        found = self._checkpoints(pipeline, stream, "status = 'prepared'", limit=1)
        return found[0] if found else None

    def _checkpoints(
        self, pipeline: str, stream: str, condition: str, *parameters: Any, limit: int
    ) -> list[Checkpoint]:
        rows = self._read(
            "SELECT sequence, cursor_json, row_count, byte_count, run_id, coalesce(committed_at, prepared_at),"
            " schema_changes_json, rejected_count, dead_letter_count, replaced, beneath_json,"
            " anew_after, is_final"
            f" FROM _rapidbyte_checkpoints WHERE pipeline_name = ? AND stream_name = ? AND {condition}"
            " ORDER BY sequence DESC LIMIT ?",
            (pipeline, stream, *parameters, limit),
        )
        return [_checkpoint(pipeline, stream, row) for row in rows]

    def committed(self, pipeline: str, stream: str, run_id: str, *, after: int = 0) -> Committed:
        [sums] = self._read(
            "SELECT count(*), coalesce(sum(row_count), 0), coalesce(sum(byte_count), 0),"
            " coalesce(sum(rejected_count), 0), coalesce(sum(dead_letter_count), 0) FROM _rapidbyte_checkpoints"
            " WHERE pipeline_name = ? AND stream_name = ? AND status = 'committed' AND run_id = ? AND sequence > ?",
            (pipeline, stream, run_id, after),
        )
        # In PostgreSQL a sum of bigints is a numeric.
        return Committed(*map(int, sums))

    # Schemas

    def record_schema(self, pipeline: str, stream: str, version: SchemaVersion) -> None:
        def append(execute: Execute) -> None:
            current = execute(
                "SELECT version, fingerprint, schema_json FROM _rapidbyte_schemas"
                " WHERE pipeline_name = ? AND stream_name = ? ORDER BY version DESC LIMIT 1",
                (pipeline, stream),
            ).fetchone()
            number, fingerprint, text = current or (0, "", "")
            if fingerprint == version.fingerprint:
                known = _version(text)
                if (known.policy, known.stream_key) == (version.policy, version.stream_key):
                    return
            execute(
                "INSERT INTO _rapidbyte_schemas VALUES (?, ?, ?, ?, ?)",
                (pipeline, stream, number + 1, version.fingerprint, version.model_dump_json()),
            )

        self._write(pipeline, stream, append)

    def schema_state(self, pipeline: str, stream: str) -> SchemaState:
        rows = self._read(
            "SELECT schema_json FROM _rapidbyte_schemas WHERE pipeline_name = ? AND stream_name = ? ORDER BY version",
            (pipeline, stream),
        )
        versions = tuple(_version(text) for (text,) in rows)
        return SchemaState(
            pipeline=pipeline,
            stream=stream,
            current=versions[-1] if versions else None,
            versions=versions,
            history=self._schema_events(pipeline, stream),
        )

    def _schema_events(self, pipeline: str, stream: str) -> tuple[SchemaEvent, ...]:
        # Without the cursors, which may be large.
        rows = self._read(
            "SELECT schema_changes_json, run_id, sequence, committed_at FROM _rapidbyte_checkpoints"
            " WHERE pipeline_name = ? AND stream_name = ? AND status = 'committed' AND schema_changes_json IS NOT NULL"
            " ORDER BY sequence",
            (pipeline, stream),
        )
        return tuple(
            SchemaEvent(changes=_CHANGES.validate_json(changes), run_id=run_id, sequence=sequence, at=at)
            for changes, run_id, sequence, at in rows
        )

    # Dead letters

    def add_dead_letters(
        self, pipeline: str, stream: str, letters: Sequence[DeadLetter], *, run_id: str, sequence: int
    ) -> None:
        for chunk in chunks(letters):
            rows = [letter_row(letter, pipeline, stream, run_id, sequence) for letter in chunk]
            self._write(pipeline, stream, Append(self._letters, rows, pipeline, stream, run_id))

    def _gather_dead_letters(self, checkpoint: Checkpoint) -> None:
        """Those that it covers beside its own number's. In transactions of their own: until the checkpoint is committed
        nobody sees them."""
        gather = Gather(self._letters, checkpoint)
        while checkpoint.dead_letters and self._write(checkpoint.pipeline, checkpoint.stream, gather):
            pass

    def _change_letters(self, pipeline: str, stream: str, change: Change) -> int:
        """How many it changed, by as many transactions as that takes."""
        condition, parameters = change.condition
        some = f"{condition} AND id > ?"
        changed = after = 0
        while found := self._read(
            f"SELECT id FROM {self._letters.sql} WHERE {some} ORDER BY id LIMIT ?",
            (*parameters, after, LETTERS_AT_ONCE),
        ):
            last = found[-1][0]
            statement = f"{change.sql} WHERE {some} AND id <= ?"
            values = (*change.values, *parameters, after, last)

            def work(execute: Execute, statement: str = statement, values: tuple[Any, ...] = values) -> int:
                return execute(statement, values).rowcount

            changed += self._write(pipeline, stream, work)
            after = last
        return changed

    def dead_letters(self, pipeline: str, stream: str, run_id: str | None = None) -> pa.Table:
        import pyarrow as pa

        from rapidbyte_dagster.state.dead_letters import to_table

        found = list(self.dead_letter_pages(pipeline, stream, LetterChoice(run_id=run_id)))
        return pa.concat_tables(found) if found else to_table([])

    def dead_letter_pages(self, pipeline: str, stream: str, choice: LetterChoice | None = None) -> Iterator[pa.Table]:
        from rapidbyte_dagster.state.dead_letters import COLUMNS, to_table

        # A mark counts like a checkpoint: once it is known to be committed.
        shown = ", ".join(
            f"CASE WHEN {self._letters.is_replayed} THEN {name} END" if name.startswith("replayed_") else name
            for name in COLUMNS
        )
        for condition in self._letters.of(pipeline, stream, choice or LetterChoice()):
            for rows in pages(self._read, self._letters, shown, condition):
                yield to_table(rows)

    def dead_letter_counts(
        self, pipeline: str, stream: str, run_id: str | None = None, *, choice: LetterChoice | None = None
    ) -> DeadLetterCounts:
        if run_id is not None:
            choice = (choice or LetterChoice()).model_copy(update={"run_id": run_id})
        total = waiting = 0
        by_category: dict[str, int] = {}
        for condition, parameters in self._letters.of(pipeline, stream, choice or LetterChoice()):
            rows = self._read(
                f"SELECT error_category, count(*), sum(CASE WHEN {self._letters.waits} THEN 1 ELSE 0 END)"
                f" FROM {self._letters.sql} WHERE {condition} GROUP BY error_category ORDER BY error_category",
                parameters,
            )
            for category, count, wait in rows:
                total += count
                waiting += wait
                by_category[category] = by_category.get(category, 0) + count
        return DeadLetterCounts(total=total, by_category=dict(sorted(by_category.items())), waiting=waiting)

    def dead_letter_previews(
        self,
        pipeline: str,
        stream: str,
        run_id: str | None = None,
        *,
        limit: int,
        characters: int,
        choice: LetterChoice | None = None,
    ) -> list[DeadLetterPreview]:
        if run_id is not None:
            choice = (choice or LetterChoice()).model_copy(update={"run_id": run_id})
        rows: list[Any] = []
        for condition, parameters in self._letters.of(pipeline, stream, choice or LetterChoice()):
            rows += self._read(
                "SELECT id, failed_at, error_category, substr(error_message, 1, ?), column_name,"
                f" substr(record_json, 1, ?), length(record_json) FROM {self._letters.sql} WHERE {condition}"
                " ORDER BY id DESC LIMIT ?",
                (characters, characters, *parameters, limit),
            )
        return [DeadLetterPreview(*row) for row in sorted(rows, reverse=True)[:limit]]

    def dead_letter_ids(self, pipeline: str, stream: str, choice: LetterChoice) -> set[int]:
        return {
            id
            for condition, parameters in self._letters.of(pipeline, stream, choice)
            for (id,) in self._read(f"SELECT id FROM {self._letters.sql} WHERE {condition}", parameters)
        }

    def dead_letter_types(self, pipeline: str, stream: str, choice: LetterChoice) -> list[str]:
        found: set[str] = set()
        for condition, parameters in self._letters.of(pipeline, stream, choice):
            sql = f"SELECT DISTINCT types_json FROM {self._letters.sql} WHERE {condition} AND {IS_TOLD}"
            found.update(types for (types,) in self._read(sql, parameters))
        return sorted(found)

    def untold_dead_letters(
        self, pipeline: str, stream: str, choice: LetterChoice, *, unusable: Sequence[str] = ()
    ) -> int:
        count = 0
        for condition, parameters in self._letters.of(pipeline, stream, choice):
            untold = (f"{condition} AND NOT ({IS_TOLD})", parameters)
            told = (f"{condition} AND {IS_TOLD}", parameters)
            for sql, values in (untold, *self._letters.of_types(told, unusable)):
                count += self._read(f"SELECT count(*) FROM {self._letters.sql} WHERE {sql}", values)[0][0]
        return count

    def mark_dead_letters(
        self,
        pipeline: str,
        stream: str,
        choice: LetterChoice,
        *,
        run_id: str,
        sequence: int,
        told: bool = True,
        unusable: Sequence[str] = (),
    ) -> int:
        waiting = choice.model_copy(update={"waiting": True})
        taken = sum(
            self._change_letters(pipeline, stream, mark(self._letters, condition, run_id, sequence, told=told))
            for condition in self._letters.of(pipeline, stream, waiting)
        )
        # Given back rather than not taken: their types may be more than one condition has room for.
        marked = self._letters.marked(pipeline, stream, run_id, sequence)
        for condition in self._letters.of_types(marked, unusable):
            taken -= self._change_letters(pipeline, stream, give_back(self._letters, condition))
        return taken

    def release_dead_letters(self, pipeline: str, stream: str, run_id: str) -> None:
        self._change_letters(pipeline, stream, unmark(self._letters, pipeline, stream, run_id))

    def marked_dead_letters(
        self, pipeline: str, stream: str, *, run_id: str, sequence: int, stages: Sequence[str]
    ) -> Iterator[list[MarkedLetter]]:
        condition = self._letters.marked(pipeline, stream, run_id, sequence, stages)
        for rows in pages(self._read, self._letters, "id, record_json, types_json", condition):
            yield [marked_letter(row) for row in rows]

    def marked_dead_letter_ids(self, pipeline: str, stream: str, *, run_id: str, sequence: int) -> dict[str, set[int]]:
        condition, parameters = self._letters.marked(pipeline, stream, run_id, sequence)
        ids: dict[str, set[int]] = {}
        for id, stage in self._read(f"SELECT id, stage FROM {self._letters.sql} WHERE {condition}", parameters):
            ids.setdefault(stage, set()).add(id)
        return ids

    def purge_dead_letters(self, pipeline: str, stream: str, choice: LetterChoice) -> int:
        return sum(
            self._change_letters(pipeline, stream, purge(self._letters, condition))
            for condition in self._letters.of(pipeline, stream, choice)
        )

    def dead_letter_runs(self, pipeline: str, stream: str) -> list[str]:
        [(condition, parameters)] = self._letters.of(pipeline, stream, LetterChoice())
        rows = self._read(
            f"SELECT run_id FROM {self._letters.sql} WHERE {condition} GROUP BY run_id ORDER BY min(id)", parameters
        )
        return [run_id for (run_id,) in rows]

    # Runs

    def record_slot(self, pipeline: str, slot: MadeSlot) -> None:
        def insert(execute: Execute) -> None:
            execute(
                "INSERT INTO _rapidbyte_slots (pipeline_name, slot_name, server, position, created_at)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (pipeline_name, slot_name)"
                " DO UPDATE SET server = excluded.server, position = excluded.position",
                (pipeline, slot.name, slot.server, slot.position, _now()),
            )

        self._write(pipeline, slot.name, insert)

    def forget_slot(self, pipeline: str, slot: str) -> None:
        def delete(execute: Execute) -> None:
            execute("DELETE FROM _rapidbyte_slots WHERE pipeline_name = ? AND slot_name = ?", (pipeline, slot))

        self._write(pipeline, slot, delete)

    def made_slot(self, pipeline: str, slot: str) -> MadeSlot | None:
        rows = self._read(
            "SELECT slot_name, server, position FROM _rapidbyte_slots WHERE pipeline_name = ? AND slot_name = ?",
            (pipeline, slot),
        )
        return next((MadeSlot(*row) for row in rows), None)

    def record_run(self, run: RunRecord) -> None:
        row = (
            run.run_id,
            run.pipeline,
            run.stream,
            run.status,
            as_text(run.started_at),
            as_text(run.ended_at) if run.ended_at else None,
            run.rows,
            run.bytes,
            run.attempts,
            storable(run.error) if run.error is not None else None,
            run.rejected,
            run.dead_letters,
            run.kind,
        )

        def upsert(execute: Execute) -> None:
            execute(
                "INSERT INTO _rapidbyte_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (run_id, pipeline_name, stream_name) DO UPDATE SET status = excluded.status,"
                " started_at = excluded.started_at, ended_at = excluded.ended_at, row_count = excluded.row_count,"
                " byte_count = excluded.byte_count, attempts = excluded.attempts,"
                " error_message = excluded.error_message, rejected_count = excluded.rejected_count,"
                " dead_letter_count = excluded.dead_letter_count, kind = excluded.kind",
                row,
            )

        self._write(run.pipeline, run.stream, upsert)

    def run(self, run_id: str, pipeline: str, stream: str) -> RunRecord | None:
        found = self._read(
            f"{_SELECT_RUNS} WHERE run_id = ? AND pipeline_name = ? AND stream_name = ?", (run_id, pipeline, stream)
        )
        return _run_record(found[0]) if found else None

    def runs(self, pipeline: str, stream: str, limit: int = 100) -> list[RunRecord]:
        rows = self._read(
            f"{_SELECT_RUNS} WHERE pipeline_name = ? AND stream_name = ? ORDER BY started_at DESC, run_id LIMIT ?",
            (pipeline, stream, limit),
        )
        return [_run_record(row) for row in rows]


def _row(checkpoint: Checkpoint) -> tuple[Any, ...]:
    return (
        checkpoint.pipeline,
        checkpoint.stream,
        checkpoint.sequence,
        json.dumps(checkpoint.cursor),
        checkpoint.rows,
        checkpoint.bytes,
        checkpoint.run_id,
        _now(),
        _CHANGES.dump_json(checkpoint.schema_changes).decode() if checkpoint.schema_changes else None,
        checkpoint.rejected,
        checkpoint.dead_letters,
        int(checkpoint.replaced),
        checkpoint.beneath.model_dump_json() if checkpoint.beneath is not None else None,
        checkpoint.anew_after,
        int(checkpoint.final),
    )


def _checkpoint(pipeline: str, stream: str, row: tuple[Any, ...]) -> Checkpoint:
    """`row` as `_checkpoints` selects it."""
    sequence, cursor, row_count, byte_count, run_id, committed_at, changes, rejected, dead, *read = row
    replaced, beneath, anew_after, final = read
    return Checkpoint(
        pipeline=pipeline,
        stream=stream,
        sequence=sequence,
        cursor=json.loads(cursor),
        rows=row_count,
        bytes=byte_count,
        run_id=run_id,
        committed_at=datetime.fromisoformat(committed_at),
        schema_changes=_CHANGES.validate_json(changes) if changes else (),
        rejected=rejected,
        dead_letters=dead,
        replaced=bool(replaced),
        beneath=Watermark.model_validate_json(beneath) if beneath else None,
        anew_after=anew_after,
        final=bool(final),
    )


def _version(text: str) -> SchemaVersion:
    return SchemaVersion.model_validate_json(text)


def _run_record(row: tuple[Any, ...]) -> RunRecord:
    return RunRecord.model_validate(dict(zip(_RUN_FIELDS, row, strict=True)))


def _now() -> str:
    return as_text(utc_now())
