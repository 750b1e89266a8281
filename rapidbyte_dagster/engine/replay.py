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

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapidbyte_dagster.config import Pipeline, Redactor, Stream, SyncMode, WriteMode
from rapidbyte_dagster.engine.cancel import CancelToken
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.letter_files import EditedLetters
from rapidbyte_dagster.engine.plan import PipelinePlan, plan_pipeline
from rapidbyte_dagster.engine.replay_attempt import ReplayAttempt, types_with_bytes_for_text
from rapidbyte_dagster.engine.result import LogListener, ignore_log
from rapidbyte_dagster.engine.retry import RetryPolicy
from rapidbyte_dagster.errors import RapidbyteError, RunCancelled, UsageError
from rapidbyte_dagster.state import (
    Committed,
    LetterChoice,
    RunRecord,
    StateStore,
    utc_now,
)

# Numbers of letters that an error names.
_NAMED_IDS = 10


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
    if stream.sync_mode is SyncMode.CDC and pipeline.write_mode(stream) is WriteMode.UPSERT:
        raise UsageError(
            "dead letters of a table that mirrors its source cannot be replayed: they are changes, and later ones may"
            " have been applied since",
            stream=stream.name,
            hint=f"mend what refused them, then load the table anew: `rapidbyte run {pipeline.path.name} --stream"
            f" {stream.name} --full-refresh`; its dead letters wait no longer then",
        )
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
            unusable = types_with_bytes_for_text(self._state, *names, waiting)
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
            attempt = ReplayAttempt(
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


def _unknown(ids: Sequence[int], *, stream: str | None) -> UsageError:
    some = ", ".join(map(str, ids[:_NAMED_IDS])) + (", …" if len(ids) > _NAMED_IDS else "")
    return UsageError(
        f"the state store has no dead letter {some} of {'this stream' if stream else 'these streams'}",
        stream=stream,
        hint="`rapidbyte dlq show` lists what there is; those that were purged are gone",
    )
