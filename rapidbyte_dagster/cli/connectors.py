"""`rapidbyte connectors`: what can stand after `use:`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from rapidbyte_dagster.cli.pipeline_file import pipeline_path
from rapidbyte_dagster.config import Manifest, first_party_manifests, load_pipeline
from rapidbyte_dagster.engine.plan import manifests_of
from rapidbyte_dagster.transforms import load_connector


@click.command(short_help="List the connectors, each verified.")
@click.argument("pipeline_file", metavar="[PIPELINE]", required=False, type=pipeline_path)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def connectors(pipeline_file: Path | None, as_json: bool) -> int:
    """List the connectors that are installed, or those that PIPELINE uses; each module is verified."""
    manifests = (
        list(first_party_manifests().values()) if pipeline_file is None else manifests_of(load_pipeline(pipeline_file))
    )
    for manifest in manifests:
        load_connector(manifest)
    if as_json:
        click.echo(json.dumps({"connectors": [_as_json(manifest) for manifest in manifests]}))
        return 0
    table = Table()
    for heading in ("name", "version", "role", "protocol", "sha256"):
        # The name is there to be copied: the description gives way on a narrow terminal.
        table.add_column(heading, no_wrap=True)
    table.add_column("description")
    for manifest in manifests:
        table.add_row(
            manifest.name,
            manifest.version,
            str(manifest.role),
            str(manifest.protocol),
            manifest.sha256[:12] if manifest.sha256 is not None else "in the host",
            manifest.description,
        )
    Console().print(table)
    return 0


def _as_json(manifest: Manifest) -> dict[str, object]:
    shown = ("name", "version", "role", "protocol", "description", "sha256")
    return {name: str(value) if name == "role" else value for name in shown for value in [getattr(manifest, name)]}
