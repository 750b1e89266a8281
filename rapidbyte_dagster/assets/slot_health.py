"""How a replication slot is: what no run can mend, what is beyond the pipeline's limits, and the check that says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets.amounts import bytes_text, seconds_text
from rapidbyte_dagster.assets.slot_names import SlotPlace
from rapidbyte_dagster.config import CaptureOptions

if TYPE_CHECKING:
    from rapidbyte_dagster.engine.capture.slots import SlotStatus

SLOT_HEALTH_CHECK = "slot_health"


@dataclass(frozen=True)
class Alarm:
    """What no run can mend."""

    text: str
    """Why, and the way out."""
    streams: frozenset[str]
    """Those that cannot go on."""


def slot_alarms(place: SlotPlace, status: SlotStatus, positions: Mapping[str, int]) -> list[Alarm]:
    """What is wrong with the slot so that runs of its streams, or of some of them, would lose changes or cannot read.

    `positions` are the LSNs, as numbers, up to which the streams are committed, as far as the state store knows them. A
    slot that is not there, of streams that never ran, is made by their first run.
    """
    from rapidbyte_dagster.engine.capture.lsn import parse_lsn

    def of_all(text: str) -> list[Alarm]:
        return [Alarm(text, frozenset(stream.name for stream in place.group.streams))]

    if not status.exists:
        if not positions:
            return []
        return of_all(
            f"{place.slot} is gone, and with it the changes of {_positions(positions)}: somebody has dropped it, or the"
            f" source was restored or failed over to a server without it. {place.recovery(positions)}"
        )
    if status.is_lost:
        reason = status.invalidation_reason or "WAL that was not read is removed: max_slot_wal_keep_size"
        return of_all(
            f"{place.slot} is lost: the source gave it up ({reason}), and with it changes of {_positions(positions)}."
            f" Drop it with `{place.teardown}`. {place.recovery(positions)}"
        )
    if status.fault:
        return of_all(f"{place.slot} is not one that the pipeline can read: {status.fault}")
    confirmed = status.confirmed_flush_lsn
    first = parse_lsn(confirmed) if confirmed else 0
    told = []
    unpublished = [stream for stream in status.unpublished_streams if stream in positions]
    if unpublished:
        text = (
            f"the publication tells of {', '.join(unpublished)} no more: somebody has taken the tables out of it, and"
        )
        text += f" their changes since are lost. {place.recovery(unpublished)}"
        told.append(Alarm(text, frozenset(unpublished)))
    # The slot has gone on without those that are told already.
    lost = {name: position for name, position in positions.items() if position < first and name not in unpublished}
    if lost:
        text = f"{place.slot} begins at {confirmed}, behind what was read of {_positions(lost)}: the changes in between"
        text += " are lost. It was made anew, or another consumer has read from it, or it went on after a run that has"
        text += f" told why it could not go on with them. {place.recovery(lost)}"
        told.append(Alarm(text, frozenset(lost)))
    return told


def slot_warnings(options: CaptureOptions, status: SlotStatus, lag_seconds: float | None) -> list[str]:
    """What is beyond the limits of the pipeline file."""
    told = []
    lag, retained = status.lag_bytes or 0, status.retained_bytes or 0
    if lag_seconds is not None and lag_seconds > options.max_lag:
        told.append(f"changes have waited for {seconds_text(lag_seconds)} (max_lag: {seconds_text(options.max_lag)})")
    if lag > options.max_lag_bytes:
        told.append(f"{bytes_text(lag)} of WAL are not read (max_lag_bytes: {bytes_text(options.max_lag_bytes)})")
    if retained > options.max_retained_wal:
        told.append(
            f"the source keeps {bytes_text(retained)} of WAL for the slot"
            f" (max_retained_wal: {bytes_text(options.max_retained_wal)})"
        )
    safe = status.safe_wal_size
    if safe is not None and safe < options.min_safe_wal:
        told.append(
            f"after {bytes_text(max(safe, 0))} more of WAL the source gives the slot up"
            f" (min_safe_wal: {bytes_text(options.min_safe_wal)})"
        )
    return told


def slot_health_result(
    key: dg.AssetKey,
    options: CaptureOptions,
    status: SlotStatus,
    *,
    alarms: Iterable[Alarm],
    lag_seconds: float | None,
) -> dg.AssetCheckResult:
    """What the check of the slot's asset says: severity ERROR for an alarm, and for a slot that is about to be lost."""
    warnings = slot_warnings(options, status, lag_seconds)
    errors = [alarm.text for alarm in alarms]
    if status.wal_status == "unreserved":
        errors.append("the source may remove WAL of the slot at its next checkpoint: catch up now")
    told = [*errors, *warnings]
    if not told:
        told = ["the slot is well" if status.exists else "there is no slot yet: the first run makes it"]
    # Dagster's UI reads it as Markdown: commands and names in it are code already.
    text = "; ".join(told)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SLOT_HEALTH_CHECK,
        passed=not errors and not warnings,
        severity=dg.AssetCheckSeverity.ERROR if errors else dg.AssetCheckSeverity.WARN,
        description=f"{text[0].upper()}{text[1:]}.",
        metadata={
            **slot_metadata(status, lag_seconds),
            "max_lag_seconds": options.max_lag,
            "max_lag_bytes": options.max_lag_bytes,
            "max_retained_wal": options.max_retained_wal,
            "min_safe_wal": options.min_safe_wal,
        },
    )


def slot_metadata(status: SlotStatus, lag_seconds: float | None) -> dict[str, Any]:
    """What an observation of the slot tells. Bytes and seconds are plain numbers, there when they are zero: they plot.

    `lag_seconds` is how long the oldest change that was not read may wait; None where nothing was read yet.
    """

    return {
        "lag_bytes": status.lag_bytes or 0,
        **({"lag_seconds": round(float(lag_seconds), 1)} if lag_seconds is not None else {}),
        "retained_bytes": status.retained_bytes or 0,
        **({"safe_wal_size": status.safe_wal_size} if status.safe_wal_size is not None else {}),
        **({"wal_status": status.wal_status} if status.wal_status else {}),
        **({"confirmed_flush_lsn": status.confirmed_flush_lsn} if status.confirmed_flush_lsn else {}),
        **({"restart_lsn": status.restart_lsn} if status.restart_lsn else {}),
        "wal_position": status.wal_position,
        "active": status.active,
    }


def _positions(positions: Mapping[str, int]) -> str:
    from rapidbyte_dagster.engine.capture.lsn import format_lsn

    if not positions:
        return "its streams"
    return ", ".join(f"{stream} (since {format_lsn(lsn)})" for stream, lsn in positions.items())
