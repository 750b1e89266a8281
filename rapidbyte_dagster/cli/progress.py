"""What `rapidbyte run` shows on a terminal: a line per stream while it runs, and a table at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from rapidbyte_dagster.cli.outcome import Outcome
from rapidbyte_dagster.engine import Progress


class Display:
    """The live lines, on stderr; nothing but warnings where that is not a terminal. Safe from several threads."""

    def __init__(self, *, enabled: bool) -> None:
        self._console = Console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[moved]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def expect(self, stream: str) -> None:
        self._tasks[stream] = self._bars.add_task(stream, total=None, start=False, moved="waiting")

    def progress(self, progress: Progress) -> None:
        task = self._tasks[progress.stream]
        self._bars.start_task(task)
        again = f" (attempt {progress.attempt})" if progress.attempt > 1 else ""
        rate = progress.rows / progress.elapsed_seconds if progress.elapsed_seconds > 0 else 0.0
        self._bars.update(task, moved=f"{progress.rows:,} rows, {size_text(progress.bytes)}, {rate:,.0f} rows/s{again}")

    def done(self, outcome: Outcome) -> None:
        task = self._tasks[outcome.stream]
        self._bars.start_task(task)
        moved = f"{outcome.result.rows:,} rows" if outcome.result else ""
        self._bars.update(
            task, total=1, completed=1 if outcome.result else 0, moved=f"{outcome.status} {moved}".strip()
        )
        self._bars.stop_task(task)

    def log(self, level: int, message: str) -> None:
        if level >= logging.WARNING:
            self._console.print(
                f"{logging.getLevelName(level).lower()}: {message}", markup=False, highlight=False, soft_wrap=True
            )


def summary(pipeline: str, outcomes: Sequence[Outcome]) -> None:
    """The closing table, and how the streams' tables changed, on stdout."""
    table = Table(title=f"pipeline {pipeline}", title_justify="left")
    for heading in ("stream", "status", "table"):
        table.add_column(heading)
    headings = ["rows", "size", "seconds", "rows/s"]
    # Only told where there are some, so that nobody passes over them, and once where both are the same.
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    left_out = []
    if any(result.filtered for result in results):
        left_out.append(("filtered", "filtered"))
    if any(result.rejected != result.dead_letters for result in results):
        left_out.append(("rejected", "rejected"))
    if any(result.dead_letters for result in results):
        left_out.append(("dead letters", "dead_letters"))
    for heading in (*headings, *(heading for heading, _ in left_out)):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        result = outcome.result
        if result is None:
            table.add_row(outcome.stream, f"[red]{outcome.status}[/red]")
            continue
        table.add_row(
            outcome.stream,
            f"[green]{outcome.status}[/green]",
            result.table,
            f"{result.rows:,}",
            size_text(result.bytes),
            f"{result.seconds:.2f}",
            f"{result.rows_per_second:,.0f}",
            *(f"{getattr(result, name) or 0:,}" for _, name in left_out),
        )
    Console().print(table)
    for outcome in outcomes:
        for change in outcome.result.schema_changes if outcome.result else ():
            # The others were warned of while it ran.
            if change.action.severity == "ok":
                click.echo(f"{outcome.stream}: {change.message}")


def size_text(size: float) -> str:
    """Bytes in binary units, as people read them: 12.3 MB."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
