"""The runs of a replication slot, as Dagster's instance knows them: one that goes on, and those that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import dagster as dg

from rapidbyte_dagster.assets.op_options import SLOT_TAG
from rapidbyte_dagster.assets.slot_watch import PastRun, RunningRun
from rapidbyte_dagster.config import OWN_TAG_PREFIX

CHANGES_TAG = f"{OWN_TAG_PREFIX}changes"
"""Run tag: a digest of the changes that the sensor had seen when it asked for the run."""

_PAST_RUNS = 20
"""Enough to tell how often in a row they failed."""

# NOT_STARTED is left out: the sensor's daemon is about to launch such a run, and where it died before it could, it
# launches the same one when the sensor asks for it by the same key again.
_GOING_ON = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED: dict[dg.DagsterRunStatus, Literal["ok", "failed", "canceled"]] = {
    dg.DagsterRunStatus.SUCCESS: "ok",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "canceled",
}


def running_run(instance: dg.DagsterInstance, tag: str) -> RunningRun | None:
    """The oldest run, of whichever job, that has a step over the slot `tag` and has not ended."""
    records = instance.get_run_records(dg.RunsFilter(statuses=_GOING_ON))
    for record in reversed(records):
        run = record.dagster_run
        if run.tags.get(SLOT_TAG) == tag or tag in _slots_of(instance, run.execution_plan_snapshot_id):
            return RunningRun(run.run_id, record.create_timestamp.timestamp(), run.status.value)
    return None


def past_runs(instance: dg.DagsterInstance, tag: str) -> Sequence[PastRun]:
    """The newest runs of the slot's own job that have ended, newest first."""
    records = instance.get_run_records(dg.RunsFilter(tags={SLOT_TAG: tag}, statuses=[*_ENDED]), limit=_PAST_RUNS)
    return [
        PastRun(
            run_id=record.dagster_run.run_id,
            status=_ENDED[record.dagster_run.status],
            created_at=record.create_timestamp.timestamp(),
            ended_at=record.end_time or record.update_timestamp.timestamp(),
            changes=record.dagster_run.tags.get(CHANGES_TAG),
        )
        for record in records
    ]


_slots_of_plans: dict[str, frozenset[str]] = {}
"""By the plan's name, which follows its content: every tick looks at the plans of all runs that wait."""

_PLANS_REMEMBERED = 1000


def _slots_of(instance: dg.DagsterInstance, plan: str | None) -> frozenset[str]:
    """The slots that the steps of an execution plan read from: a run of another job may hold them as well."""
    if plan is None:
        return frozenset()
    if plan not in _slots_of_plans:
        if len(_slots_of_plans) >= _PLANS_REMEMBERED:
            _slots_of_plans.clear()
        snapshot = instance.get_execution_plan_snapshot(plan)
        chosen = set(snapshot.step_keys_to_execute)
        _slots_of_plans[plan] = frozenset(
            step.tags[SLOT_TAG] for step in snapshot.steps if step.key in chosen and step.tags and SLOT_TAG in step.tags
        )
    return _slots_of_plans[plan]
