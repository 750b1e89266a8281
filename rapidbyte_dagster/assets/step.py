"""Which work the assets of a step ask for: that of one stream, or of the streams that share a replication slot."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from rapidbyte_dagster.assets.slot_names import slot_group_of
from rapidbyte_dagster.assets.slot_step import SlotStep
from rapidbyte_dagster.assets.stream_report import StepResult, reports_of
from rapidbyte_dagster.assets.stream_step import StreamStep
from rapidbyte_dagster.errors import UsageError


def run_step(context: dg.AssetExecutionContext, *, log_interval_seconds: float) -> Iterator[StepResult]:
    """Raises `UsageError` for assets that belong to no such work, before it begins, and what a step raises."""
    reports = reports_of(context)
    groups = [slot_group_of(report.pipeline, report.stream) for report in reports]
    group = groups[0] if groups else None
    one = all(report.pipeline is reports[0].pipeline for report in reports)
    if group is not None and one and all(each is not None and each.name == group.name for each in groups):
        return SlotStep(context, group, reports, log_interval_seconds=log_interval_seconds).run()
    if len(reports) == 1:
        return StreamStep(context, reports[0], log_interval_seconds=log_interval_seconds).run()
    raise UsageError(
        "a step runs the assets of exactly one stream, or of streams that share a replication slot",
        hint="use @rapidbyte_stream_asset",
    )
