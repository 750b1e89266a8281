"""The sensor of a replication slot: looks at it often and cheaply, and starts a run when there is something to read."""

# No postponed annotations here: Dagster reads those of a sensor's function.

import os
import time

import dagster as dg

from rapidbyte_dagster.assets.names import slot_job_name, slot_sensor_name, slot_tag
from rapidbyte_dagster.assets.slot_asset import LOOK_SECONDS, changes_digest, known_positions
from rapidbyte_dagster.assets.slot_health import slot_alarms, slot_metadata
from rapidbyte_dagster.assets.slot_names import SlotPlace
from rapidbyte_dagster.assets.slot_runs import CHANGES_TAG, past_runs, running_run
from rapidbyte_dagster.assets.slot_watch import Look, Memory, decide
from rapidbyte_dagster.config import Pipeline, SensorStatus, SlotGroup
from rapidbyte_dagster.errors import Kind, RapidbyteError

_DOWN = (Kind.TRANSIENT_NETWORK, Kind.TRANSIENT_DB, Kind.RATE_LIMIT, Kind.TIMEOUT)
"""Kinds of a source that is not there just now. Others, such as a wrong password, are for somebody to mend."""


def slot_sensor(pipeline: Pipeline, group: SlotGroup, slot: dg.AssetKey) -> dg.SensorDefinition:
    """Observes the asset `slot`, and starts the slot's job."""
    running = pipeline.cdc.sensor is SensorStatus.RUNNING

    @dg.sensor(
        name=slot_sensor_name(pipeline.name, group.name),
        job_name=slot_job_name(pipeline.name, group.name),
        minimum_interval_seconds=pipeline.cdc.interval,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"Starts a run when there is something to read from {SlotPlace(pipeline, group).slot}, and none"
        " goes on. A tick that fails says what is wrong with the slot, and the way out.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        failure: SlotAlarm | None = None
        try:
            return _tick(context, pipeline, group, slot)
        except RapidbyteError as error:
            if error.kind in _DOWN:
                return dg.SensorResult(skip_reason=f"The slot cannot be looked at: {error}", cursor=context.cursor)
            failure = SlotAlarm(str(error))
        # Raised out here it has no chain of causes: Dagster would print them all.
        raise failure

    return watch


class SlotAlarm(Exception):
    """Fails a tick, so that it is seen: no run would mend it."""


def _tick(
    context: dg.SensorEvaluationContext, pipeline: Pipeline, group: SlotGroup, slot: dg.AssetKey
) -> dg.SensorResult:
    # Imported when a sensor ticks: loading definitions must not pay for the WASM runtime.
    from rapidbyte_dagster.engine.capture.slots import slot_status

    place, tag = SlotPlace(pipeline, group), slot_tag(pipeline.name, group.name)
    # Asked first: a run that starts later finds what this tick has seen, and more.
    running = running_run(context.instance, tag)
    # Not for long: Dagster gives up a tick after a minute, and leaves its thread where it is.
    status = slot_status(pipeline, group, os.environ, patience_seconds=LOOK_SECONDS)
    alarms = slot_alarms(place, status, known_positions(pipeline, group))
    told = "; ".join(alarm.text for alarm in alarms) or None
    stopped = frozenset().union(*(alarm.streams for alarm in alarms))
    goes_on = any(stream.name not in stopped for stream in group.streams)
    look = Look(
        at=time.time(),
        lag_bytes=status.lag_bytes or 0,
        changes=changes_digest(status),
        exists=status.exists,
        held_by=status.active_pid if status.active else None,
        held_as=status.active_application,
        held_by_own=(status.active_application or "").split("/")[:2] == ["rapidbyte", pipeline.name],
        alarm=None if goes_on else told,
        stopped=told if goes_on else None,
        running=running,
        past=past_runs(context.instance, tag),
    )
    decision = decide(look, Memory.of(context.cursor), max_lag_bytes=pipeline.cdc.max_lag_bytes)
    if decision.action == "alarm":
        raise SlotAlarm(decision.message)
    requests = []
    if decision.action == "run":
        say = context.log.warning if look.stopped else context.log.info
        say(decision.message)
        requests = [dg.RunRequest(run_key=f"{tag} {decision.run_key}", tags={CHANGES_TAG: look.changes})]
    metadata = slot_metadata(status, decision.lag_seconds)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else decision.message,
        cursor=decision.memory.text,
        asset_events=[dg.AssetObservation(slot, description=decision.message, metadata=metadata)]
        if decision.observe
        else [],
    )
