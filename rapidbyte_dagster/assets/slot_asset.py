"""A replication slot as an asset: where its lag plots and its health check lives. Nothing materialises it."""

# No postponed annotations here: Dagster reads those of an op's function, and takes no text for a type.

import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from rapidbyte_dagster.assets.failure import failure_from
from rapidbyte_dagster.assets.names import slot_tag
from rapidbyte_dagster.assets.op_options import PIPELINE_TAG
from rapidbyte_dagster.assets.slot_health import SLOT_HEALTH_CHECK, Alarm, slot_alarms, slot_health_result
from rapidbyte_dagster.assets.slot_names import SlotPlace
from rapidbyte_dagster.assets.slot_runs import past_runs
from rapidbyte_dagster.assets.slot_watch import Look
from rapidbyte_dagster.config import Pipeline, SlotGroup
from rapidbyte_dagster.errors import RapidbyteError

if TYPE_CHECKING:
    from rapidbyte_dagster.engine.capture.slots import SlotStatus

LOOK_SECONDS = 20.0
"""How long a look at a slot waits for the source."""

_DESCRIPTION = (
    "Looks at the slot, at the source: whether it is there and intact, how far it is behind, how much WAL it retains."
    " Warns beyond the limits of the pipeline file's `cdc`, fails where changes are lost."
)


def slot_health_check(pipeline: Pipeline, group: SlotGroup, key: dg.AssetKey) -> dg.AssetChecksDefinition:
    """Of the slot's asset. Executed alone it looks at the slot now; runs of its streams evaluate it at their end."""

    @dg.asset_check(
        asset=key,
        name=SLOT_HEALTH_CHECK,
        description=_DESCRIPTION,
        # No tag of the slot's: it reads nothing from it.
        op_tags={PIPELINE_TAG: pipeline.name},
    )
    def slot_health(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        failure: dg.Failure | None = None
        try:
            sight = look_at_slot(context.instance, pipeline, group, key)
            return slot_health_result(
                key, pipeline.cdc, sight.status, alarms=sight.alarms, lag_seconds=sight.lag_seconds
            )
        except RapidbyteError as error:
            failure = failure_from(error)
        # Raised out here it has no chain of causes: Dagster would print them all.
        raise failure

    return slot_health


@dataclass(frozen=True)
class SlotSight:
    """A slot as it was found at one moment."""

    status: "SlotStatus"
    alarms: list[Alarm]
    """What no run can mend, and what to do."""
    lag_seconds: float | None
    """How long the oldest change that was not read may wait; None where nothing was read yet."""


def look_at_slot(
    instance: dg.DagsterInstance,
    pipeline: Pipeline,
    group: SlotGroup,
    key: dg.AssetKey,
    *,
    caught_up_at: float | None = None,
    covered: str | None = None,
) -> SlotSight:
    """Asks the source, the state store and the instance. Raises `RapidbyteError` where one of the first two is away.

    A run that has just read the slot tells at what time it knew that it would read everything (seconds since 1970),
    and of which changes (a digest); otherwise both follow from the slot's past runs and its last observation.
    """
    from rapidbyte_dagster.engine.capture.slots import slot_status

    status = slot_status(pipeline, group, os.environ, patience_seconds=LOOK_SECONDS)
    look = Look(
        at=time.time(),
        lag_bytes=status.lag_bytes or 0,
        changes=changes_digest(status),
        exists=status.exists,
        past=past_runs(instance, slot_tag(pipeline.name, group.name)),
    )
    if look.changes == covered:
        caught_up_at = look.at
    elif caught_up_at is None:
        caught_up_at = look.caught_up_at(_observed_caught_up_at(instance, key))
    return SlotSight(
        status,
        slot_alarms(SlotPlace(pipeline, group), status, known_positions(pipeline, group)),
        None if caught_up_at is None else max(0.0, look.at - caught_up_at),
    )


def _observed_caught_up_at(instance: dg.DagsterInstance, key: dg.AssetKey) -> float | None:
    """As the slot's last observation tells."""
    for record in instance.fetch_observations(key, limit=1).records:
        observation = record.asset_observation
        lag = observation.metadata.get("lag_seconds") if observation else None
        if lag is not None and isinstance(lag.value, int | float):
            return record.timestamp - lag.value
    return None


def known_positions(pipeline: Pipeline, group: SlotGroup) -> dict[str, int]:
    """The LSN, as a number, up to which each stream is committed as the state store knows it, if it ever was."""
    from rapidbyte_dagster.engine.capture import standing
    from rapidbyte_dagster.state import open_existing_state

    state = open_existing_state(pipeline, os.environ)
    if state is None:
        return {}
    with state:
        return standing.known_positions(pipeline, group.streams, state)


def changes_digest(status: "SlotStatus") -> str:
    """16 hexadecimal digits that differ whenever rows of the slot's tables may have changed."""
    return hashlib.sha256(status.change_counter.encode()).hexdigest()[:16]
