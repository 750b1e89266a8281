"""Whether a slot still has what a stream needs: everything since the stream's position.

Going on without it would leave the copy wrong without a word, so that every doubt is told as a loss.
"""

from __future__ import annotations

from rapidbyte_dagster.engine.capture.lsn import format_lsn, parse_lsn
from rapidbyte_dagster.engine.capture.slots import SlotSetup
from rapidbyte_dagster.engine.capture.standing import Standing
from rapidbyte_dagster.errors import Kind, SourceError, Stage


def lost_changes(stream: str, ready: SlotSetup, standing: Standing, file: str) -> SourceError | None:
    """None where `stream` can go on: nothing is missing, or it never began. `file` is the pipeline's, for the hint."""
    position = standing.positions.get(stream)
    reason = None if position is None else _reason(stream, position, ready, standing)
    if position is None or reason is None:
        return None
    return SourceError(
        f"{reason}, so that changes of {stream} since {format_lsn(position)} are lost",
        kind=Kind.CONFIG,
        stage=Stage.SOURCE,
        stream=stream,
        hint=f"load the stream anew: `rapidbyte run {file} --stream {stream} --full-refresh`; and see that nobody else"
        " drops, advances or reads what it needs",
    )


def _reason(stream: str, position: int, ready: SlotSetup, standing: Standing) -> str | None:
    if stream in ready.unpublished:
        return f"publication {ready.publication} does not tell of {stream} any more"
    if ready.position is None:
        return f"replication slot {ready.slot} is gone"
    if position > parse_lsn(ready.wal_position):
        return f"the source's log ends at {ready.wal_position}: it is another server, or an earlier state of it"
    origin = standing.origins.get(stream)
    if origin is not None and origin != ready.origins.get(stream, origin):
        return f"the table of {stream}, or its place in publication {ready.publication}, was made anew"
    # Asked last: the slot goes on without streams that are lost.
    if position < parse_lsn(ready.position):
        return (
            f"replication slot {ready.slot} is another one, or was read by somebody else: it begins at {ready.position}"
        )
    return None
