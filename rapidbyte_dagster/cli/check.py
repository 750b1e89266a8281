"""`rapidbyte check`: what would stop a run, told before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import click

from rapidbyte_dagster.cli.pipeline_file import pipeline_argument
from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.engine import Finding, check_pipeline
from rapidbyte_dagster.state import ChangeAction, SchemaChange

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "error": ("error", "red")}
_DIFFERENCE = ("column", "in the stream", "in the table", "policy", "what a run does")


@click.command(short_help="Tell what would stop a run, before it.")
@pipeline_argument
def check(pipeline_file: Path) -> int:
    """Try the connections, tables, columns and privileges that PIPELINE needs; changes nothing.

    Where the columns of a stream and its table differ, it tells what the policy of `schema_evolution` does about it.
    """
    findings = check_pipeline(load_pipeline(pipeline_file))
    for differing, group in groupby(findings, key=lambda finding: finding.stream if finding.change else None):
        for line in _lines(group) if differing is None else _difference(differing, list(group)):
            click.echo(line)
    return next((finding.exit_code for finding in findings if finding.level == "error"), 0)


def _lines(findings: Iterator[Finding]) -> Iterator[str]:
    for finding in findings:
        about = f"{finding.stream}: " if finding.stream else ""
        # A message of a run names its stream by itself.
        message = finding.message.removeprefix(f"stream {about}") if about else finding.message
        yield _line(finding.level, finding.stage, f"{about}{message}")
        if finding.hint and finding.level != "ok":
            yield _line("", "", f"hint: {finding.hint}")


def _difference(stream: str, findings: Sequence[Finding]) -> Iterator[str]:
    """The changes of one stream as a table."""
    yield _line("", findings[0].stage, f"{stream}: its columns and those of the table differ")
    rows = [_DIFFERENCE, *(_cells(finding.change) for finding in findings if finding.change)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    heading, *texts = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    yield _line("", "", heading)
    for finding, text in zip(findings, texts, strict=True):
        yield _line(finding.level, "", text)
    # Changes of one kind have the same.
    for hint in dict.fromkeys(finding.hint for finding in findings if finding.hint):
        yield _line("", "", f"hint: {hint}")


def _cells(change: SchemaChange) -> tuple[str, ...]:
    policy = f"{change.kind}: {change.policy}" if change.policy is not None else "-"
    does = f"stops: {change.message}" if change.action is ChangeAction.REFUSED else change.message
    return (change.column or "primary key", change.stream or "-", change.table or "-", policy, does)


def _line(level: str, stage: str, text: str) -> str:
    mark, colour = _MARKS.get(level, ("", None))
    return f"{click.style(f'{mark:>7}', fg=colour)}  {stage:<11}  {text}"
