"""A replication slot in words: how messages call it, and what a person does to recover it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rapidbyte_dagster.assets.names import op_name, slot_job_name
from rapidbyte_dagster.config import Pipeline, SlotGroup, Stream, SyncMode


@dataclass(frozen=True)
class SlotPlace:
    """Where the slot of `group` belongs. Values of the environment are shown nowhere."""

    pipeline: Pipeline
    group: SlotGroup

    @property
    def name(self) -> str | None:
        """The slot's; None when it comes from the environment."""
        config = self.pipeline.source.config
        static = {"replication_slot": config.get_static("replication_slot")}
        if self.group.own_slot is None and "replication_slot" in config.keys and static["replication_slot"] is None:
            return None
        return self.group.names(self.pipeline, static).slot

    @property
    def slot(self) -> str:
        """For the beginning of a sentence."""
        return f"replication slot {self.name!r}" if self.name else f"the replication slot of {self.pipeline.name!r}"

    @property
    def teardown(self) -> str:
        return f"rapidbyte cdc teardown {self.pipeline.path.name}"

    def recovery(self, streams: Iterable[str]) -> str:
        """How `streams` are copied anew, and the slot is made where it is not there."""
        names = list(streams) or [stream.name for stream in self.group.streams]
        chosen = " ".join(f"--stream {name}" for name in names)
        job = slot_job_name(self.pipeline.name, self.group.name)
        op = op_name(self.pipeline.name, self.group.name)
        return (
            f"To copy them anew: `rapidbyte run {self.pipeline.path.name} {chosen} --full-refresh`, or job `{job}`"
            f" with the run config `ops: {{{op}: {{config: {{full_refresh: [{', '.join(names)}]}}}}}}`"
        )


def slot_group_of(pipeline: Pipeline, stream: Stream) -> SlotGroup | None:
    """The group of `stream`; None where its changes do not come from a replication slot."""
    if stream.sync_mode is not SyncMode.CDC:
        return None
    return next(group for group in pipeline.slot_groups if group.own_slot == stream.replication_slot)
