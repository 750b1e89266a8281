"""Looking without moving anything: `check` and `discover`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config import Pipeline, Redactor
from rapidbyte_dagster.engine.answers import Checked, CheckFinding, Discovered, FoundTable, Opened, read_answer
from rapidbyte_dagster.engine.disclosure import told
from rapidbyte_dagster.engine.plan import ConnectorPlan, PipelinePlan, plan_pipeline
from rapidbyte_dagster.errors import DestinationError, RapidbyteError, SchemaError, SourceError, Stage
from rapidbyte_dagster.runtime import NoData


@dataclass(frozen=True)
class Finding:
    """One thing that a check looked at."""

    stage: Stage
    level: str
    """ok, warning or error."""
    check: str
    message: str
    stream: str | None = None
    hint: str | None = None
    exit_code: int = 0
    """What a run that hit this would exit with; 0 unless `level` is error."""


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
    """What would stop a run of `pipeline`, side by side; a side that cannot be reached is itself a finding.

    Raises `ConfigError` when there is nothing to try: a missing variable, a module that is not a connector.
    """
    plan = plan_pipeline(pipeline, environ)
    sources = [plan.source_argument(stream) for stream in pipeline.streams]
    destinations = [plan.destination_argument(stream) for stream in pipeline.streams]
    return [*_check_side(plan, plan.source, sources), *_check_side(plan, plan.destination, destinations)]


def discover(
    pipeline: Pipeline, schema: str | None = None, environ: Mapping[str, str] = os.environ
) -> list[DiscoveredTable]:
    """The source's tables: those of `schema`, or of every schema. Raises `SourceError`, `ConfigError`."""
    plan = plan_pipeline(pipeline, environ)
    side = plan.source
    try:
        with side.instance(NoData()) as instance:
            instance.call("rb_open", plan.open_argument(side.stage))
            answer = instance.call("rb_discover", {"schema": schema})
        found = read_answer(Discovered, answer, verb="rb_discover", stage=side.stage)
    except RapidbyteError as error:
        failure = told(error, plan.redactor, None)
    else:
        return [_table(table) for table in found.tables]
    # Out here it has no context: that would hold the unredacted text.
    raise failure


def _check_side(plan: PipelinePlan, side: ConnectorPlan, streams: list[dict[str, Any]]) -> list[Finding]:
    try:
        with side.instance(NoData()) as instance:
            opened = instance.call("rb_open", plan.open_argument(side.stage))
            checked = instance.call("rb_check", {"streams": streams})
        server = read_answer(Opened, opened, verb="rb_open", stage=side.stage).server
        findings = read_answer(Checked, checked, verb="rb_check", stage=side.stage).findings
    except RapidbyteError as error:
        shown = told(error, plan.redactor, None)
        text = shown.info.message + (f" (SQLSTATE {shown.info.sqlstate})" if shown.info.sqlstate else "")
        return [Finding(side.stage, "error", "connection", text, hint=shown.hint, exit_code=shown.exit_code)]
    told_findings = [_finding(side.stage, found, plan.redactor) for found in findings]
    connected = Finding(side.stage, "ok", "connection", plan.redactor.redact(f"connected to {server}"))
    # A connector may tell it itself, and with more of it.
    told_already = any(finding.check == "connection" and finding.level == "ok" for finding in told_findings)
    return told_findings if told_already else [connected, *told_findings]


def _finding(stage: Stage, found: CheckFinding, redactor: Redactor) -> Finding:
    failing = SchemaError if found.check == "schema" else SourceError if stage is Stage.SOURCE else DestinationError
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
