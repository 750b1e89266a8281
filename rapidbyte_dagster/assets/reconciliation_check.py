"""The asset check of each mirrored table, on demand: whether it holds what the source's table holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from rapidbyte_dagster.engine.capture.reconciliation import Reconciliation

RECONCILIATION_CHECK = "reconciliation"

_DESCRIPTION = (
    "On demand, executed without its table: catches the table up to a position of the source, and compares the number"
    " of rows and a hash of their contents on both sides at that position. Reads both tables whole."
)


def reconciliation_check_spec(table: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(RECONCILIATION_CHECK, asset=table, description=_DESCRIPTION)


def reconciliation_check_result(table: dg.AssetKey, found: Reconciliation) -> dg.AssetCheckResult:
    """What the check of `table` says of what was found. Rows are numbers, so that they plot."""
    rows = f"{found.source_rows:,} row{'' if found.source_rows == 1 else 's'}"
    if found.matches:
        text = f"{rows} on both sides, of the same contents, at {found.position}."
    elif found.source_rows != found.destination_rows:
        text = f"{rows} at the source, {found.destination_rows:,} at the destination, at {found.position}."
    else:
        text = f"{rows} on both sides at {found.position}, and their contents differ."
    metadata: dict[str, Any] = {
        "position": found.position,
        "source_rows": found.source_rows,
        "destination_rows": found.destination_rows,
        "source_hash": found.source_hash,
        "destination_hash": found.destination_hash,
        "columns": len(found.columns),
    }
    if found.left_out:
        metadata["columns_left_out"] = list(found.left_out)
    return dg.AssetCheckResult(
        asset_key=table,
        check_name=RECONCILIATION_CHECK,
        passed=found.matches,
        severity=dg.AssetCheckSeverity.ERROR,
        description=text,
        metadata=metadata,
    )
