"""What the two guests of a capture are offered: the source fills one channel with the changes of several streams, the
destination applies them in one transaction."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from rapidbyte_dagster.config import OnDataError, Redactor
from rapidbyte_dagster.engine.barriers import PendingCheckpoint
from rapidbyte_dagster.engine.capture.changes import ChangeStreams
from rapidbyte_dagster.engine.capture.ledger import CaptureLedger, Mark
from rapidbyte_dagster.engine.capture.lsn import cursor_at, format_lsn, position_of
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.hosts import StageHost
from rapidbyte_dagster.engine.letters import Letters, read_letters, size_of
from rapidbyte_dagster.engine.result import LogListener
from rapidbyte_dagster.engine.stream_commits import StreamCommits, require_dlq
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, Stage, error_from
from rapidbyte_dagster.runtime import Barrier, End, Item, Message
from rapidbyte_dagster.state import Checkpoint, StateStore

FOLD_EVERY = 256
"""Commits of one run after which its checkpoints are made one."""


class CaptureHost(StageHost):
    def __init__(
        self,
        redactor: Redactor,
        on_log: LogListener,
        channel: Channel,
        streams: list[str],
        on_data_error: OnDataError = OnDataError.FAIL,
    ) -> None:
        super().__init__(Stage.SOURCE, redactor, on_log)
        self._channel = channel
        self._on_data_error = on_data_error
        self._final: Barrier | None = None
        """The final barrier. It waits for `finish`: a source that fails behind it has nothing committed."""
        self._has_room = False
        """Whether the source has waited for room for its next message."""
        self.changes = ChangeStreams(streams)
        self.ledger: CaptureLedger | None = None
        self.rows: dict[str, int] = dict.fromkeys(streams, 0)
        self.bytes: dict[str, int] = dict.fromkeys(streams, 0)

    def emit(self, message: bytes | bytearray) -> None:
        ledger = self._capturing()
        stream, rows = self.changes.accept(message)
        ledger.count(stream, rows, len(message))
        self._channel.put(Message(message, rows), at_once=self._has_room)
        self._has_room = False
        self.rows[stream] += rows
        self.bytes[stream] += len(message)

    def barrier(self, payload: dict[str, Any]) -> None:
        ledger = self._capturing()
        cursor, final = payload.get("cursor"), payload.get("final")
        position = position_of(cursor)
        if not isinstance(final, bool) or not isinstance(cursor, dict) or position is None:
            raise violation(Stage.SOURCE, "sent a barrier without `final`, or without an LSN as its cursor")
        committed_at = cursor.get("commit_ts")
        left_out = _left_out(payload.get("rejected"), self.rows)
        if left_out and self._on_data_error is not OnDataError.SKIP:
            raise violation(Stage.SOURCE, f"left changes out where on_data_error is {self._on_data_error}")
        mark = ledger.mark(position, committed_at if isinstance(committed_at, int) else None, final, left_out)
        barrier = Barrier(json.dumps({"number": mark.number}).encode())
        if final:
            self._final = barrier
        else:
            self._channel.put(barrier)

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        ledger = self._capturing()
        require_dlq(self._on_data_error, self.stage)
        stream = payload.get("stream")
        if not isinstance(stream, str) or stream not in self.rows:
            raise violation(Stage.SOURCE, "told of dead letters of a stream that it was not given")
        letters = read_letters(payload, self.stage, self._redactor)
        number = ledger.count_dead_letters(stream, len(letters))
        self._channel.put(Letters(letters, number, size_of(letters), stream), at_once=True)

    def room(self, seconds: float) -> bool:
        self._has_room = self._channel.wait_for_room(seconds)
        return self._has_room

    def settled(self) -> int:
        return self._capturing().settled

    def finish(self) -> None:
        """The source has read everything and said so."""
        if self._final is None:
            raise violation(Stage.SOURCE, "ended its capture without a final barrier")
        self._channel.put(self._final)
        self._channel.put(End())

    def _capturing(self) -> CaptureLedger:
        if self.ledger is None:
            raise violation(Stage.SOURCE, "sent data outside of rb_capture")
        return self.ledger


class ApplyHost(StageHost):
    """Walks each commit of all streams through the state store: prepare, COMMIT (the guest's), finalise."""

    def __init__(
        self,
        redactor: Redactor,
        on_log: LogListener,
        channel: Channel,
        state: StateStore,
        commits: Mapping[str, StreamCommits],
        *,
        pipeline: str,
        run_id: str,
        origins: Mapping[str, str],
        on_commit: Callable[[Mark], None],
    ) -> None:
        """`origins` tell of each stream what its table is."""
        super().__init__(Stage.DESTINATION, redactor, on_log)
        self._channel = channel
        self._state = state
        self._commits = commits
        self._pipeline = pipeline
        self._run_id = run_id
        self._origins = origins
        self._on_commit = on_commit
        self._redactor_of_errors = redactor
        self.ledger: CaptureLedger | None = None
        self.started_after: dict[str, int] = {}
        """The number of each stream's last checkpoint before this attempt."""
        self._sequences: dict[str, int] = {}
        self.positions: dict[str, int] = {}
        """What of each stream is committed: every transaction that committed before this LSN."""
        self._prepared: list[Checkpoint] = []
        self._unfolded = 0
        self.stopped: dict[str, RapidbyteError] = {}
        """The streams that failed on their data or their schema, and go on no more."""
        self.checkpoints: dict[str, Checkpoint] = {}
        """The last committed one of each stream."""

    def begin(self, ledger: CaptureLedger, sequences: Mapping[str, int], positions: Mapping[str, int]) -> None:
        self.ledger = ledger
        self.started_after = dict(sequences)
        self._sequences = dict(sequences)
        self.positions = dict(positions)

    def next(self) -> Item:
        ledger = self._applying()
        self._require_any()
        while True:
            item = self._channel.take()
            if isinstance(item, Letters):
                self._keep(item)
                continue
            if not isinstance(item, Barrier):
                return item
            number = json.loads(item.data)["number"]
            if ledger.is_due(number, more=self._channel.holds(Barrier)):
                return Barrier(json.dumps(self._announcement(number, ledger)).encode())

    def _keep(self, letters: Letters) -> None:
        """They belong to their stream's next checkpoint."""
        assert letters.stream is not None, "the source's host named it"
        if letters.stream not in self.stopped:
            following = self._sequences[letters.stream] + 1
            self._commits[letters.stream].keep(replace(letters, sequence=following))

    def _announcement(self, number: int, ledger: CaptureLedger) -> dict[str, Any]:
        """The barrier as the destination sees it: what it is to write down as the streams' watermarks."""
        position = ledger.position(number)
        return {
            "sequence": number,
            "final": ledger.is_final(number),
            "streams": {
                stream: {"sequence": self._sequences[stream] + 1, "cursor": self._cursor(stream, position)}
                for stream in self._going_on()
            },
        }

    def _cursor(self, stream: str, position: int) -> dict[str, str]:
        # A stream whose snapshot is newer has skipped what the others catch up with.
        return cursor_at(max(position, self.positions[stream]), self._origins.get(stream))

    def _going_on(self) -> list[str]:
        return [stream for stream in self._commits if stream not in self.stopped]

    def _require_any(self) -> None:
        """Where all streams have stopped there is nothing to read or to commit for."""
        if not self._going_on():
            raise next(iter(self.stopped.values()))

    def drift(self, payload: dict[str, Any]) -> None:
        self._commits_of(payload).report(payload)

    def emit_dlq_batch(self, payload: dict[str, Any]) -> None:
        commits = self._commits_of(payload)
        commits.set_aside(payload, self._sequences[payload["stream"]] + 1)

    def prepare(self, payload: dict[str, Any]) -> None:
        ledger = self._applying()
        counts = _counts(payload)
        self._stop(payload.get("stopped"))
        self._require_any()
        mark = ledger.prepare(_number(payload, "sequence"), {stream: rows for stream, (rows, _) in counts.items()})
        checkpoints = []
        for stream in self._going_on():
            commits = self._commits[stream]
            commits.require_accepted_schema()
            _, rejected = counts.get(stream, (0, 0))
            pending = PendingCheckpoint(
                self._sequences[stream] + 1,
                self._cursor(stream, mark.position),
                mark.final,
                mark.rows.get(stream, 0) - rejected,
                mark.bytes.get(stream, 0),
                dead_letters=mark.dead_letters.get(stream, 0),
                left_out=mark.left_out.get(stream, 0),
                refused=rejected,
            )
            checkpoints.append(commits.checkpoint(pending))
        self._state.prepare_together(checkpoints)
        for checkpoint in checkpoints:
            self._commits[checkpoint.stream].prepared(checkpoint)
        self._prepared, self._mark = checkpoints, mark

    def committed(self, payload: dict[str, Any]) -> None:
        self._applying().committed(_number(payload, "sequence"))
        self._state.finalise_together(self._pipeline, {c.stream: c.sequence for c in self._prepared})
        for checkpoint in self._prepared:
            self._sequences[checkpoint.stream] = checkpoint.sequence
            position = position_of(checkpoint.cursor)
            assert position is not None, "it was made here"
            self.positions[checkpoint.stream] = position
            self.checkpoints[checkpoint.stream] = checkpoint
        self._unfolded += 1
        if self._unfolded >= FOLD_EVERY or self._mark.final:
            self._fold()
        self._on_commit(self._mark)

    def _fold(self) -> None:
        self._unfolded = 0
        for stream, after in self.started_after.items():
            self._state.fold(self._pipeline, stream, self._run_id, after=after)

    def _stop(self, told_of: Any) -> None:
        for stream, told_error in (told_of or {}).items():
            if stream in self.stopped:
                continue
            if stream not in self._commits or not isinstance(told_error, dict):
                raise violation(Stage.DESTINATION, "stopped a stream that it was not given")
            self._applying().freeze()
            error = told(_error(told_error), self._redactor_of_errors, stream)
            self.stopped[stream] = error
            at = format_lsn(self.positions[stream])
            self._on_log(logging.ERROR, f"{stream} stops at {at}, the other streams go on: {error}")

    def _commits_of(self, payload: dict[str, Any]) -> StreamCommits:
        self._applying()
        stream = payload.get("stream")
        if not isinstance(stream, str) or stream not in self._commits:
            raise violation(Stage.DESTINATION, "told of a stream that it was not given")
        return self._commits[stream]

    def _applying(self) -> CaptureLedger:
        if self.ledger is None:
            raise violation(Stage.DESTINATION, "asked for changes outside of rb_apply")
        return self.ledger


def _error(payload: Mapping[str, Any]) -> RapidbyteError:
    def text(key: str) -> str | None:
        value = payload.get(key)
        return value if isinstance(value, str) and value else None

    try:
        kind = Kind(payload.get("kind"))
    except ValueError:
        kind = Kind.CONNECTOR
    return error_from(
        ErrorInfo(
            kind,
            text("message") or "the destination does not say why",
            Stage.DESTINATION,
            detail=text("detail"),
            hint=text("hint"),
            sqlstate=text("sqlstate"),
        )
    )


def _counts(payload: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Rows taken and rejected, by stream."""
    streams = payload.get("streams")
    if not isinstance(streams, dict) or not all(isinstance(counts, dict) for counts in streams.values()):
        raise violation(Stage.DESTINATION, "sent a commit without usable `streams`")
    return {stream: (_number(counts, "rows"), _number(counts, "rejected")) for stream, counts in streams.items()}


def _left_out(told_of: Any, streams: Collection[str]) -> dict[str, int]:
    """Changes that the source left out since its last barrier, by stream."""
    counts = told_of or {}
    if not isinstance(counts, dict) or not all(stream in streams for stream in counts):
        raise violation(Stage.SOURCE, "sent a barrier without a usable `rejected`")
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        raise violation(Stage.SOURCE, "sent a barrier without a usable `rejected`")
    return counts


def _number(payload: Mapping[str, Any], key: str) -> int:
    value = payload.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise violation(Stage.DESTINATION, f"sent a commit without a usable `{key}`")
    return value
