"""One attempt at a replay: the letters that it takes, each from the stage on that had set it aside.

    letters of the source, of transform 1 ─▶ transform 1 ─▶ transform 2 ─▶ destination
    letters of transform 2 ────────────────────────────────▶┘             │
    letters of the destination ──────────────────────────────────────────▶┘

So a row that a mask has not seen yet is masked, and one that it has seen is not masked twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from rapidbyte_dagster.config import OnDataError, Pipeline, SchemaEvolution, Stream, WriteMode
from rapidbyte_dagster.engine.answers import OpenedDestination, read_answer
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.chain import Chain
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.drift import read_changes
from rapidbyte_dagster.engine.fate import REFUSALS, Fate, with_fate
from rapidbyte_dagster.engine.hosts import CheckpointingHost, TransformHost
from rapidbyte_dagster.engine.letter_files import EditedLetters
from rapidbyte_dagster.engine.letter_rows import LetterRow, messages_of, read_json, retold, row_of
from rapidbyte_dagster.engine.plan import PipelinePlan
from rapidbyte_dagster.engine.replay_entries import Entry, entries_of
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.engine.stages import Stages
from rapidbyte_dagster.engine.start import beneath_replays
from rapidbyte_dagster.engine.stream_commits import StreamCommits
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import RapidbyteError, RunCancelled, SchemaError, Stage, StateError
from rapidbyte_dagster.runtime import Barrier, Item, Message, StreamAborted, Worker
from rapidbyte_dagster.state import (
    ChangeAction,
    ChangeKind,
    LetterChoice,
    SchemaChange,
    SchemaColumn,
    StateStore,
    Watermark,
)

_BYTES = ("bytea", "bytea[]")


class ReplayAttempt:
    """One try. The letters are read while their stage asks for them."""

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
        self._entry = Entry()
        """The destination's own."""
        self._chain: _ReplayChain | None = None
        self._commits = StreamCommits(
            plan.redactor,
            on_log,
            state,
            pipeline=plan.pipeline.name,
            stream=stream.name,
            run_id=run_id,
            policy=self._evolution,
            on_data_error=self._on_data_error,
            on_drift=_ignore_drift,
        )
        self._host = _ReplayHost(plan.redactor, on_log, self._entry, state, self._commits)
        self._stages = Stages(self._wake)
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
        self._commits.beneath = self._beneath(watermark)
        self._host.ledger = BarrierLedger(self._plan.pipeline.resources, last.sequence)
        self._enter(self._host.ledger, last.sequence, letters, watermark.cursor)
        count = sum(map(len, letters.values()))
        self._on_log(logging.INFO, f"{count:,} dead letters are written to {self._shown_table()}")
        target = {"stream": self._stream_argument(), "target": "must_exist", "staged": None, "into": None}
        worker.call("rb_write", target)

    def _beneath(self, watermark: Watermark) -> Watermark:
        last = beneath_replays(self._state, *self._names, watermark)
        assert last is not None, "there is a watermark"
        # The cursor is the checkpoint's own.
        return last.model_copy(update={"cursor": None})

    def _wake(self) -> None:
        self._entry.abort()
        if self._chain is not None:
            self._chain.abort()

    def _mark(self, sequence: int) -> dict[str, set[int]]:
        """The numbers of the letters that this replay has taken, by the stage that had set them aside. Each exactly
        once: nobody else can hold the stream's lock."""
        told = self._edited is None
        waiting = self._choice.model_copy(update={"waiting": True})
        unusable = types_with_bytes_for_text(self._state, *self._names, waiting) if told else []
        self._state.mark_dead_letters(
            *self._names, self._choice, run_id=self._run_id, sequence=sequence, told=told, unusable=unusable
        )
        return self._state.marked_dead_letter_ids(*self._names, run_id=self._run_id, sequence=sequence)

    def _enter(self, ledger: BarrierLedger, last: int, letters: Mapping[str, set[int]], cursor: Any) -> None:
        """Starts the transforms that any of the letters has to go through, and gives each stage its own."""
        transforms = len(self._plan.transforms_of(self._stream))
        stages_at = entries_of(letters, transforms)
        first = min(stages_at)
        entries = {place: Entry() for place in range(first, transforms + 1)}
        self._chain = _ReplayChain(
            self._plan,
            self._stream,
            run_id=self._run_id,
            on_log=self._on_log,
            first=first,
            entries=entries,
            on_data_error=self._on_data_error,
        )
        entries[transforms + 1] = self._entry
        for place, entry in entries.items():
            stages = stages_at.get(place, [])
            taken = set().union(*(letters[stage] for stage in stages))
            own = self._items(ledger, last + 1, stages, taken)
            if place == first:
                others = [other for at, other in entries.items() if at != first]
                own = chain(own, self._barrier(ledger, last + 1, cursor, others))
            entry.open(own, None if place == first else self._chain.into(place))
        # Known by now to whoever wakes the stages.
        self._chain.start(self._stages)
        self._chain.begin(ledger, last)

    def _items(self, ledger: BarrierLedger, sequence: int, stages: Sequence[str], taken: set[int]) -> Iterator[Item]:
        """The rows of those letters that `stages` had set aside, all of which are `taken`."""
        if self._edited is None:
            rows = self._kept_rows(sequence, stages)
        else:
            rows = self._edited.rows(self._stream.name, taken)
        max_bytes = self._plan.pipeline.resources.max_batch_bytes
        count = 0
        for message, number in messages_of(rows, self._key(), max_bytes=max_bytes) if taken else ():
            ledger.count(number, len(message))
            count += number
            yield Message(message, number)
        if count != len(taken):
            raise StateError(
                f"{count:,} of {len(taken):,} dead letters could be read that this replay has taken",
                stream=self._stream.name,
                hint="something else removed them, or changed the file, meanwhile: replay again",
            )

    def _barrier(self, ledger: BarrierLedger, sequence: int, cursor: Any, others: Sequence[Entry]) -> Iterator[Item]:
        """The one that covers all letters: also those of the other stages, which have to be counted by then."""
        if any(other.taken.wait() is None for other in others):
            raise StreamAborted
        checkpoint = ledger.mark(cursor, True)
        assert checkpoint is not None, "it is the final one"
        yield Barrier(json.dumps({"sequence": sequence, "cursor": cursor, "final": True}).encode())

    def _kept_rows(self, sequence: int, stages: Sequence[str]) -> Iterator[LetterRow]:
        # Letters of one run have the same types: read once.
        text, types = "null", None
        for page in self._state.marked_dead_letters(
            *self._names, run_id=self._run_id, sequence=sequence, stages=stages
        ):
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


class _ReplayChain(Chain):
    """Those transforms of a stream that letters go through."""

    def __init__(
        self, *arguments: Any, entries: Mapping[int, Entry], on_data_error: OnDataError, **options: Any
    ) -> None:
        self._entries = dict(entries)
        self._on_data_error = on_data_error
        super().__init__(*arguments, **options)

    def into(self, place: int) -> Channel:
        """What the transform before `place` fills."""
        return self._channels[place - self._first]

    def abort(self) -> None:
        super().abort()
        for entry in self._entries.values():
            entry.abort()

    def _host(self, place: int, incoming: Channel, outgoing: Channel) -> TransformHost:
        entry = self._entries[place]
        return _ReplayTransformHost(self._plan.redactor, self._on_log, place, entry, outgoing, self._on_data_error)

    def _argument(self) -> dict[str, Any]:
        return self._plan.transform_argument(self._stream, on_data_error=self._on_data_error, replay=True)


class _ReplayTransformHost(TransformHost):
    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        super().emit_dlq_batch(_retold(payload))


class _ReplayHost(CheckpointingHost):
    """Walks the replay's commit through the state store, and holds the destination to leaving its table as it is."""

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        super().emit_dlq_batch(_retold(payload))

    def drift(self, payload: dict[str, Any]) -> None:
        self._writing("schema changes")
        changes = read_changes(payload, self.commits.policy, self._redactor)
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


def _retold(payload: dict[str, Any]) -> dict[str, Any]:
    """Letters that failed again, as their rows were told the first time."""
    letters = payload.get("letters")
    return {**payload, "letters": [retold(letter) for letter in letters]} if isinstance(letters, list) else payload


def types_with_bytes_for_text(state: StateStore, pipeline: str, stream: str, choice: LetterChoice) -> list[str]:
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


def _ignore_drift(changes: tuple[SchemaChange, ...]) -> None:
    pass
