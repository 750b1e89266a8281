"""`make demo`: the pipelines, once, through Dagster, and what they moved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.shop import Shop
from demo.traffic import make_visits

JOB = "shop_job"
CAPTURE_JOB = "shop_cdc__cdc_job"
VISITS_BETWEEN = 500
"""Transactions in the shop between two runs that capture changes."""
CHANGES = ("inserted", "updated", "deleted")
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Moved:
    """One stream's materialisation, as Dagster recorded it, and the tables' own counts afterwards."""

    stream: str
    table: str
    rows: int
    bytes: int
    seconds: float
    changes: Mapping[str, int]
    """Of a stream whose changes are captured: how many rows were inserted, updated and deleted."""
    source_rows: int
    destination_rows: int

    @property
    def complete(self) -> bool:
        return self.source_rows == self.destination_rows

    @property
    def counted(self) -> str:
        if self.complete:
            return "[green]equal[/green]"
        return f"[red]{self.source_rows:,} ≠ {self.destination_rows:,}[/red]"


def materialize(shop: Shop, console: Console) -> int:
    """Runs the pipelines' jobs in this process; returns the exit code."""
    with dg.DagsterInstance.get() as instance:
        copied = _copy(shop, console, instance)
        return copied or _capture(shop, console, instance)


def _copy(shop: Shop, console: Console, instance: dg.DagsterInstance) -> int:
    """The pipeline `shop`: whole tables, and what is new of one."""
    started = time.monotonic()
    with console.status("moving users, products and orders …"):
        result = _execute(JOB, instance)
    seconds = time.monotonic() - started
    moved = list(_moved(result, shop))
    if moved:
        console.print(_table(moved))
    if not _is_complete(result, moved, console):
        return 1
    console.print(f"{sum(stream.rows for stream in moved):,} rows moved by one Dagster run in {seconds:.1f} s.")
    return 0


def _capture(shop: Shop, console: Console, instance: dg.DagsterInstance) -> int:
    """The pipeline `shop_cdc`: the tables as they are, then what becomes of them while people visit the shop."""
    with console.status("copying carts, their items and the stock, and setting up their replication slot …"):
        first = _execute(CAPTURE_JOB, instance)
    if not _is_complete(first, list(_moved(first, shop)), console):
        return 1
    with console.status("people visit the shop …"):
        make_visits(shop, VISITS_BETWEEN)
    started = time.monotonic()
    with console.status("capturing what they changed …"):
        result = _execute(CAPTURE_JOB, instance)
    seconds = time.monotonic() - started
    moved = list(_moved(result, shop))
    if moved:
        console.print(_change_table(moved))
    if not _is_complete(result, moved, console):
        return 1
    changes = sum(sum(stream.changes.values()) for stream in moved)
    console.print(
        f"{changes:,} changes of {VISITS_BETWEEN} transactions captured by one Dagster run in {seconds:.1f} s."
    )
    return 0


def _execute(job: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    from definitions import defs  # late: loading it takes a second, and `make demo` first says what it does

    return defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        raise_on_error=False,
        # What went wrong is said below, once, without Dagster's traceback.
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def _is_complete(result: dg.ExecuteInProcessResult, moved: list[Moved], console: Console) -> bool:
    """Says what failed, and which tables lack rows."""
    for message in _failures(result):
        console.print(Text("failed: ", style="red").append(message, style="default"), soft_wrap=True)
    if not result.success:
        return False
    incomplete = [stream.stream for stream in moved if not stream.complete]
    if incomplete or not moved:
        console.print(f"[red]rows are missing in:[/red] {', '.join(incomplete) or 'every table'}")
        return False
    return True


def _moved(result: dg.ExecuteInProcessResult, shop: Shop) -> Iterator[Moved]:
    for event in result.get_asset_materialization_events():
        if "dagster/table_name" not in event.materialization.metadata:
            continue  # a checkpoint, a schema, dead letters
        stream = event.materialization.asset_key.path[-1]
        table = f"raw.{stream}"
        yield Moved(
            stream=stream,
            table=table,
            rows=int(_number(event.materialization, "rows")),
            bytes=int(_number(event.materialization, "bytes")),
            seconds=_number(event.materialization, "duration_seconds"),
            changes={
                change: int(_number(event.materialization, f"rows_{change}"))
                for change in CHANGES
                if f"rows_{change}" in event.materialization.metadata
            },
            source_rows=shop.count("shop", stream),
            destination_rows=shop.count("warehouse", table),
        )


def _number(materialization: dg.AssetMaterialization, name: str) -> float:
    value = materialization.metadata[name].value
    assert isinstance(value, (int, float))
    return float(value)


def _failures(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            told = data.user_failure_data.description if data.user_failure_data else None
            error = data.error.cause if data.error and data.error.cause else data.error
            yield told or (error.message if error else event.message) or "see the run's log"
        elif event.is_run_failure and not any(one.is_step_failure for one in result.all_events):
            yield event.message or "the run failed"


def _table(moved: list[Moved]) -> Table:
    table = Table(title="shop → warehouse (counted: select count(*) at both ends)", title_justify="left")
    for name in ("stream", "table", "rows", "MB", "seconds", "rows/s", "counted"):
        table.add_column(name, justify="left" if name in ("stream", "table") else "right", no_wrap=True)
    for stream in moved:
        table.add_row(
            stream.stream,
            stream.table,
            f"{stream.rows:,}",
            f"{stream.bytes / MEGABYTE:.1f}",
            f"{stream.seconds:.2f}",
            f"{stream.rows / stream.seconds:,.0f}" if stream.seconds else "",
            stream.counted,
        )
    return table


def _change_table(moved: list[Moved]) -> Table:
    table = Table(title="shop → warehouse, while people visit it", title_justify="left")
    for name in ("stream", "table", *CHANGES, "counted"):
        table.add_column(name, justify="left" if name in ("stream", "table") else "right", no_wrap=True)
    for stream in moved:
        counts = (f"{stream.changes.get(change, 0):,}" for change in CHANGES)
        table.add_row(stream.stream, stream.table, *counts, stream.counted)
    return table


def prepare_instance(folder: Path) -> None:
    """Makes `folder` a DAGSTER_HOME of the demo's own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text(Path(__file__).with_name("dagster.yaml").read_text())
