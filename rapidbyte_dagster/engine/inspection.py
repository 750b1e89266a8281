"""Looking without moving anything: `check` and `discover`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config import Pipeline, Redactor
from rapidbyte_dagster.engine.answers import (
    Checked,
    CheckFinding,
    Discovered,
    FoundTable,
    Opened,
    OpenedTransform,
    read_answer,
)
from rapidbyte_dagster.engine.capture.continuity import lost_in
from rapidbyte_dagster.engine.capture.slots import slot_status
from rapidbyte_dagster.engine.capture.standing import known_positions
from rapidbyte_dagster.engine.comparison import can_compare, compare_streams
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.finding import Finding
from rapidbyte_dagster.engine.plan import ConnectorPlan, PipelinePlan, plan_pipeline
from rapidbyte_dagster.errors import DestinationError, RapidbyteError, SchemaError, SourceError, Stage, TransformError
from rapidbyte_dagster.runtime import NoData
from rapidbyte_dagster.state import SchemaColumn, open_existing_state


@dataclass(frozen=True)
class DiscoveredColumn:
    name: str
    type: str
    arrow_type: str
    nullable: bool


@dataclass(frozen=True)
class DiscoveredTable:
    schema: str
    name: str
    kind: str
    rows_estimate: int | None
    bytes: int | None
    primary_key: tuple[str, ...]
    columns: tuple[DiscoveredColumn, ...]


def check_pipeline(pipeline: Pipeline, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """What would stop a run of `pipeline`: on either side, in how its streams differ from their tables, in its state.

    A side that cannot be reached is itself a finding, and so is a state store that is there and cannot be opened.

    Raises `ConfigError` when there is nothing to try: a missing variable, a module that is not a connector.
    """
    plan = plan_pipeline(pipeline, environ)
    source = _check_side(plan, plan.source, [plan.source_argument(stream) for stream in pipeline.streams])
    transforms = {index: _check_transform(plan, index) for index in plan.transforms}
    unusable = {index for index, found in transforms.items() if any(finding.level == "error" for finding in found)}
    known, unreadable = _known_columns(plan, environ)
    destinations = [plan.destination_argument(stream, known=known.get(stream.name)) for stream in pipeline.streams]
    destination = _check_side(plan, plan.destination, destinations)
    compared = []
    if source.reached and destination.reached and can_compare(plan):
        # What cannot be read or transformed cannot be described either, for the reason that was told.
        streams = [
            stream
            for stream in pipeline.streams
            if stream.name not in source.failing and unusable.isdisjoint(dict(pipeline.transforms_of(stream)))
        ]
        compared = compare_streams(plan, streams, known=known, failing=destination.failing)
    losses = _lost_changes(plan, environ, source.failing) if source.reached and not unreadable else []
    # A slot that is gone is made by nobody.
    found = [
        finding for finding in source.findings if not (losses and (finding.check, finding.level) == ("slot", "ok"))
    ]
    return [*found, *losses, *itertools.chain(*transforms.values()), *destination.findings, *compared, *unreadable]


def discover(
    pipeline: Pipeline, schema: str | None = None, environ: Mapping[str, str] = os.environ
) -> list[DiscoveredTable]:
    """The source's tables: those of `schema`, or of every schema. Raises `SourceError`, `ConfigError`."""
    plan = plan_pipeline(pipeline, environ)
    side = plan.source
    try:
        with side.worker(NoData()) as worker:
            worker.call("rb_open", plan.open_argument(side.stage))
            answer = worker.call("rb_discover", {"schema": schema})
        found = read_answer(Discovered, answer, verb="rb_discover", stage=side.stage)
    except RapidbyteError as error:
        failure = told(error, plan.redactor, None)
    else:
        return [_table(table) for table in found.tables]
    # Out here it has no context: that would hold the unredacted text.
    raise failure


@dataclass(frozen=True)
class _Side:
    findings: list[Finding]
    reached: bool
    failing: frozenset[str] = frozenset()
    """The streams that it cannot move."""


def _check_side(plan: PipelinePlan, side: ConnectorPlan, streams: list[dict[str, Any]]) -> _Side:
    try:
        with side.worker(NoData()) as worker:
            opened = worker.call("rb_open", plan.open_argument(side.stage))
            checked = worker.call("rb_check", {"streams": streams})
        server = read_answer(Opened, opened, verb="rb_open", stage=side.stage).server
        findings = read_answer(Checked, checked, verb="rb_check", stage=side.stage).findings
    except RapidbyteError as error:
        return _Side([Finding.of_error(error, plan.redactor, stage=side.stage, check="connection")], reached=False)
    told = [_finding(side.stage, found, plan.redactor) for found in findings]
    # A connector may tell it itself, and with more of it.
    if not any(finding.check == "connection" and finding.level == "ok" for finding in told):
        told.insert(0, Finding(side.stage, "ok", "connection", plan.redactor.redact(f"connected to {server}")))
    failing = frozenset(found.stream for found in findings if found.level == "error" and found.stream)
    return _Side(told, reached=True, failing=failing)


def _check_transform(plan: PipelinePlan, index: int) -> list[Finding]:
    """Whether it takes its config. What it makes of columns is seen where streams and tables are compared."""
    transform = plan.transforms[index]
    name = transform.connector.manifest.name
    streams = [stream for stream in plan.pipeline.streams if index in dict(plan.pipeline.transforms_of(stream))]
    try:
        with transform.worker(NoData()) as worker:
            opened = worker.call("rb_open", plan.open_argument_of(transform))
            checked = worker.call("rb_check", {"streams": [{"name": stream.name} for stream in streams]})
        read_answer(OpenedTransform, opened, verb="rb_open", stage=transform.stage)
        findings = read_answer(Checked, checked, verb="rb_check", stage=transform.stage).findings
    except RapidbyteError as error:
        return [Finding.of_error(error, plan.redactor, stage=transform.stage, check="config")]
    told = [_finding(transform.stage, found, plan.redactor) for found in findings]
    if any(finding.level == "error" for finding in told):
        return told
    return [Finding(transform.stage, "ok", "config", f"{name} takes its config"), *told]


def _known_columns(
    plan: PipelinePlan, environ: Mapping[str, str]
) -> tuple[dict[str, tuple[SchemaColumn, ...] | None], list[Finding]]:
    """What the state store knows of each stream, if there is one; else why it cannot be asked."""
    pipeline = plan.pipeline
    try:
        state = open_existing_state(pipeline, environ)
        if state is None:
            return {}, []
        with state:
            return {
                stream.name: plan.known_columns(stream, state.schema_state(pipeline.name, stream.name))
                for stream in pipeline.streams
            }, []
    except RapidbyteError as error:
        return {}, [Finding.of_error(error, plan.redactor, stage=Stage.STATE, check="state")]


def _lost_changes(plan: PipelinePlan, environ: Mapping[str, str], failing: Collection[str]) -> list[Finding]:
    """What the streams of replication slots cannot have any more, as far as the state store knows where they stand; of
    those of `failing` more is to be said than that."""
    pipeline = plan.pipeline
    findings: list[Finding] = []
    state = open_existing_state(pipeline, environ) if pipeline.slot_groups else None
    if state is None:
        return findings
    with state:
        streams = {group.name: [s for s in group.streams if s.name not in failing] for group in pipeline.slot_groups}
        positions = {name: known_positions(pipeline, chosen, state) for name, chosen in streams.items()}
    for group in pipeline.slot_groups:
        try:
            status = slot_status(pipeline, group, environ)
        except RapidbyteError as error:
            findings.append(Finding.of_error(error, plan.redactor, stage=Stage.SOURCE, check="slot"))
            continue
        # That it is none to read from, the connector has found as well.
        if status.fault is None:
            lost = lost_in(status, positions[group.name], pipeline.path.name)
            findings += [Finding.of_error(error, plan.redactor, stage=Stage.SOURCE, check="slot") for error in lost]
    return findings


_FAILING = {Stage.SOURCE: SourceError, Stage.TRANSFORM: TransformError, Stage.DESTINATION: DestinationError}


def _finding(stage: Stage, found: CheckFinding, redactor: Redactor) -> Finding:
    failing = SchemaError if found.check == "schema" else _FAILING[stage]
    return Finding(
        stage=stage,
        level=found.level,
        check=found.check,
        message=redactor.redact(found.message),
        stream=redactor.redact(found.stream) if found.stream else None,
        hint=redactor.redact(found.hint) if found.hint else None,
        exit_code=failing.exit_code if found.level == "error" else 0,
    )


def _table(found: FoundTable) -> DiscoveredTable:
    return DiscoveredTable(
        schema=found.schema_,
        name=found.name,
        kind=found.kind,
        rows_estimate=found.rows_estimate,
        bytes=found.bytes,
        primary_key=found.primary_key or (),
        columns=tuple(DiscoveredColumn(c.name, c.type, c.arrow_type, c.nullable) for c in found.columns),
    )
