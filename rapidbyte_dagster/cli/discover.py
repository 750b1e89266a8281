"""`rapidbyte discover`: what the source has."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rapidbyte_dagster.cli.pipeline_file import pipeline_argument
from rapidbyte_dagster.cli.progress import size_text
from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.engine import DiscoveredTable
from rapidbyte_dagster.engine import discover as discover_tables


@click.command()
@pipeline_argument
@click.option("--schema", help="Only the tables of this schema.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a listing.")
def discover(pipeline_file: Path, schema: str | None, as_json: bool) -> int:
    """List the tables, columns and keys of PIPELINE's source."""
    tables = discover_tables(load_pipeline(pipeline_file), schema)
    if as_json:
        click.echo(json.dumps({"tables": [dataclasses.asdict(table) for table in tables]}))
        return 0
    if not tables:
        click.echo(f"no tables in schema {schema!r}" if schema else "no tables")
    console = Console()
    for table in tables:
        console.print(_heading(table), soft_wrap=True)
        console.print(_listing(table))
    return 0


def _heading(table: DiscoveredTable) -> Text:
    rows = "rows unknown" if table.rows_estimate is None else f"about {table.rows_estimate:,} rows"
    size = "" if table.bytes is None else f", {size_text(table.bytes)}"
    return Text(f"{table.schema}.{table.name} ({table.kind.replace('_', ' ')}, {rows}{size})")


def _listing(table: DiscoveredTable) -> Table:
    listing = Table()
    for heading in ("column", "type", "arrow", "null", "key"):
        listing.add_column(heading)
    for column in table.columns:
        key = str(table.primary_key.index(column.name) + 1) if column.name in table.primary_key else ""
        listing.add_row(
            Text(column.name), Text(column.type), Text(column.arrow_type), "yes" if column.nullable else "", key
        )
    return listing
