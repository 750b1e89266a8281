"""Where the streams of a slot stand, by what their destination has committed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rapidbyte_dagster.config import Pipeline, Stream
from rapidbyte_dagster.engine.capture.lsn import origin_of, position_of
from rapidbyte_dagster.state import StateStore, Watermark


@dataclass(frozen=True)
class Standing:
    """Positions are LSNs, as numbers: what committed before one of them is applied."""

    positions: Mapping[str, int]
    """Of the streams that go on, as far as they ever began."""
    origins: Mapping[str, str]
    """What their tables were then, as far as it was written down."""
    sequences: Mapping[str, int]
    """The last number that a checkpoint of each has had."""
    began: Collection[str]
    """All streams of the slot that have a position."""
    hold: int | None
    """The least position of the slot's other streams: what lies behind it has to stay readable. None where none of them
    ever began."""


def known_positions(pipeline: Pipeline, streams: Iterable[Stream], state: StateStore) -> dict[str, int]:
    """The LSN, as a number, up to which each stream is committed as the state store knows it, if it ever was.

    A prepared checkpoint counts: its run may have committed it and died before it could write that down.
    """
    found: dict[str, int] = {}
    for stream in streams:
        latest = state.latest_checkpoint(pipeline.name, stream.name)
        prepared = state.prepared_checkpoint(pipeline.name, stream.name)
        positions = [position_of(checkpoint.cursor) for checkpoint in (latest, prepared) if checkpoint is not None]
        told = [position for position in positions if position is not None]
        if told:
            found[stream.name] = max(told)
    return found


def standing_of(
    pipeline: Pipeline,
    watermarks: Mapping[str, Watermark | None],
    going_on: Collection[str],
    state: StateStore,
    lost: Collection[str] = (),
) -> Standing:
    """`watermarks` are those of all streams of the slot, told under their locks. The state store follows them. What the
    streams of `lost` would need is not to be had any more: nothing waits for them."""
    positions: dict[str, int] = {}
    origins: dict[str, str] = {}
    sequences: dict[str, int] = {}
    others: list[int] = []
    began: list[str] = []
    for stream, watermark in watermarks.items():
        point = state.reconcile(pipeline.name, stream, watermark)
        position = position_of(point.cursor)
        if position is not None:
            began.append(stream)
        origin = origin_of(point.cursor)
        if origin is not None:
            origins[stream] = origin
        if stream in going_on:
            sequences[stream] = point.sequence
            if position is not None:
                positions[stream] = position
        elif position is not None and stream not in lost:
            others.append(position)
    return Standing(positions, origins, sequences, began, min(others) if others else None)
