"""A stream held against its table before any run: how they differ, and what the policy would do about it.

source: rb_describe ── emit ──▶ schema message ── next ──▶ destination: rb_compare ── drift ──▶ changes
                                  └▶ rb_transform, for each of the stream's transforms ─┘
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from rapidbyte_dagster.config import Pipeline, Redactor, SchemaEvolution, Stream
from rapidbyte_dagster.engine.answers import Compared, read_answer
from rapidbyte_dagster.engine.arrow_stream import ArrowStream
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.drift import read_changes
from rapidbyte_dagster.engine.finding import Finding
from rapidbyte_dagster.engine.plan import PipelinePlan, plan_pipeline
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Kind, RapidbyteError, SchemaError, Stage, UsageError
from rapidbyte_dagster.runtime import End, Item, Message, NoData
from rapidbyte_dagster.state import ChangeAction, ChangeKind, SchemaChange, SchemaColumn, StateStore

CHECK: Final = "schema"
"""What its findings are called."""

_INSTEAD: Final[Mapping[ChangeKind, str]] = {
    ChangeKind.NEW_COLUMN: "add or ignore",
    ChangeKind.REMOVED_COLUMN: "ignore or add",
    ChangeKind.TYPE_CHANGE: "coerce or 'null'",
    ChangeKind.NULLABILITY_CHANGE: "allow",
}
"""What a policy may say that does not refuse."""


class SchemaCapture(NoData):
    """Takes the one message that a source emits in `rb_describe`."""

    def __init__(self, stage: Stage = Stage.SOURCE) -> None:
        self._stage = stage
        self._arrow = ArrowStream(stage)
        self._message: bytes | bytearray | None = None

    def emit(self, message: bytes | bytearray) -> None:
        self._arrow.accept(message)
        if self._message is not None:
            raise violation(self._stage, "emitted more than a schema message where no row is moved")
        self._message = message

    @property
    def message(self) -> bytes | bytearray:
        if self._message is None:
            raise violation(self._stage, "emitted no schema message")
        return self._message


class SchemaSupply(NoData):
    """Hands over one schema message, and then the end."""

    def __init__(self, message: bytes | bytearray) -> None:
        self._given: bytes | bytearray | None = message

    def next(self) -> Item:
        given, self._given = self._given, None
        return Message(given) if given is not None else End()


class TransformedSchema(SchemaCapture):
    """Takes what a transform makes of a schema message, where it is given nothing else."""

    def __init__(self, message: bytes | bytearray) -> None:
        super().__init__(Stage.TRANSFORM)
        self._supply = SchemaSupply(message)

    def next(self) -> Item:
        return self._supply.next()


class Comparison(SchemaSupply):
    """Hands a destination the schema message, and takes what differs."""

    def __init__(self, message: bytes | bytearray, policy: SchemaEvolution, redactor: Redactor) -> None:
        super().__init__(message)
        self._policy = policy
        self._redactor = redactor
        self.changes: tuple[SchemaChange, ...] = ()

    def drift(self, payload: dict[str, Any]) -> None:
        self.changes = read_changes(payload, self._policy, self._redactor)


def can_compare(plan: PipelinePlan) -> bool:
    return plan.source.connector.offers("rb_describe") and plan.destination.connector.offers("rb_compare")


def compare_streams(
    plan: PipelinePlan,
    streams: Sequence[Stream],
    *,
    known: Mapping[str, Sequence[SchemaColumn] | None],
    failing: Collection[str],
) -> list[Finding]:
    """The findings of each of `streams`, in their order.

    `known` are the columns that each ever brought. For those of `failing` the destination has an error already: that
    they cannot be compared is nothing new.
    """

    def compare(stream: Stream) -> list[Finding]:
        return _compare(plan, stream, known.get(stream.name), is_failing=stream.name in failing)

    if not streams:
        return []
    # Each has connectors of its own, so that what one of them breaks is broken for no other.
    with ThreadPoolExecutor(min(plan.pipeline.resources.streams_at_once, len(streams))) as pool:
        return [finding for findings in pool.map(compare, streams) for finding in findings]


def compare_stream(
    pipeline: Pipeline, stream: Stream, *, state: StateStore, environ: Mapping[str, str] = os.environ
) -> tuple[SchemaChange, ...]:
    """How `stream` and its table differ now, and what a run would do about it; nothing where there is no table yet.

    Raises a leaf of `RapidbyteError` that names the stream and shows no secret; one of kind `unsupported` where the
    connectors tell nothing of it without a run.
    """
    plan = plan_pipeline(pipeline, environ, stream)
    if not can_compare(plan):
        raise UsageError(
            "these connectors cannot compare a stream with its table without moving it",
            kind=Kind.UNSUPPORTED,
            stream=stream.name,
        )
    known = plan.known_columns(stream, state.schema_state(pipeline.name, stream.name))
    try:
        changes, _ = _changes(plan, stream, _transformed(plan, stream, _describe(plan, stream)), known)
    except RapidbyteError as error:
        failure = told(error, plan.redactor, stream.name)
    else:
        return changes
    # Out here it has no context: that would hold the unredacted text.
    raise failure


def _compare(
    plan: PipelinePlan, stream: Stream, known: Sequence[SchemaColumn] | None, *, is_failing: bool
) -> list[Finding]:
    name = plan.redactor.redact(stream.name)
    stage = Stage.SOURCE
    try:
        message = _describe(plan, stream)
        stage = Stage.TRANSFORM
        message = _transformed(plan, stream, message)
        stage = Stage.DESTINATION
        changes, exists = _changes(plan, stream, message, known)
    except RapidbyteError as error:
        if stage is Stage.DESTINATION and is_failing:
            return []
        return [Finding.of_error(error, plan.redactor, stage=stage, check=CHECK, stream=name)]
    if changes:
        return [_finding(change, name) for change in changes]
    if not exists:
        # rb_check tells what becomes of it.
        return []
    return [Finding(stage, "ok", CHECK, "the stream's columns and those of the table agree", stream=name)]


def _describe(plan: PipelinePlan, stream: Stream) -> bytes | bytearray:
    host = SchemaCapture()
    with plan.source.worker(host) as worker:
        worker.call("rb_open", plan.open_argument(Stage.SOURCE))
        worker.call("rb_describe", {"stream": plan.source_argument(stream)})
    return host.message


def _transformed(plan: PipelinePlan, stream: Stream, message: bytes | bytearray) -> bytes | bytearray:
    """The schema message that comes out of the stream's chain."""
    for transform in plan.transforms_of(stream):
        host = TransformedSchema(message)
        with transform.worker(host) as worker:
            worker.call("rb_open", plan.open_argument_of(transform, stream))
            worker.call("rb_transform", plan.transform_argument(stream))
        message = host.message
    return message


def _changes(
    plan: PipelinePlan, stream: Stream, message: bytes | bytearray, known: Sequence[SchemaColumn] | None
) -> tuple[tuple[SchemaChange, ...], bool]:
    """What differs, and whether there is a table that something could differ from."""
    host = Comparison(message, plan.pipeline.destination.schema_evolution, plan.redactor)
    with plan.destination.worker(host) as worker:
        worker.call("rb_open", plan.open_argument(Stage.DESTINATION))
        answer = worker.call("rb_compare", {"stream": plan.destination_argument(stream, known=known)})
    return host.changes, read_answer(Compared, answer, verb="rb_compare", stage=Stage.DESTINATION).exists


def _finding(change: SchemaChange, stream: str) -> Finding:
    policy = f" (schema_evolution.{change.kind}: {change.policy})" if change.policy is not None else ""
    refused = change.action is ChangeAction.REFUSED
    return Finding(
        Stage.DESTINATION,
        change.action.severity,
        CHECK,
        change.message + policy,
        stream=stream,
        hint="change the table or the stream's `columns` so that they agree,"
        f" or set `schema_evolution.{change.kind}` to {_INSTEAD[change.kind]}"
        if refused
        else None,
        exit_code=SchemaError.exit_code if refused else 0,
        change=change,
    )
