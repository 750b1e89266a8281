"""The `rapidbyte` command: its sub-commands, its exit codes, and how it tells errors.

Results go to stdout, errors and progress to stderr. Exit codes are those of `rapidbyte_dagster.errors`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from rapidbyte_dagster.cli.cdc import cdc
from rapidbyte_dagster.cli.check import check
from rapidbyte_dagster.cli.connectors import connectors
from rapidbyte_dagster.cli.discover import discover
from rapidbyte_dagster.cli.dlq import dlq
from rapidbyte_dagster.cli.run import run
from rapidbyte_dagster.cli.state import state
from rapidbyte_dagster.errors import ConfigError, InternalError, RapidbyteError, RunCancelled, UsageError, bug


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rapidbyte-dagster", prog_name="rapidbyte")
@click.option("--debug", is_flag=True, help="Show Python tracebacks of errors.")
def cli(debug: bool) -> None:
    """Copy databases through sandboxed connectors, as a pipeline file says."""


for command in (run, check, discover, state, cdc, dlq, connectors):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # Where the flag stands should not matter: `rapidbyte run shop.yaml --debug` is what people type.
    given = ["--debug", *(word for word in given if word != "--debug")] if debug else given
    try:
        code = cli.main(args=given, prog_name="rapidbyte", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        error.show()
        return UsageError.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Cancelled.", err=True)
        return RunCancelled.exit_code
    except RapidbyteError as error:
        if debug:
            traceback.print_exc()
        tell(error)
        return error.exit_code
    except BrokenPipeError:
        # `rapidbyte discover … | head` closes the pipe early: not an error of ours.
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001  the process boundary
        if debug:
            traceback.print_exc()
        tell(bug(error))
        return InternalError.exit_code


def tell(error: RapidbyteError) -> None:
    """One readable message on stderr, with every problem of a pipeline file."""
    told = str(error)
    click.echo(f"Error: {told}", err=True)
    if isinstance(error, ConfigError):
        for problem in error.problems:
            if problem not in told:
                click.echo(f"  {problem}", err=True)
