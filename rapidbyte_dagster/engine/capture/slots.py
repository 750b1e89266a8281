"""A slot group's replication slot and publication: made, looked at, dropped. Nothing is moved here.

What was made is written down in the state store, since nothing at the source tells whose a slot is; a publication bears
a mark. Neither is altered or dropped where it is somebody else's.

A slot is the one that was made as long as it is at the same server, and has not been confirmed beyond what this
pipeline has read: one that is made later, under the same name, begins behind that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import Any, TypeVar

from rapidbyte_dagster.config import Pipeline, SlotGroup, Stream
from rapidbyte_dagster.engine.answers import SlotFound, SlotSetUp, SlotTornDown, read_answer
from rapidbyte_dagster.engine.capture.lsn import parse_lsn
from rapidbyte_dagster.engine.capture.standing import known_positions
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.fate import REFUSALS
from rapidbyte_dagster.engine.hosts import StageHost
from rapidbyte_dagster.engine.plan import PipelinePlan, plan_pipeline
from rapidbyte_dagster.engine.result import LogListener, ignore_log
from rapidbyte_dagster.errors import ErrorInfo, Kind, RapidbyteError, Stage, error_from
from rapidbyte_dagster.runtime import Worker
from rapidbyte_dagster.state import MadeSlot, StateStore

T = TypeVar("T")


@dataclass(frozen=True)
class SlotSetup:
    """A slot and its publication, ready to be read."""

    slot: str
    publication: str
    created_slot: bool
    created_publication: bool
    added_tables: tuple[str, ...]
    """`schema.name` of what the publication did not tell of before."""
    position: str | None
    """An LSN: what committed before is not to be had from the slot. None where there is no slot, and every stream needs
    the one that was there."""
    wal_position: str
    """An LSN: where the source's log ends."""
    origins: Mapping[str, str]
    """By stream: what its table is, and its place in the publication. Another one than before means that changes have
    passed unseen."""
    unpublished: tuple[str, ...]
    """Streams that were captured before, and that the publication does not tell of any more: what they missed is lost,
    so that their tables are not added again before they are loaded anew."""
    warnings: tuple[str, ...]
    refused: Mapping[str, RapidbyteError]
    """The streams that cannot be captured, and why. The others were set up."""


@dataclass(frozen=True)
class SlotStatus:
    """A slot as its server has it. Sizes are bytes; None where there is no slot, or the server does not tell."""

    slot: str
    publication: str
    exists: bool
    active: bool
    active_pid: int | None
    active_application: str | None
    """What reads it, as it calls itself."""
    restart_lsn: str | None
    confirmed_flush_lsn: str | None
    wal_position: str
    """Up to where the server has written its log."""
    lag_bytes: int | None
    """Log that is still to be read."""
    retained_bytes: int | None
    """Log that the server keeps for the slot."""
    wal_status: str | None
    """reserved, extended, unreserved or lost; None before PostgreSQL 13."""
    safe_wal_size: int | None
    """How much more can be logged before the slot is in danger; None for any amount."""
    invalidation_reason: str | None
    fault: str | None
    """Why the slot is none that this pipeline can read: another database's, another plugin's, lost."""
    publication_exists: bool
    publication_is_ours: bool
    published: tuple[str, ...]
    """`schema.name` of the streams' tables that the publication tells of; `unpublished` are the others."""
    unpublished: tuple[str, ...]
    unpublished_streams: tuple[str, ...]
    """The names of those that read one of these."""
    change_counter: str
    """Another text whenever rows, files or columns of the streams' tables may have changed. The server counts some
    seconds behind."""

    @property
    def is_lost(self) -> bool:
        """Whether the server has given it up."""
        return self.wal_status == "lost" or self.invalidation_reason is not None


@dataclass(frozen=True)
class SlotTeardown:
    slot: str
    publication: str
    dropped_slot: bool
    dropped_publication: bool
    kept_slot: bool
    """It exists, and this pipeline has not made it."""
    kept_publication: bool
    """It exists: this pipeline has not made it, or another slot is read by it."""


def setup_slot(
    pipeline: Pipeline,
    group: SlotGroup,
    environ: Mapping[str, str] = os.environ,
    *,
    state: StateStore,
    on_log: LogListener | None = None,
) -> SlotSetup:
    """Makes what is missing of the slot and the publication of `group`. Waits for the transactions that are going on.

    Raises a leaf of `RapidbyteError` that shows no secret when none of the streams can be captured.
    """
    began = known_positions(pipeline, group.streams, state)
    return _at_source(
        pipeline, environ, lambda plan, worker: set_up(plan, group, worker, state=state, began=began), on_log
    )


def set_up(
    plan: PipelinePlan, group: SlotGroup, worker: Worker, *, state: StateStore, began: Collection[str]
) -> SlotSetup:
    """`worker` is a source that is open. `began` are the streams that have read from the slot: what they need is there,
    or lost, and is not made."""
    names = plan.slot_names(group)
    with _ownership(plan, group, worker, state, makes=len(began) < len(group.streams)) as owned:
        answer = read_answer(
            SlotSetUp, call_slot(plan, worker, group, "setup", began=list(began)), verb="rb_slot", stage=Stage.SOURCE
        )
        owned.is_made, owned.position = answer.created_slot, answer.position
    return SlotSetup(
        slot=names.slot,
        publication=names.publication,
        created_slot=answer.created_slot,
        created_publication=answer.created_publication,
        added_tables=answer.added_tables,
        position=answer.position,
        wal_position=answer.wal_position,
        origins=answer.origins,
        unpublished=answer.unpublished,
        warnings=tuple(map(plan.redactor.redact, answer.warnings)),
        refused={
            stream: told(refusal.as_error(stream), plan.redactor, stream) for stream, refusal in answer.refused.items()
        },
    )


@dataclass
class _Ownership:
    is_made: bool = False
    position: str | None = None


@contextmanager
def _ownership(
    plan: PipelinePlan, group: SlotGroup, worker: Worker, state: StateStore, *, makes: bool
) -> Iterator[_Ownership]:
    """Writes down whose the slot is before it is made: a server that waits for transactions makes it even when nobody
    waits for the server any more."""
    pipeline, slot = plan.pipeline.name, plan.slot_names(group).slot
    owned = _Ownership()
    found = find_slot(plan, worker, group)
    exists = found.slot.exists
    is_ours = _is_ours(plan, group, found, state)
    if not is_ours:
        # One that was made before is gone, and whoever makes another of its name is its owner.
        state.forget_slot(pipeline, slot)
    if not exists and makes:
        state.record_slot(pipeline, MadeSlot(slot, found.server))
    try:
        yield owned
    except RapidbyteError as error:
        if not exists and error.kind in REFUSALS:
            state.forget_slot(pipeline, slot)
        raise
    if is_ours or owned.is_made:
        state.record_slot(pipeline, MadeSlot(slot, found.server, owned.position))
    elif not exists:
        state.forget_slot(pipeline, slot)


def _is_ours(plan: PipelinePlan, group: SlotGroup, found: SlotFound, state: StateStore) -> bool:
    """Whether the slot that `found` tells of is the one that this pipeline has made."""
    made = state.made_slot(plan.pipeline.name, plan.slot_names(group).slot)
    if made is None or not found.slot.exists or _is_elsewhere(made, found):
        return False
    if made.position is None:
        # It is being made, or was when its run was killed.
        return True
    read = [parse_lsn(made.position), *known_positions(plan.pipeline, group.streams, state).values()]
    confirmed = found.slot.confirmed_flush_lsn
    return confirmed is not None and parse_lsn(confirmed) <= max(read)


def _is_elsewhere(made: MadeSlot, found: SlotFound) -> bool:
    return made.server is not None and found.server is not None and made.server != found.server


def note_confirmed(plan: PipelinePlan, group: SlotGroup, found: SlotFound, state: StateStore) -> None:
    """Keeps in mind up to where the pipeline's own slot was confirmed, as `found` tells after a run."""
    pipeline, slot = plan.pipeline.name, plan.slot_names(group).slot
    if state.made_slot(pipeline, slot) is not None:
        state.record_slot(pipeline, MadeSlot(slot, found.server, found.slot.confirmed_flush_lsn))


def slot_status(
    pipeline: Pipeline,
    group: SlotGroup,
    environ: Mapping[str, str] = os.environ,
    *,
    on_log: LogListener | None = None,
    patience_seconds: float | None = None,
) -> SlotStatus:
    """How far the slot of `group` is behind, by a few queries of the catalog: nothing is decoded, nothing changed.

    Raises a leaf of `RapidbyteError` that shows no secret when the source cannot be asked; of kind `timeout` when it
    has not answered after `patience_seconds`.
    """

    def look(plan: PipelinePlan, worker: Worker) -> SlotStatus:
        names = plan.slot_names(group)
        answer = find_slot(plan, worker, group)
        slot, publication = answer.slot, answer.publication
        return SlotStatus(
            slot=names.slot,
            publication=names.publication,
            exists=slot.exists,
            active=slot.active,
            active_pid=slot.active_pid,
            active_application=slot.active_application,
            restart_lsn=slot.restart_lsn,
            confirmed_flush_lsn=slot.confirmed_flush_lsn,
            wal_position=answer.wal_position,
            lag_bytes=answer.lag_bytes,
            retained_bytes=answer.retained_bytes,
            wal_status=slot.wal_status,
            safe_wal_size=slot.safe_wal_size,
            invalidation_reason=slot.invalidation_reason,
            fault=plan.redactor.redact(answer.fault) if answer.fault else None,
            publication_exists=publication.exists,
            publication_is_ours=publication.ours,
            published=publication.tables,
            unpublished=publication.missing,
            unpublished_streams=tuple(
                stream.name for stream in group.streams if _is_among(plan, stream, publication.missing)
            ),
            change_counter=answer.change_counter,
        )

    return _at_source(pipeline, environ, look, on_log, patience_seconds)


def _is_among(plan: PipelinePlan, stream: Stream, tables: Collection[str]) -> bool:
    """Whether `stream` reads one of `tables`, which are told as `schema.name`."""
    schema = stream.schema_ or plan.source.config.get("schema")
    if schema is None:  # the connector's own default
        return any(table.endswith(f".{stream.name}") for table in tables)
    return f"{schema}.{stream.name}" in tables


def teardown_slot(
    pipeline: Pipeline,
    group: SlotGroup,
    environ: Mapping[str, str] = os.environ,
    *,
    state: StateStore,
    on_log: LogListener | None = None,
) -> SlotTeardown:
    """Drops the slot of `group` if this pipeline has made it, and its publication if that bears the pipeline's mark and
    no other slot of the pipeline is read by it. What the streams have at their destination stays.

    Raises a leaf of `RapidbyteError` that shows no secret, also while somebody reads the slot.
    """

    def tear_down(plan: PipelinePlan, worker: Worker) -> SlotTeardown:
        names = plan.slot_names(group)
        found = find_slot(plan, worker, group)
        exists, is_ours = found.slot.exists, _is_ours(plan, group, found, state)
        made = state.made_slot(pipeline.name, names.slot)
        sharing = [
            other
            for other in pipeline.slot_groups
            if other.name != group.name and plan.slot_names(other).publication == names.publication
        ]
        is_needed = (exists and not is_ours) or any(find_slot(plan, worker, other).slot.exists for other in sharing)
        drop = {"slot": is_ours, "publication": not is_needed}
        answer = read_answer(
            SlotTornDown, call_slot(plan, worker, group, "teardown", drop=drop), verb="rb_slot", stage=Stage.SOURCE
        )
        # One that was made at another server is still there.
        if made is not None and not _is_elsewhere(made, found):
            state.forget_slot(pipeline.name, names.slot)
        return SlotTeardown(
            slot=names.slot,
            publication=names.publication,
            dropped_slot=answer.dropped_slot,
            dropped_publication=answer.dropped_publication,
            kept_slot=exists and not is_ours,
            kept_publication=found.publication.exists and not answer.dropped_publication,
        )

    return _at_source(pipeline, environ, tear_down, on_log)


def find_slot(plan: PipelinePlan, worker: Worker, group: SlotGroup) -> SlotFound:
    return read_answer(SlotFound, call_slot(plan, worker, group, "status"), verb="rb_slot", stage=Stage.SOURCE)


def call_slot(plan: PipelinePlan, worker: Worker, group: SlotGroup, action: str, **others: Any) -> Mapping[str, Any]:
    if not plan.source.connector.offers("rb_slot"):
        raise error_from(
            ErrorInfo(
                kind=Kind.UNSUPPORTED,
                stage=Stage.SOURCE,
                message=f"connector {plan.source.connector.manifest.name!r} captures no changes (rb_slot)",
                hint="use a connector that does, or another sync_mode",
            )
        )
    names = plan.slot_names(group)
    argument = {
        "action": action,
        "slot": names.slot,
        "publication": names.publication,
        "streams": [plan.source_argument(stream) for stream in group.streams],
        **others,
    }
    answer: Mapping[str, Any] = worker.call("rb_slot", argument)
    return answer


def _at_source(
    pipeline: Pipeline,
    environ: Mapping[str, str],
    work: Callable[[PipelinePlan, Worker], T],
    on_log: LogListener | None,
    patience_seconds: float | None = None,
) -> T:
    plan = plan_pipeline(pipeline, environ)
    host = StageHost(Stage.SOURCE, plan.redactor, on_log or ignore_log)
    try:
        with plan.source.worker(host) as worker, _patience(worker, patience_seconds):
            worker.call("rb_open", plan.open_argument(Stage.SOURCE))
            return work(plan, worker)
    except RapidbyteError as error:
        failure = told(error, plan.redactor, error.info.stream)
    # Out here it has no context: that would hold the unredacted text.
    raise failure


@contextmanager
def _patience(worker: Worker, seconds: float | None) -> Iterator[None]:
    """Stops `worker` when its time is up."""
    if seconds is None:
        yield
        return
    timer = Timer(seconds, worker.cancel, [Kind.TIMEOUT])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
