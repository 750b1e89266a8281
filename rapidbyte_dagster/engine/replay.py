"""Dead letters driven through their destination once more.

    open (the stream's lock) ▶ watermark ▶ reconcile ▶ mark ▶ rb_write: letters as rows ▶ prepare ▶ COMMIT ▶ finalise

The host stands in for the source. A replay is one checkpoint, of the stream's next number and with the cursor that the
stream has; the marks on its letters name it, and count as it does: a crash between any two steps is settled by the
destination's watermark, as after a run. So a letter is replayed once, or it waits. What fails again comes out of the
destination as a new letter of the replay's own, and the old one is replayed: one waiting letter for each row that is in
no table.

Rows are added, or merged by the stream's key; a replay never replaces a table, and never alters one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config import OnDataError, Pipeline, Redactor, SchemaEvolution, Stream, WriteMode
from rapidbyte_dagster.engine.answers import OpenedDestination, read_answer
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.drift import read_changes
from rapidbyte_dagster.engine.fate import REFUSALS, Fate, with_fate
from rapidbyte_dagster.engine.hosts import CheckpointingHost
from rapidbyte_dagster.engine.letter_files import EditedLetters
from rapidbyte_dagster.engine.letter_rows import LetterRow, messages_of, read_json, retold, row_of
from rapidbyte_dagster.engine.letters import Letters
from rapidbyte_dagster.engine.plan import PipelinePlan, plan_pipeline
from rapidbyte_dagster.engine.result import LogListener, ignore_log
from rapidbyte_dagster.engine.retry import RetryPolicy
from rapidbyte_dagster.engine.stages import Stages
from rapidbyte_dagster.engine.start import beneath_replays
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import RapidbyteError, RunCancelled, SchemaError, Stage, StateError, UsageError
from rapidbyte_dagster.runtime import Barrier, End, Item, Message, StreamAborted, Worker
from rapidbyte_dagster.state import (
    ChangeAction,
    ChangeKind,
    Committed,
    LetterChoice,
    RunRecord,
    SchemaChange,
    SchemaColumn,
    StateStore,
    Watermark,
    utc_now,
)

# Numbers of letters that an error names.
_NAMED_IDS = 10

_BYTES = ("bytea", "bytea[]")


@dataclass(frozen=True)
class ReplayResult:
    """What became of the dead letters that were chosen."""

    stream: str
    letters: int = 0
    """Those that were replayed: they wait no longer."""
    rows: int = 0
    """Of them, those that are in the table now."""
    failed_again: int = 0
    """Of them, those that were refused once more: each is kept as a new dead letter, with its new reason."""
    untold: int = 0
    """Chosen, but left: they hold no row that could be written as it is. They wait."""
    settled: int = 0
    """Chosen, but nothing waits for them: replayed before, or of rows that a later run has read anew."""
    sequence: int | None = None
    """The checkpoint's number; None where there was nothing to do."""
    attempts: int = 0
    seconds: float = 0.0


def replay_dead_letters(
    pipeline: Pipeline,
    stream: Stream,
    *,
    state: StateStore,
    run_id: str,
    choice: LetterChoice | None = None,
    edited: EditedLetters | None = None,
    environ: Mapping[str, str] = os.environ,
    on_log: LogListener | None = None,
    cancel: CancelToken | None = None,
) -> ReplayResult:
    """Drives the waiting dead letters of `stream` through its destination: those of `choice`, else all; of `edited`
    those that it has, with the rows that it has.

    `run_id` is the replay's own; called again with it after it was committed, nothing is done again. Blocks like
    `run_stream`. Raises a leaf of `RapidbyteError` that names the stream and shows no secret; nothing of it is
    committed then, unless the error says so.
    """
    chosen = choice or LetterChoice()
    if edited is not None:
        chosen = chosen.model_copy(update={"ids": tuple(edited.ids.get(stream.name, ()))})
        if not chosen.ids:
            return ReplayResult(stream.name)
    return _Replay(pipeline, stream, state, run_id, chosen, edited, on_log or ignore_log).execute(
        environ, cancel or CancelToken()
    )


def divide_choice(
    pipeline: Pipeline, streams: Sequence[Stream], state: StateStore, choice: LetterChoice
) -> list[tuple[Stream, LetterChoice]]:
    """`choice` for each of `streams` that it can mean: a dead letter's number is one stream's. Raises `UsageError` for
    numbers that none of them has."""
    if not choice.ids:
        return [(stream, choice) for stream in streams]
    unknown = set(choice.ids)
    divided = []
    for stream in streams:
        own = state.dead_letter_ids(pipeline.name, stream.name, LetterChoice(ids=choice.ids))
        unknown -= own
        if own:
            divided.append((stream, choice.model_copy(update={"ids": tuple(sorted(own))})))
    if unknown:
        raise _unknown(sorted(unknown), stream=streams[0].name if len(streams) == 1 else None)
    return divided


class _Replay:
    """All attempts of one replay."""

    def __init__(
        self,
        pipeline: Pipeline,
        stream: Stream,
        state: StateStore,
        run_id: str,
        choice: LetterChoice,
        edited: EditedLetters | None,
        on_log: LogListener,
    ) -> None:
        self._pipeline = pipeline
        self._stream = stream
        self._state = state
        self._choice = choice.model_copy(update={"waiting": None})
        self._edited = edited
        self._on_log = on_log
        self._redactor = Redactor(frozenset())
        self._attempts = 0
        self._record = RunRecord(
            run_id=run_id,
            pipeline=pipeline.name,
            stream=stream.name,
            kind="replay",
            status="running",
            started_at=utc_now(),
        )

    def execute(self, environ: Mapping[str, str], cancel: CancelToken) -> ReplayResult:
        started = time.monotonic()
        left = self._left()
        if not left.letters:
            return left
        try:
            self._state.record_run(self._record)
            plan = plan_pipeline(self._pipeline, environ, self._stream)
            self._redactor = plan.redactor
            sequence = self._attempt_until_done(plan, cancel)
            done = self._committed()
            self._record_end("ok", done)
        except RapidbyteError as error:
            failure = told(error, self._redactor, self._stream.name)
            self._write_end("cancelled" if isinstance(error, RunCancelled) else "failed", str(failure))
        except BaseException as error:
            self._write_end("failed" if isinstance(error, Exception) else "cancelled", type(error).__name__)
            raise
        else:
            return ReplayResult(
                stream=self._stream.name,
                letters=done.rows + done.rejected,
                rows=done.rows,
                failed_again=done.dead_letters,
                untold=left.untold,
                settled=left.settled,
                sequence=sequence,
                attempts=self._attempts,
                seconds=time.monotonic() - started,
            )
        # Out here it has no context: that would hold the unredacted text.
        raise failure

    def _left(self) -> ReplayResult:
        """What there is to replay, as far as the state store knows, and what is left of what was chosen."""
        names = (self._pipeline.name, self._stream.name)
        counts = self._state.dead_letter_counts(*names, choice=self._choice)
        waiting = self._choice.model_copy(update={"waiting": True})
        untold = 0
        if self._edited is None:
            unusable = _types_with_bytes_for_text(self._state, *names, waiting)
            untold = self._state.untold_dead_letters(*names, waiting, unusable=unusable)
        if self._choice.ids:
            known = self._state.dead_letter_ids(*names, LetterChoice(ids=self._choice.ids))
            unknown = sorted(set(self._choice.ids) - known)
            if unknown:
                raise _unknown(unknown, stream=self._stream.name)
        return ReplayResult(
            self._stream.name,
            letters=counts.waiting - untold,
            untold=untold,
            settled=counts.total - counts.waiting,
        )

    def _attempt_until_done(self, plan: PipelinePlan, cancel: CancelToken) -> int | None:
        """The checkpoint's number; None where there was nothing to do after all."""
        policy = RetryPolicy(self._pipeline.resources.max_retries)
        while True:
            self._attempts += 1
            if cancel.cancelled:
                raise RunCancelled("the replay was cancelled before it began")
            attempt = _Attempt(
                plan, self._stream, self._state, self._record.run_id, self._choice, self._edited, self._on_log
            )
            try:
                return attempt.run(cancel)
            except RapidbyteError as error:
                wait = policy.wait_before_retry(error, self._attempts)
                if wait is None:
                    raise
                reason = told(error, plan.redactor, self._stream.name)
            self._on_log(
                logging.WARNING,
                f"attempt {self._attempts} of {policy.max_retries + 1} failed, next in {wait:.1f} s: {reason}",
            )
            if cancel.wait(wait):
                raise RunCancelled("the replay was cancelled while it waited for its next attempt")

    def _committed(self) -> Committed:
        return self._state.committed(self._pipeline.name, self._stream.name, self._record.run_id)

    def _write_end(self, status: str, error: str) -> None:
        """The replay's own error matters more than a store that cannot write it down."""
        try:
            self._record_end(status, self._committed(), error)
        except RapidbyteError as failure:
            self._on_log(logging.ERROR, str(told(failure, self._redactor, self._stream.name)))

    def _record_end(self, status: str, done: Committed, error: str | None = None) -> None:
        ended = {"status": status, "ended_at": utc_now(), "attempts": self._attempts, "error": error}
        counts = {"rows": done.rows, "bytes": done.bytes, "rejected": done.rejected, "dead_letters": done.dead_letters}
        self._record = self._record.model_copy(update={**ended, **counts})
        self._state.record_run(self._record)


class _Attempt:
    """One try, in the destination's thread: the letters are read while it asks for them."""

    def __init__(
        self,
        plan: PipelinePlan,
        stream: Stream,
        state: StateStore,
        run_id: str,
        choice: LetterChoice,
        edited: EditedLetters | None,
        on_log: LogListener,
    ) -> None:
        self._plan = plan
        self._stream = stream
        self._state = state
        self._run_id = run_id
        self._choice = choice
        self._edited = edited
        self._on_log = on_log
        self._names = (plan.pipeline.name, stream.name)
        self._evolution = _evolution(plan.pipeline)
        self._on_data_error = _on_data_error(plan.pipeline)
        self._feed = _Feed()
        self._host = _ReplayHost(
            plan.redactor,
            on_log,
            self._feed,
            state,
            pipeline=plan.pipeline.name,
            stream=stream.name,
            run_id=run_id,
            policy=self._evolution,
            on_data_error=self._on_data_error,
            on_drift=_ignore_drift,
        )
        self._stages = Stages(self._feed.abort)
        self._stages.add(Stage.DESTINATION, plan.destination.worker(self._host), self._write, stream.name)
        self._done: int | None = None
        """The number of the checkpoint, once it is known to be committed."""
        self._nothing = False

    def run(self, cancel: CancelToken) -> int | None:
        self._stages.run(lambda: None, cancel)
        if self._host.checkpoint is not None:
            # The commit decides: whatever happened after it is no failure.
            return self._host.checkpoint.sequence
        if self._done is not None or self._nothing:
            return self._done
        fate = self._fate()
        if fate is Fate.ROLLED_BACK:
            # Where the store does not answer any more, the next run or replay does it.
            with contextlib.suppress(StateError):
                self._state.release_dead_letters(*self._names, self._run_id)
        if self._stages.cancelled:
            rest = "; nothing of it was written" if fate is Fate.ROLLED_BACK else ""
            failure: RapidbyteError = RunCancelled(f"the replay was cancelled{rest}")
        else:
            failure = self._stages.failure or violation(
                Stage.DESTINATION, "ended without committing everything that it was given"
            )
        raise with_fate(failure, fate)

    def _fate(self) -> Fate:
        if self._host.ledger is not None and self._host.ledger.settled:
            return Fate.COMMITTED
        failure = self._stages.failure
        refused = failure is not None and failure.kind in REFUSALS and not self._stages.cancelled
        return Fate.ROLLED_BACK if self._host.last_prepared is None or refused else Fate.UNKNOWN

    def _write(self, worker: Worker) -> None:
        argument = self._plan.open_argument(Stage.DESTINATION, stream=self._stream, run_id=self._run_id)
        answer = worker.call("rb_open", argument)
        watermark = read_answer(OpenedDestination, answer, verb="rb_open", stage=Stage.DESTINATION).watermark
        last = self._state.reconcile(*self._names, watermark)
        if self._state.committed(*self._names, self._run_id).checkpoints:
            # By an attempt before this one, which did not hear of it.
            self._done = next(
                (c.sequence for c in self._state.checkpoints(*self._names) if c.run_id == self._run_id), last.sequence
            )
            return
        sequence = last.sequence + 1
        letters = self._mark(sequence)
        if not letters:
            self._nothing = True
            return
        if watermark is None:
            raise _never_committed(self._stream, self._plan)
        self._host.beneath = self._beneath(watermark)
        ledger = self._host.ledger = BarrierLedger(self._plan.pipeline.resources, last.sequence)
        self._feed.open(self._items(ledger, sequence, letters, watermark.cursor))
        self._on_log(logging.INFO, f"{letters:,} dead letters are written to {self._shown_table()}")
        target = {"stream": self._stream_argument(), "target": "must_exist", "staged": None, "into": None}
        worker.call("rb_write", target)

    def _beneath(self, watermark: Watermark) -> Watermark:
        last = beneath_replays(self._state, *self._names, watermark)
        assert last is not None, "there is a watermark"
        # The cursor is the checkpoint's own.
        return last.model_copy(update={"cursor": None})

    def _mark(self, sequence: int) -> int:
        """How many letters this replay has taken. Each exactly once: nobody else can hold the stream's lock."""
        told = self._edited is None
        waiting = self._choice.model_copy(update={"waiting": True})
        unusable = _types_with_bytes_for_text(self._state, *self._names, waiting) if told else []
        self._state.mark_dead_letters(
            *self._names, self._choice, run_id=self._run_id, sequence=sequence, told=told, unusable=unusable
        )
        return len(self._state.marked_dead_letter_ids(*self._names, run_id=self._run_id, sequence=sequence))

    def _items(self, ledger: BarrierLedger, sequence: int, letters: int, cursor: Any) -> Iterator[Item]:
        """What a source would bring: the rows, one barrier, the end."""
        rows = self._kept_rows(sequence) if self._edited is None else self._edited_rows(self._edited, sequence)
        max_bytes = self._plan.pipeline.resources.max_batch_bytes
        count = 0
        for message, number in messages_of(rows, self._key(), max_bytes=max_bytes):
            ledger.count(number, len(message))
            count += number
            yield Message(message)
        if count != letters:
            raise StateError(
                f"{count:,} of {letters:,} dead letters could be read that this replay has taken",
                stream=self._stream.name,
                hint="something else removed them, or changed the file, meanwhile: replay again",
            )
        checkpoint = ledger.mark(cursor, True)
        assert checkpoint is not None, "it is the final one"
        yield Barrier(json.dumps({"sequence": sequence, "cursor": cursor, "final": True}).encode())

    def _kept_rows(self, sequence: int) -> Iterator[LetterRow]:
        # Letters of one run have the same types: read once.
        text, types = "null", None
        for page in self._state.marked_dead_letters(*self._names, run_id=self._run_id, sequence=sequence):
            for letter in page:
                try:
                    if letter.types_json != text:
                        text = letter.types_json or "null"
                        types = read_json(text)
                    yield row_of(letter.id, read_json(letter.record_json), types)
                except ValueError as error:
                    raise StateError(
                        f"dead letter {letter.id} cannot be replayed: {error}",
                        stream=self._stream.name,
                        hint="choose others, or bring its row in an edited export",
                    ) from None

    def _edited_rows(self, edited: EditedLetters, sequence: int) -> Iterator[LetterRow]:
        taken = self._state.marked_dead_letter_ids(*self._names, run_id=self._run_id, sequence=sequence)
        return edited.rows(self._stream.name, taken)

    def _key(self) -> tuple[str, ...] | None:
        """The source table's own key, where rows are found by it. Nobody asks the source: it may not be there."""
        if self._plan.pipeline.write_mode(self._stream) is not WriteMode.UPSERT:
            return None
        current = self._state.schema_state(*self._names).current
        return None if current is None else current.stream_key or current.primary_key

    def _stream_argument(self) -> dict[str, Any]:
        mode = self._plan.pipeline.write_mode(self._stream)
        return {
            **self._plan.destination_argument(self._stream),
            "write_mode": str(WriteMode.UPSERT if mode is WriteMode.UPSERT else WriteMode.APPEND),
            "schema_evolution": self._evolution.model_dump(mode="json"),
            "on_data_error": str(self._on_data_error),
        }

    def _shown_table(self) -> str:
        return self._plan.redactor.redact(self._plan.pipeline.destination_table(self._stream))


class _Feed:
    """What a replay's destination takes from."""

    def __init__(self) -> None:
        self._items: Iterator[Item] = iter(())
        self._aborted = False

    def open(self, items: Iterator[Item]) -> None:
        self._items = items

    def abort(self) -> None:
        self._aborted = True

    def take(self) -> Item | Letters:
        if self._aborted:
            raise StreamAborted
        return next(self._items, End())


class _ReplayHost(CheckpointingHost):
    """Walks the replay's commit through the state store, and holds the destination to leaving its table as it is."""

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        letters = payload.get("letters")
        if isinstance(letters, list):
            payload = {**payload, "letters": [retold(letter) for letter in letters]}
        super().emit_dlq_batch(payload)

    def drift(self, payload: dict[str, Any]) -> None:
        self._writing("schema changes")
        changes = read_changes(payload, self._policy, self._redactor)
        refused = [change.message for change in changes if change.action is ChangeAction.REFUSED or change.ddl]
        if refused:
            raise SchemaError(
                f"the dead letters do not fit the table as it is, and a replay does not alter it: {'; '.join(refused)}",
                stage=Stage.DESTINATION,
                hint="run the stream first, so that the table follows it, or edit an export of the letters",
            )
        bytes_ = [change for change in changes if _makes_text_of_bytes(change)]
        if bytes_:
            raise SchemaError(
                f"column {bytes_[0].column} of a dead letter holds bytes, and the table's has type {bytes_[0].table}",
                stage=Stage.DESTINATION,
                hint="in an export, write the value as it should be, and its type too; then replay that file",
            )


def _types_with_bytes_for_text(state: StateStore, pipeline: str, stream: str, choice: LetterChoice) -> list[str]:
    """Of the letters of `choice`, the types that tell bytes of a column which has others: texts that are not UTF-8. The
    category does not say it: a row may be refused for another reason too."""
    current = state.schema_state(pipeline, stream).current
    if current is None:
        return []
    texts = [column.name for column in current.columns if not _has_bytes(column)]
    found = []
    for types_json in state.dead_letter_types(pipeline, stream, choice):
        try:
            types = read_json(types_json)
        except ValueError:
            # Whoever reads its row tells of it.
            continue
        if isinstance(types, dict) and any(types.get(name) in _BYTES for name in texts):
            found.append(types_json)
    return found


def _has_bytes(column: SchemaColumn) -> bool:
    """At the destination, or as the stream brings it: the table may have a domain of them."""
    return column.type in _BYTES or "binary" in (column.arrow_type or "")


def _makes_text_of_bytes(change: SchemaChange) -> bool:
    """What is no text at the source is told as bytes: to be repaired by somebody, not to be loaded as `\\x80`."""
    return change.kind is ChangeKind.TYPE_CHANGE and change.stream in _BYTES


def _evolution(pipeline: Pipeline) -> SchemaEvolution:
    """What a replay may do about columns that differ: values are cast where that is the way in, and nothing else."""
    own = pipeline.destination.schema_evolution
    return SchemaEvolution.model_validate(
        {
            "new_column": "ignore" if own.new_column == "ignore" else "fail",
            "removed_column": "ignore",
            "type_change": "null" if own.type_change == "null" else "coerce",
            "nullability_change": "allow",
        }
    )


def _on_data_error(pipeline: Pipeline) -> OnDataError:
    """A row that is kept is not to be lost: what is skipped elsewhere becomes a letter again."""
    own = pipeline.destination.on_data_error
    return OnDataError.DLQ if own is OnDataError.SKIP else own


def _never_committed(stream: Stream, plan: PipelinePlan) -> RapidbyteError:
    return StateError(
        "the destination knows of no commit of this stream, whose dead letters the state store has",
        stream=stream.name,
        hint=f"restore the destination, or run the stream: `rapidbyte run {plan.pipeline.path.name}`; then replay",
    )


def _unknown(ids: Sequence[int], *, stream: str | None) -> UsageError:
    some = ", ".join(map(str, ids[:_NAMED_IDS])) + (", …" if len(ids) > _NAMED_IDS else "")
    return UsageError(
        f"the state store has no dead letter {some} of {'this stream' if stream else 'these streams'}",
        stream=stream,
        hint="`rapidbyte dlq show` lists what there is; those that were purged are gone",
    )


def _ignore_drift(changes: tuple[SchemaChange, ...]) -> None:
    pass
