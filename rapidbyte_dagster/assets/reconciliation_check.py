"""The asset checks of a slot's mirrored tables, on demand: whether each holds what the source's table holds.

They belong to the slot's asset, which nothing materialises: those of a table would be part of every run that Dagster's
UI starts of it, and shown as skipped in each.
"""

# No postponed annotations here: Dagster reads those of an op's function.

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets.failure import failure_from
from rapidbyte_dagster.assets.names import op_name, reconciliation_name, slot_tag
from rapidbyte_dagster.assets.op_options import PIPELINE_TAG, SLOT_TAG
from rapidbyte_dagster.assets.resource import RapidbyteResource
from rapidbyte_dagster.assets.run_log import RunLog
from rapidbyte_dagster.assets.termination import interruptible, interruption
from rapidbyte_dagster.config import Pipeline, SlotGroup, WriteMode
from rapidbyte_dagster.errors import RapidbyteError

if TYPE_CHECKING:
    from rapidbyte_dagster.engine.capture.reconciliation import Reconciliation


def reconciliation_checks(pipeline: Pipeline, group: SlotGroup, slot: dg.AssetKey) -> list[dg.AssetChecksDefinition]:
    """Of the asset `slot`, one for each stream of `group` that is mirrored; one op, since a slot has one consumer."""
    streams = {
        dg.AssetCheckKey(slot, reconciliation_name(stream.name)): stream.name
        for stream in group.streams
        if pipeline.write_mode(stream) is WriteMode.UPSERT
    }
    if not streams:
        return []
    tag = slot_tag(pipeline.name, group.name)

    @dg.multi_asset_check(
        name=f"{op_name(pipeline.name, group.name)}__reconciliation",
        specs=[
            dg.AssetCheckSpec(
                key.name,
                asset=slot,
                description=f"On demand: catches `{stream}` up to a position of the source, and compares the number of"
                " rows and a hash of their contents on both sides at that position. Reads both tables whole.",
            )
            for key, stream in streams.items()
        ],
        can_subset=True,
        op_tags={PIPELINE_TAG: pipeline.name, SLOT_TAG: tag},
    )
    def reconciliation(
        context: dg.AssetCheckExecutionContext, rapidbyte: RapidbyteResource
    ) -> Iterator[dg.AssetCheckResult]:
        if sum(node.definition.tags.get(SLOT_TAG) == tag for node in context.job_def.nodes) > 1:
            context.log.info("left aside: the run reads from the slot besides. Execute the check without its tables")
            return
        op = context.op_execution_context
        failure: dg.Failure | None = None
        found: dict[str, Any] = {}
        log = RunLog(context.log, rapidbyte.log_interval_seconds)
        with interruptible(op) as cancel:
            try:
                # Imported when a check runs: loading definitions must not pay for the WASM runtime.
                from rapidbyte_dagster.engine.capture.reconciliation import verify
                from rapidbyte_dagster.state import open_state

                with open_state(pipeline, os.environ) as state:
                    found = verify(
                        pipeline,
                        group,
                        state=state,
                        run_id=context.run.run_id,
                        streams=[streams[key] for key in context.selected_asset_check_keys],
                        on_log=log.say,
                        cancel=cancel,
                    )
            except RapidbyteError as error:
                failure = failure_from(error)
            finally:
                log.flush()
        yield from (_result(slot, each) for each in found.values())
        if cancel.cancelled:
            raise interruption(op)
        # Raised out here it has no chain of causes: Dagster would print them all.
        if failure is not None:
            raise failure

    return [reconciliation]


def _result(slot: dg.AssetKey, found: "Reconciliation") -> dg.AssetCheckResult:
    """What the check of one table says of what was found. Rows are numbers, so that they plot."""
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
        asset_key=slot,
        check_name=reconciliation_name(found.stream),
        passed=found.matches,
        severity=dg.AssetCheckSeverity.ERROR,
        description=text,
        metadata=metadata,
    )
