"""The asset check of each stream's table: what differed between the two, and what the policy made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets import markdown
from rapidbyte_dagster.assets.schema_metadata import changes_table, policy_text

if TYPE_CHECKING:
    from rapidbyte_dagster.config import SchemaEvolution
    from rapidbyte_dagster.state import SchemaChange

DRIFT_CHECK = "schema_drift"

# Sentences of the connector in the check's description; the table beside it has every change.
_MESSAGES_SHOWN = 3

_DESCRIPTION = (
    "Compares the stream's columns with the table's. Passes when nothing differs or the policy allows it, warns when"
    " something is unfilled, ignored, nulled or left as it is, fails where the policy says fail."
)


def drift_check_spec(table: dg.AssetKey) -> dg.AssetCheckSpec:
    # Not blocking: a step whose policy says fail fails by itself, and with the connector's own message.
    return dg.AssetCheckSpec(DRIFT_CHECK, asset=table, description=_DESCRIPTION)


def drift_check_result(
    table: dg.AssetKey, changes: Sequence[SchemaChange], policy: SchemaEvolution, *, before_run: bool = False
) -> dg.AssetCheckResult:
    """What the check of `table` says of `changes`: those that a run found, or that one would find."""
    metadata: dict[str, Any] = {"changes": len(changes), "policy": policy_text(policy)}
    if changes:
        metadata["diff"] = dg.MetadataValue.md(changes_table(changes))
    found = {change.action.severity for change in changes}
    return dg.AssetCheckResult(
        asset_key=table,
        check_name=DRIFT_CHECK,
        passed=found <= {"ok"},
        severity=dg.AssetCheckSeverity.ERROR if "error" in found else dg.AssetCheckSeverity.WARN,
        description=_summary(changes, before_run),
        metadata=metadata,
    )


def _summary(changes: Sequence[SchemaChange], before_run: bool) -> str:
    if not changes:
        return "No difference was found."
    counts = Counter(str(change.action) for change in changes)
    summary = ", ".join(f"{count} {action}" for action, count in counts.most_common())
    found = f"{len(changes)} found, and by the next run {summary}" if before_run else f"{len(changes)} found: {summary}"
    refused = [change for change in changes if change.action.severity == "error"]
    telling = refused or [change for change in changes if change.action.severity == "warning"]
    more = [f"and {len(telling) - _MESSAGES_SHOWN} more"] if len(telling) > _MESSAGES_SHOWN else []
    # Dagster's UI reads it as Markdown.
    return "; ".join([found, *(markdown.plain(change.message) for change in telling[:_MESSAGES_SHOWN]), *more])
