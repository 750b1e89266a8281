"""Whether a slot still has what a stream needs: everything since the stream's position.

Going on without it would leave the copy wrong without a word, so that every doubt is told as a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rapidbyte_dagster.engine.capture.lsn import format_lsn, parse_lsn
from rapidbyte_dagster.engine.capture.slots import SlotSetup, SlotStatus
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


def loss(message: str, streams: Iterable[str], file: str, first: str = "") -> SourceError:
    """An error with the way to recover `streams` (all, where none is named), which may begin with something else."""
    chosen = "".join(f" --stream {stream}" for stream in streams)
    hint = f"{first}load anew what has lost changes: `rapidbyte run {file}{chosen} --full-refresh`"
    return SourceError(message, kind=Kind.CONFIG, stage=Stage.SOURCE, hint=hint)


def lost_in(found: SlotStatus, positions: Mapping[str, int], file: str) -> list[SourceError]:
    """What a look at the slot tells of losses, without its being read: each with the streams that it is about.

    `positions` are LSNs, as numbers, of the streams that ever began. A run may find more.
    """

    if found.is_lost:
        message = f"replication slot {found.slot} is lost: the server has removed WAL that was not read yet"
        return [loss(message, positions, file, f"drop it with `rapidbyte cdc teardown {file}`, then ")]
    if found.fault is not None:
        hint = "give this pipeline a `replication_slot` of another name"
        return [SourceError(found.fault, kind=Kind.CONFIG, stage=Stage.SOURCE, hint=hint)]
    if not found.exists:
        names = ", ".join(positions)
        message = f"replication slot {found.slot} is gone, and with it what {names} had still to read"
        return [loss(message, positions, file)] if positions else []
    unpublished = [stream for stream in found.unpublished_streams if stream in positions]
    first = parse_lsn(found.confirmed_flush_lsn or "0/0")
    # The slot goes on without those that are told already.
    behind = [name for name, position in positions.items() if position < first and name not in unpublished]
    told = []
    if unpublished:
        names = ", ".join(unpublished)
        message = f"publication {found.publication} does not tell of {names} any more: what it missed is lost"
        told.append(loss(message, unpublished, file))
    if behind:
        message = f"replication slot {found.slot} is another one, or was read by somebody else: it begins at"
        message += f" {found.confirmed_flush_lsn}, behind where {', '.join(behind)} stood"
        told.append(loss(message, behind, file))
    return told


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
