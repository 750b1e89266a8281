"""`python -m benchmarks --help`, from the repository's folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console

from benchmarks import definitions
from benchmarks.report import Outcome, Session, save, show
from benchmarks.scenario import Scenario
from benchmarks.scenarios import SCENARIOS
from benchmarks.session import run_rounds, started_server
from benchmarks.way import Way

RESULTS = Path(__file__).with_name("results")
SCENARIO_NAMES = [scenario.name for scenario in SCENARIOS]
DEFAULT_NAMES = [scenario.name for scenario in SCENARIOS if scenario.by_default]
WAY_NAMES = list(dict.fromkeys(way.name for scenario in SCENARIOS for way in scenario.ways))


@click.command()
@click.option(
    "--scenario",
    "scenario_names",
    multiple=True,
    type=click.Choice(SCENARIO_NAMES),
    help=f"Only this one; may be repeated. Default: {', '.join(DEFAULT_NAMES)}.",
)
@click.option("--rows", type=click.IntRange(min=1), help="Default: 1,000,000; of shards 10,000,000.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="After one warm-up.")
@click.option(
    "--primary-key",
    is_flag=True,
    help="Give the table one, at the source and at the destination. Incremental and upsert always do.",
)
@click.option("--way", "way_names", multiple=True, type=click.Choice(WAY_NAMES), help="Only this one; may be repeated.")
@click.option("--definitions/--no-definitions", "load", default=True, help="Time loading 100 pipelines as well.")
@click.option("--save/--no-save", "keep", default=True, help="Keep the figures in benchmarks/results/.")
def main(
    scenario_names: tuple[str, ...],
    rows: int | None,
    rounds: int,
    primary_key: bool,
    way_names: tuple[str, ...],
    load: bool,
    keep: bool,
) -> None:
    """Move a table by this engine, by hand and by its peers, in alternation, and compare."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    outcomes = []
    version = ""
    for scenario in SCENARIOS:
        if scenario.name not in (scenario_names or DEFAULT_NAMES):
            continue
        ways = _available(scenario, way_names, console)
        if not ways:
            continue
        count = rows or scenario.rows
        keyed = primary_key or scenario.keyed
        console.print(f"{scenario.name}: starting PostgreSQL and seeding {count:,} {scenario.unit} …")
        with started_server(scenario) as server:
            with server.connect() as connection:
                version = str((connection.execute("show server_version").fetchone() or ("",))[0])
            run = scenario.rounds or run_rounds
            series = run(server, scenario, ways, rows=count, rounds=rounds, primary_key=keyed, say=console.print)
        outcomes.append(Outcome(scenario, count, keyed, series))
    if not outcomes:
        raise click.UsageError("none of the scenarios has one of these ways")
    session = Session(rounds, version, outcomes, definitions.seconds_to_load(rounds) if load else [])
    show(session, console)
    if keep:
        console.print(f"kept in {save(session, RESULTS).relative_to(Path.cwd())}")
    if any(one.failure for outcome in outcomes for one in outcome.series):
        sys.exit(1)


def _available(scenario: Scenario, names: Iterable[str], console: Console) -> list[Way]:
    """The scenario's ways of these names, or all, that are installed."""
    ways = [way for way in scenario.ways if not names or way.name in names]
    for way in ways:
        if way.missing:
            console.print(f"{scenario.name}: left out: {way.title} (not installed: {', '.join(way.missing)})")
    return [way for way in ways if not way.missing]


if __name__ == "__main__":
    main()
