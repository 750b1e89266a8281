"""`python -m benchmarks --help`, from the repository's folder."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks import definitions
from benchmarks.report import Session, save, show
from benchmarks.session import run_rounds, seeded_server
from benchmarks.ways import WAYS, Way

RESULTS = Path(__file__).with_name("results")
NAMES = [way.name for way in WAYS]


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, type=click.IntRange(min=1))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="After one warm-up.")
@click.option("--primary-key", is_flag=True, help="Give the table one, at the source and at the destination.")
@click.option("--way", "names", multiple=True, type=click.Choice(NAMES), help="Only this one; may be repeated.")
@click.option("--definitions/--no-definitions", "load", default=True, help="Time loading 100 pipelines as well.")
@click.option("--save/--no-save", "keep", default=True, help="Keep the figures in benchmarks/results/.")
def main(rows: int, rounds: int, primary_key: bool, names: tuple[str, ...], load: bool, keep: bool) -> None:
    """Copy a table by this engine and by its peers, in alternation, and compare."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    ways = _available(names, console)
    console.print(f"starting PostgreSQL and seeding {rows:,} rows …")
    with seeded_server(rows, primary_key=primary_key) as server:
        with server.connect() as connection:
            version = str((connection.execute("show server_version").fetchone() or ("",))[0])
        series = run_rounds(server, ways, rounds=rounds, primary_key=primary_key, say=console.print)
    seconds = definitions.seconds_to_load(rounds) if load else []
    session = Session(rows, rounds, primary_key, version, series, seconds)
    show(session, console)
    if keep:
        console.print(f"kept in {save(session, RESULTS).relative_to(Path.cwd())}")
    if any(one.failure for one in series):
        sys.exit(1)


def _available(names: tuple[str, ...], console: Console) -> list[Way]:
    ways = [way for way in WAYS if not names or way.name in names]
    for way in ways:
        if way.missing:
            console.print(f"left out: {way.title} (not installed: {', '.join(way.missing)})")
    return [way for way in ways if not way.missing]


if __name__ == "__main__":
    main()
