"""Change data capture in the pipeline file: which streams share a replication slot, and what is allowed to lag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rapidbyte_dagster.config.capabilities import Section
from rapidbyte_dagster.config.values import Duration, PositiveSize, choice

if TYPE_CHECKING:
    from rapidbyte_dagster.config.models import Pipeline, Stream

_GIGABYTE = 1024**3


class Truncates(str, Enum):
    """What becomes of the destination's rows when the source's table is truncated."""

    __str__ = str.__str__

    APPLY = "apply"
    IGNORE = "ignore"
    FAIL = "fail"


class SensorStatus(str, Enum):
    __str__ = str.__str__

    RUNNING = "running"
    STOPPED = "stopped"


class CaptureOptions(Section):
    """Of all the pipeline's replication slots: how often they are looked at, and when to worry."""

    sensor: Annotated[SensorStatus, choice(SensorStatus)] = Field(
        SensorStatus.STOPPED, description="Whether the slots' sensors run as soon as Dagster knows them."
    )
    interval: Duration = Field(30, description="How long a sensor waits between two looks at its slot, at least.")
    max_lag: Duration = Field(900, description="slot_health warns when changes have waited longer than this.")
    max_lag_bytes: PositiveSize = Field(_GIGABYTE, description="slot_health warns of more WAL than this to be read.")
    max_retained_wal: PositiveSize = Field(
        10 * _GIGABYTE, description="slot_health warns when the slot makes the source keep more WAL than this."
    )
    min_safe_wal: PositiveSize = Field(
        _GIGABYTE,
        description="slot_health warns when less WAL than this can be written before the source gives the slot up.",
    )


@dataclass(frozen=True)
class SlotGroup:
    """The streams of a pipeline that read their changes from one replication slot, so in one step."""

    name: str
    """`cdc` for the pipeline's own slot, otherwise the slot's name."""
    own_slot: str | None
    """The `replication_slot` that its streams name; None where the source's config, or the default, decides."""
    streams: tuple[Stream, ...]

    def names(self, pipeline: Pipeline, config: Mapping[str, Any]) -> SlotNames:
        """The slot and its publication, by the source's `config` with its variables filled in."""
        default = f"rapidbyte_{pipeline.name}"
        slot = self.own_slot or config.get("replication_slot") or default
        return SlotNames(slot, config.get("publication") or self.own_slot or default)


@dataclass(frozen=True)
class SlotNames:
    slot: str
    publication: str


def slot_groups(pipeline: Pipeline) -> tuple[SlotGroup, ...]:
    """The pipeline's streams of change data capture, by their slots, in the order of the file."""
    grouped: dict[str | None, list[Stream]] = {}
    for stream in pipeline.streams:
        if stream.sync_mode == "cdc":
            grouped.setdefault(stream.replication_slot, []).append(stream)
    return tuple(SlotGroup(slot or DEFAULT_GROUP, slot, tuple(streams)) for slot, streams in grouped.items())


DEFAULT_GROUP = "cdc"
