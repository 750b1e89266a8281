"""`python -m demo [materialize | dev | traffic | psql [DATABASE] | shell]`, from the repository's folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import psycopg
from rich.console import Console

from demo.embedded_postgres import ServerFailed
from demo.shop import Shop, open_shop
from rapidbyte_dagster.errors import RapidbyteError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("DEMO_FOLDER", ROOT / ".demo")).resolve()
USAGE = "usage: python -m demo [materialize | dev | traffic | psql [shop | warehouse] | shell]"


def main(arguments: list[str]) -> int:
    console = Console()
    command = arguments[0] if arguments else "materialize"
    if command not in ("materialize", "dev", "traffic", "psql", "shell"):
        print(USAGE, file=sys.stderr)
        return 64
    signal.signal(signal.SIGTERM, _leave)
    try:
        with ExitStack() as stack:
            with console.status("starting PostgreSQL and seeding the shop …"):
                shop = stack.enter_context(open_shop(FOLDER / "postgres"))
            return _run(command, arguments[1:], shop, console)
    except (RapidbyteError, ServerFailed, LookupError, OSError, psycopg.Error) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(command: str, arguments: list[str], shop: Shop, console: Console) -> int:
    if command == "psql":
        return _psql(shop, arguments[0] if arguments else "warehouse")
    if command == "traffic":
        from demo.traffic import serve_customers

        return serve_customers(shop, console)
    from demo.dev import serve
    from demo.materialize import materialize, prepare_instance

    home = FOLDER / "dagster"
    prepare_instance(home)
    os.environ.update(shop.environment(), DAGSTER_HOME=str(home), DAGSTER_DISABLE_TELEMETRY="1")
    if command == "dev":
        return serve(shop, ROOT, console)
    if command == "shell":
        return _shell(console)
    code = materialize(shop, console)
    if code == 0:
        console.print(
            "Next: [bold]make dev[/bold] shows the same in Dagster's UI; [bold]make psql[/bold] opens the warehouse;\n"
            "the pipelines are [bold]pipelines/shop.yaml[/bold] and [bold]pipelines/shop_cdc.yaml[/bold].",
            highlight=False,
        )
    return code


def _psql(shop: Shop, database: str) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.call(
        [shop.server.installation.program("psql"), shop.server.dsn(database, user="etl", password="")],
        env={**os.environ, "PGPASSWORD": shop.server.password},
    )


def _shell(console: Console) -> int:
    """The user's shell with what the pipelines ask for, until it ends; returns its exit code."""
    if sys.stdin.isatty():
        console.print("For example: [bold]rapidbyte check pipelines/shop.yaml[/bold]. exit ends it and the databases.")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return subprocess.call([os.environ.get("SHELL", "/bin/sh")], env={**os.environ, "PATH": programs})


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
