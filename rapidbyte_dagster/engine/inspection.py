"""Looking without moving anything: `check` and `discover`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rapidbyte_dagster.config import Pipeline, Redactor
from rapidbyte_dagster.engine.plan import ConnectorPlan, plan_pipeline
from rapidbyte_dagster.engine.runner import told
from rapidbyte_dagster.errors import RapidbyteError, Stage
from rapidbyte_dagster.runtime import Instance, LogLevel, NoData


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


class _Onlooker(NoData):
    """A host for guests that move no rows: their logs are kept from the terminal."""

    def log(self, level: LogLevel, message: str) -> None:
        logging.getLogger(__name__).debug(message)

    def metric(self, name: str, value: float) -> None:
        pass


def check_pipeline(pipeline: Pipeline, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """What would stop a run of `pipeline`, side by side; a side that cannot be reached is itself a finding.

    Raises `ConfigError` when there is nothing to try: a missing variable, a module that is not a connector.
    """
    plan = plan_pipeline(pipeline, environ)
    sides = (
        (plan.source, [plan.source_argument(stream) for stream in pipeline.streams]),
        (plan.destination, [plan.destination_argument(stream) for stream in pipeline.streams]),
    )
    findings: list[Finding] = []
    for side, streams in sides:
        findings += _check_side(side, pipeline.name, streams, plan.redactor)
    return findings


def discover(
    pipeline: Pipeline, schema: str | None = None, environ: Mapping[str, str] = os.environ
) -> list[DiscoveredTable]:
    """The source's tables: those of `schema`, or of every schema. Raises `SourceError`, `ConfigError`."""
    plan = plan_pipeline(pipeline, environ)
    side = plan.source
    try:
        with Instance(side.connector, host=_Onlooker(), sandbox=side.sandbox, stage=side.stage) as instance:
            instance.call("rb_open", _open_argument(side, pipeline.name))
            found = instance.call("rb_discover", {"schema": schema})
    except RapidbyteError as error:
        raise told(error, plan.redactor, None) from None
    return [_table(table) for table in found["tables"]]


def _check_side(side: ConnectorPlan, pipeline: str, streams: list[dict[str, Any]], redactor: Redactor) -> list[Finding]:
    try:
        with Instance(side.connector, host=_Onlooker(), sandbox=side.sandbox, stage=side.stage) as instance:
            server = instance.call("rb_open", _open_argument(side, pipeline)).get("server", "")
            answer = instance.call("rb_check", {"streams": streams})
    except RapidbyteError as error:
        shown = told(error, redactor, None)
        text = shown.info.message + (f" (SQLSTATE {shown.info.sqlstate})" if shown.info.sqlstate else "")
        return [Finding(side.stage, "error", "connect", text, hint=shown.hint, exit_code=shown.exit_code)]
    return [
        Finding(side.stage, "ok", "connect", redactor.redact(f"connected to {server}")),
        *(_finding(side.stage, found, redactor) for found in answer["findings"]),
    ]


def _finding(stage: Stage, found: Mapping[str, Any], redactor: Redactor) -> Finding:
    hint = found.get("hint")
    failed_with = 4 if stage is Stage.SOURCE else 5
    if found["check"] == "schema":
        failed_with = 3
    return Finding(
        stage=stage,
        level=found["level"],
        check=found["check"],
        message=redactor.redact(found["message"]),
        stream=found.get("stream"),
        hint=redactor.redact(hint) if hint else None,
        exit_code=failed_with if found["level"] == "error" else 0,
    )


def _open_argument(side: ConnectorPlan, pipeline: str) -> dict[str, Any]:
    return {"config": dict(side.config), "pipeline": pipeline, "stream": None, "run_id": None}


def _table(told_table: Mapping[str, Any]) -> DiscoveredTable:
    return DiscoveredTable(
        schema=told_table["schema"],
        name=told_table["name"],
        kind=told_table["kind"],
        rows_estimate=told_table.get("rows_estimate"),
        bytes=told_table.get("bytes"),
        primary_key=tuple(told_table.get("primary_key") or ()),
        columns=tuple(
            DiscoveredColumn(c["name"], c["type"], c["arrow_type"], c["nullable"]) for c in told_table["columns"]
        ),
    )
