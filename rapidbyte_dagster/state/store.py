"""The state store's protocol, and the choice of one by the pipeline's `state` section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from rapidbyte_dagster.config import StateBackend
from rapidbyte_dagster.state.dead_letter_sql import DEFAULT_TABLE, LetterTable
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
    SchemaState,
    SchemaVersion,
    Watermark,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from rapidbyte_dagster.config import Pipeline


class StateStore(AbstractContextManager["StateStore"], Protocol):
    """Checkpoints, dead letters, schemas and runs of pipelines. Every method is durable when it returns.

    Safe to call from several threads. Every method raises `StateError`; one that is `retryable` may work in a moment.
    """

    def close(self) -> None:
        """No method works from here on."""
        ...

    def reconcile(self, pipeline: str, stream: str, watermark: Watermark | None) -> ResumePoint:
        """Follows the destination, which is always right, and says where to resume.

        A prepared checkpoint at or below the watermark, of the run that committed that, did commit: it is finalised. A
        later one did not: it is discarded, its rows will be read again. So is one of another run than the watermark's,
        which kept its state elsewhere: that run may have used the number itself. A committed one beyond the watermark
        is gone from a destination that was restored, and forgotten. A watermark that the store never heard of (the
        state was deleted) is taken as it is. Dead letters go the way of their checkpoint, and wait again where that of
        their replay went.
        """
        ...

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint` down before the destination commits it; the same one again changes nothing.

        Its own are the dead letters too that its run added for numbers that were announced before its and skipped.
        """
        ...

    def add_dead_letters(
        self, pipeline: str, stream: str, letters: Sequence[DeadLetter], *, run_id: str, sequence: int
    ) -> None:
        """Writes `letters` down before checkpoint `sequence` of `run_id` is prepared, in that order: they count once it
        is committed. However many they are, a transaction's memory and time are bounded."""
        ...

    def prepare_together(self, checkpoints: Sequence[Checkpoint]) -> None:
        """`prepare` of one checkpoint each of several streams of a pipeline, which one transaction commits."""
        ...

    def finalise(self, pipeline: str, stream: str, sequence: int) -> None:
        """Marks a prepared checkpoint as committed at the destination; again changes nothing."""
        ...

    def finalise_together(self, pipeline: str, sequences: Mapping[str, int]) -> None:
        """`finalise` of several streams' checkpoints, by the stream."""
        ...

    def fold(self, pipeline: str, stream: str, run_id: str, *, after: int) -> None:
        """Makes one of that run's committed checkpoints beyond number `after`: the newest, with the rows of all. Those
        that dead letters or schema changes belong to stay. A run that commits many times a second leaves no longer
        history than others."""
        ...

    def latest_checkpoint(self, pipeline: str, stream: str) -> Checkpoint | None: ...

    def checkpoints(self, pipeline: str, stream: str, limit: int = 100) -> list[Checkpoint]:
        """The committed checkpoints, newest first."""
        ...

    def checkpoint(self, pipeline: str, stream: str, sequence: int) -> Checkpoint | None:
        """The committed checkpoint of that number."""
        ...

    def prepared_checkpoint(self, pipeline: str, stream: str) -> Checkpoint | None:
        """The newest that is prepared and not known to be committed: by a run that goes on, or that was interrupted.
        Its `committed_at` is when it was prepared."""
        ...

    def committed(self, pipeline: str, stream: str, run_id: str, *, after: int = 0) -> Committed:
        """The committed checkpoints of that run beyond number `after`, added up without reading their cursors."""
        ...

    def record_schema(self, pipeline: str, stream: str, version: SchemaVersion) -> None:
        """Appends `version` to the versions unless the current one has the same fingerprint, policy and key of the
        stream."""
        ...

    def schema_state(self, pipeline: str, stream: str) -> SchemaState:
        """The versions that were recorded, and the schema changes of the committed checkpoints."""
        ...

    def dead_letters(self, pipeline: str, stream: str, run_id: str | None = None) -> pa.Table:
        """The stream's dead letters of committed checkpoints, oldest first; those of one run with `run_id`.
        Columns: `DEAD_LETTER_SCHEMA`."""
        ...

    def dead_letter_pages(self, pipeline: str, stream: str, choice: LetterChoice | None = None) -> Iterator[pa.Table]:
        """Those of `choice`, else all, in tables of a bounded size; what was read of them stays what it was."""
        ...

    def dead_letter_counts(
        self, pipeline: str, stream: str, run_id: str | None = None, *, choice: LetterChoice | None = None
    ) -> DeadLetterCounts:
        """How many `dead_letters`, or those of `choice`, would be, without reading them."""
        ...

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
        """The newest `limit` of what `dead_letters` would give, or of `choice`, newest first, with no more than so many
        characters of each row and each message."""
        ...

    def dead_letter_ids(self, pipeline: str, stream: str, choice: LetterChoice) -> set[int]: ...

    def dead_letter_types(self, pipeline: str, stream: str, choice: LetterChoice) -> list[str]:
        """The different `types_json` of those of `choice` that hold a row."""
        ...

    def untold_dead_letters(
        self, pipeline: str, stream: str, choice: LetterChoice, *, unusable: Sequence[str] = ()
    ) -> int:
        """How many of `choice` hold no row that could be written again as it is kept, or have `types_json` that is one
        of `unusable`."""
        ...

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
        """Takes those of `choice` that wait, for checkpoint `sequence` of the replay `run_id`, and tells how many.

        They are replayed once it is committed, and `reconcile` gives them back when it was not. Only under the stream's
        lock at the destination. `told`: only those that hold a row. None whose `types_json` is one of `unusable`.
        """
        ...

    def release_dead_letters(self, pipeline: str, stream: str, run_id: str) -> None:
        """Gives back at once what the replay `run_id` had taken and has surely not committed."""
        ...

    def marked_dead_letters(
        self, pipeline: str, stream: str, *, run_id: str, sequence: int, stages: Sequence[str]
    ) -> Iterator[list[MarkedLetter]]:
        """Those that were taken so and that `stages` had set aside, oldest first, in parts of a bounded size."""
        ...

    def marked_dead_letter_ids(self, pipeline: str, stream: str, *, run_id: str, sequence: int) -> dict[str, set[int]]:
        """The numbers of all that were taken so, by the stage that had set them aside."""
        ...

    def purge_dead_letters(self, pipeline: str, stream: str, choice: LetterChoice) -> int:
        """Deletes those of `choice` for good, except what an unfinished replay has taken. How many they were."""
        ...

    def dead_letter_runs(self, pipeline: str, stream: str) -> list[str]:
        """The ids of the runs that have any of `dead_letters`, oldest first."""
        ...

    def record_slot(self, pipeline: str, slot: MadeSlot) -> None:
        """The pipeline makes, or has made, this replication slot at its source. Replaces what was known of it."""
        ...

    def forget_slot(self, pipeline: str, slot: str) -> None:
        """The slot is gone, or is not the one that the pipeline has made."""
        ...

    def made_slot(self, pipeline: str, slot: str) -> MadeSlot | None:
        """What was recorded of it; None for one that the pipeline has not made."""
        ...

    def record_run(self, run: RunRecord) -> None:
        """Writes a run's row, or brings it up to date."""
        ...

    def run(self, run_id: str, pipeline: str, stream: str) -> RunRecord | None: ...

    def runs(self, pipeline: str, stream: str, limit: int = 100) -> list[RunRecord]:
        """Newest first."""
        ...


def open_state(pipeline: Pipeline, environ: Mapping[str, str]) -> StateStore:
    """Opens the store that `pipeline.state` names, creating and migrating it when needed.

    A relative `state.path` counts from the pipeline file's folder. Without one the file is
    `$DAGSTER_HOME/rapidbyte/state.db`, or `.rapidbyte/state.db` beside the pipeline file. Raises `StateError`, and
    `ConfigError` for what the file's variables expand to.
    """
    if pipeline.state.backend is StateBackend.POSTGRES:
        from rapidbyte_dagster.state.postgres import PostgresStateStore

        return PostgresStateStore(pipeline.state.resolve_connection(environ), letters=_letters(pipeline))
    from rapidbyte_dagster.state.sqlite import SqliteStateStore

    return SqliteStateStore(*_file(pipeline, environ), letters=_letters(pipeline))


def open_existing_state(pipeline: Pipeline, environ: Mapping[str, str]) -> StateStore | None:
    """The store that `pipeline.state` names, for a look at it: nothing is created or migrated.

    None where there is none yet, or one of an older format: what that remembers cannot be read before the next run has
    brought it up to date, which who only looks must not do to those that still work with it. Raises what `open_state`
    raises.
    """
    if pipeline.state.backend is StateBackend.POSTGRES:
        from rapidbyte_dagster.state.postgres import PostgresStateStore

        return PostgresStateStore.existing(pipeline.state.resolve_connection(environ), letters=_letters(pipeline))
    from rapidbyte_dagster.state.sqlite import SqliteStateStore

    return SqliteStateStore.existing(*_file(pipeline, environ), letters=_letters(pipeline))


def _letters(pipeline: Pipeline) -> LetterTable:
    """The table of its dead letters."""
    return LetterTable(pipeline.destination.dlq_table or DEFAULT_TABLE)


def _file(pipeline: Pipeline, environ: Mapping[str, str]) -> tuple[Path, str | None]:
    """Where the SQLite file is, and what messages show instead, where its path holds variables."""
    from rapidbyte_dagster.state.sqlite import default_path

    configured = pipeline.state.path
    return default_path(pipeline, environ), configured if configured is not None and "${" in configured else None
