"""`rapidbyte check`: what would stop a run, told before it."""

from __future__ import annotations

from pathlib import Path

import click

from rapidbyte_dagster.cli.pipeline_file import pipeline_argument
from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.engine import check_pipeline

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "error": ("error", "red")}


@click.command(short_help="Tell what would stop a run, before it.")
@pipeline_argument
def check(pipeline_file: Path) -> int:
    """Try the connections, tables, columns and privileges that PIPELINE needs; changes nothing."""
    findings = check_pipeline(load_pipeline(pipeline_file))
    for finding in findings:
        text, colour = _MARKS[finding.level]
        about = f"{finding.stream}: " if finding.stream else ""
        # A message of a run names its stream by itself.
        message = finding.message.removeprefix(f"stream {about}") if about else finding.message
        click.echo(f"{click.style(f'{text:>7}', fg=colour)}  {finding.stage:<11}  {about}{message}")
        if finding.hint and finding.level != "ok":
            click.echo(f"{'':>7}  {'':<11}  hint: {finding.hint}")
    return next((finding.exit_code for finding in findings if finding.level == "error"), 0)
