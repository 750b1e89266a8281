"""How a replication slot is: what no run can mend, what is beyond the pipeline's limits, and the check that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets import markdown
from rapidbyte_dagster.assets.amounts import bytes_text, seconds_text
from rapidbyte_dagster.assets.slot_names import SlotPlace
from rapidbyte_dagster.config import CaptureOptions

if TYPE_CHECKING:
    from rapidbyte_dagster.engine.capture.slots import SlotStatus

SLOT_HEALTH_CHECK = "slot_health"

_PLUGIN = "pgoutput"


def slot_alarms(place: SlotPlace, status: SlotStatus, positions: Mapping[str, str]) -> list[str]:
    """What is wrong with the slot so that runs would lose changes or cannot read: each with the way out.

    `positions` are the LSNs up to which the streams are committed, as far as the state store knows them. A slot that is
    not there, of streams that never ran, is made by their first run.
    """
    slot = status.slot
    if not slot.exists:
        if not positions:
            return []
        return [
            f"{place.slot} is gone, and with it the changes of {_positions(positions)}: somebody has dropped it, or the"
            f" source was restored or failed over to a server without it. {place.recovery(positions)}"
        ]
    if slot.plugin != _PLUGIN:
        return [
            f"{place.slot} is {f'of the plugin {slot.plugin!r}' if slot.plugin else 'a physical slot'}, not of"
            f" {_PLUGIN!r}: another consumer's. Name another one with replication_slot"
        ]
    if slot.wal_status == "lost" or slot.invalidation_reason:
        reason = slot.invalidation_reason or "WAL that was not read is removed: max_slot_wal_keep_size"
        return [
            f"{place.slot} is lost: the source gave it up ({reason}), and with it changes of {_positions(positions)}."
            f" Drop it with `{place.teardown}`. {place.recovery(positions)}"
        ]
    confirmed = slot.confirmed_flush_lsn
    lost = {
        stream: lsn for stream, lsn in positions.items() if confirmed is not None and lsn_of(lsn) < lsn_of(confirmed)
    }
    if lost:
        return [
            f"{place.slot} begins at {confirmed}, behind what was read of {_positions(lost)}: it was made anew, or"
            f" another consumer has read from it, and the changes in between are lost. {place.recovery(lost)}"
        ]
    return []


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
    safe = status.slot.safe_wal_size
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
    alarms: Sequence[str],
    lag_seconds: float | None,
) -> dg.AssetCheckResult:
    """What the check of the slot's asset says: severity ERROR for an alarm, and for a slot that is about to be lost."""
    warnings = slot_warnings(options, status, lag_seconds)
    errors = list(alarms)
    if status.slot.wal_status == "unreserved":
        errors.append("the source may remove WAL of the slot at its next checkpoint: catch up now")
    told = [*errors, *warnings]
    if not told:
        told = ["the slot is well" if status.slot.exists else "there is no slot yet: the first run makes it"]
    text = "; ".join(markdown.plain(each) for each in told)
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
    slot = status.slot
    return {
        "lag_bytes": status.lag_bytes or 0,
        **({"lag_seconds": round(float(lag_seconds), 1)} if lag_seconds is not None else {}),
        "retained_bytes": status.retained_bytes or 0,
        **({"safe_wal_size": slot.safe_wal_size} if slot.safe_wal_size is not None else {}),
        **({"wal_status": slot.wal_status} if slot.wal_status else {}),
        **({"confirmed_flush_lsn": slot.confirmed_flush_lsn} if slot.confirmed_flush_lsn else {}),
        **({"restart_lsn": slot.restart_lsn} if slot.restart_lsn else {}),
        "wal_position": status.wal_position,
        "active": bool(slot.active),
    }


def lsn_of(text: str) -> int:
    """The byte position that `0/16B3748` names."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def _positions(positions: Mapping[str, str]) -> str:
    if not positions:
        return "its streams"
    return ", ".join(f"{stream} (since {lsn})" for stream, lsn in positions.items())
