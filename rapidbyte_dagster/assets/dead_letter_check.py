"""The asset check of a table whose stream may leave rows out: how many those are, against the pipeline's limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg

from rapidbyte_dagster.assets import markdown
from rapidbyte_dagster.assets.dead_letter_figures import RunFigures
from rapidbyte_dagster.config import DeadLetterLimits, Limit

DEAD_LETTER_CHECK = "dead_letters"

# Hexadecimal digits of a run's id: what Dagster's UI shows of it.
_RUN_ID_SHOWN = 8

Exceeded = Literal["warn", "fail"] | None


def dead_letter_check_spec(table: dg.AssetKey, limits: DeadLetterLimits) -> dg.AssetCheckSpec:
    description = f"Counts the rows that a run leaves out. Warns above {_limit(limits.warn_above)}"
    if limits.fail_above is not None:
        description += f", fails above {_limit(limits.fail_above)}"
    # Not blocking: what was left out is told beside the rows that are in the table, and those stay.
    return dg.AssetCheckSpec(DEAD_LETTER_CHECK, asset=table, description=f"{description}.")


def dead_letter_check_result(table: dg.AssetKey, limits: DeadLetterLimits, run: RunFigures) -> dg.AssetCheckResult:
    """What the check of `table` says of the rows that `run` has left out."""
    exceeded = limits.exceeded(run.left_out, of=run.seen)
    text = _left_out(run)
    text = text[0].upper() + text[1:]
    if exceeded:
        text += f" More than {exceeded}_above allows: {_limit(_value(limits, exceeded))}."
    return _result(table, exceeded, text, {**_limit_metadata(limits), **_run_metadata(run)})


def dead_letter_look_result(
    table: dg.AssetKey, limits: DeadLetterLimits, last: RunFigures | None, waiting: int
) -> dg.AssetCheckResult:
    """What the check says between runs: of the last one that moved rows, and of all dead letters that wait.

    What was replayed or purged since, or read anew by a replace, is no longer held against its run. A share is one of
    the last run's rows only; a number is held against all that wait as well.
    """
    metadata = _limit_metadata(limits)
    judged: list[tuple[Exceeded, str]] = [(limits.exceeded(waiting, of=None), "the dead letters that wait")]
    texts = []
    if last is None:
        texts.append("No run has moved rows yet.")
    else:
        metadata |= _run_metadata(last)
        texts.append(f"Last run {_run_text(last)}: {_left_out(last)}")
        if last.outstanding != last.left_out:
            texts.append(
                f"Of these, {last.outstanding:,} still wait{'s' if last.outstanding == 1 else ''} for a replay."
            )
        judged.insert(0, (limits.exceeded(last.outstanding, of=last.seen), "the last run"))
    texts.append(f"Dead letters that wait, of all runs: {waiting:,}.")
    worst: Exceeded = "fail" if any(found == "fail" for found, _ in judged) else None
    worst = worst or ("warn" if any(found for found, _ in judged) else None)
    if worst:
        told = " and ".join(what for found, what in judged if found == worst)
        texts.append(f"More than {worst}_above allows ({_limit(_value(limits, worst))}): {told}.")
    return _result(table, worst, " ".join(texts), {**metadata, "waiting_dead_letters": waiting})


def _result(
    table: dg.AssetKey, exceeded: Exceeded, description: str, metadata: Mapping[str, Any]
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=table,
        check_name=DEAD_LETTER_CHECK,
        passed=exceeded is None,
        severity=dg.AssetCheckSeverity.ERROR if exceeded == "fail" else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=metadata,
    )


def _left_out(run: RunFigures) -> str:
    if not run.left_out:
        return f"no row was left out of {_rows(run.seen)}."
    kinds = sorted(run.by_category.items(), key=lambda kind: (-kind[1], kind[0]))
    told = ": " + ", ".join(f"{count:,} {category}" for category, count in kinds) if kinds else ""
    return f"{run.left_out:,} of {_rows(run.seen)} left out ({_percent(run)}){told}."


def _run_metadata(run: RunFigures) -> dict[str, Any]:
    """Of the run that is judged; numbers where they may be compared."""
    metadata: dict[str, Any] = {
        "run_id": run.run_id,
        "rows": run.rows,
        "left_out": run.left_out,
        "left_out_percent": round(100 * run.left_out / run.seen, 6) if run.seen else 0.0,
    }
    if run.by_category:
        counts = ([markdown.code(category), f"{count:,}"] for category, count in run.by_category.items())
        metadata["categories"] = dg.MetadataValue.md(markdown.table(("category", "dead letters"), counts))
    return metadata


def _limit_metadata(limits: DeadLetterLimits) -> dict[str, Any]:
    return {
        name: str(value)
        for name, value in (("warn_above", limits.warn_above), ("fail_above", limits.fail_above))
        if value is not None
    }


def _value(limits: DeadLetterLimits, exceeded: Literal["warn", "fail"]) -> Limit | None:
    return limits.fail_above if exceeded == "fail" else limits.warn_above


def _limit(value: Limit | None) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value} of the run's rows"


def _percent(run: RunFigures) -> str:
    """The share as text of few digits, and never a zero that is none."""
    share = 100 * run.left_out / run.seen
    return f"{share:.2f}%" if share >= 0.01 else "less than 0.01%"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _run_text(run: RunFigures) -> str:
    begun = f", begun {markdown.time(run.started_at)}" if run.started_at else ""
    return f"{markdown.code(run.run_id[:_RUN_ID_SHOWN])}{begun}"
