"""`make dev`: Dagster's UI over the demo's databases, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType

from rich.console import Console

from demo.shop import Shop

HOST = "127.0.0.1"
FIRST_PORT = 3000
PORT_TRIES = 50
STOP_SECONDS = 30.0


def serve(shop: Shop, root: Path, console: Console) -> int:
    """Runs `dagster dev` and waits for its end; returns its exit code."""
    port = _choose_port()
    console.print(
        f"[bold]http://{HOST}:{port}[/bold]  Dagster, in a few seconds. Ctrl-C ends it and the databases.\n"
        "  Catalog → shop → Materialize all: copies the three tables. A table's page shows its rows,\n"
        "  its speed and its columns. Jobs → shop_job: the same as one job.\n"
        "  Automation → shop_cdc__cdc_sensor: keeps the tables of carts and stock in step with the shop.\n"
        "  Catalog → shop_cdc → cdc → slot: the replication slot that it watches, and how far that is behind.\n"
        "  make traffic, in a second terminal: people in the shop. make psql: the warehouse.",
        highlight=False,
        soft_wrap=True,
    )
    # A shell starts what it puts in the background deaf to SIGINT, and Dagster would inherit that for good.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    dagster = subprocess.Popen(
        [
            # Dagster advises against its own `dagster dev`, in favour of a command that wants another layout.
            *(sys.executable, "-W", "ignore", "-m", "dagster", "dev", "-w", "workspace.yaml"),
            *("-h", HOST, "-p", str(port), "--log-level", "warning"),
        ],
        cwd=root,
    )

    def pass_on(number: int, frame: FrameType | None) -> None:
        dagster.send_signal(number)

    # A terminal's Ctrl-C reaches both processes: Dagster ends its children itself, and we wait for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, pass_on)
    code = dagster.wait()
    return 0 if code in (0, -signal.SIGINT, -signal.SIGTERM) else code


def _choose_port() -> int:
    """DEV_PORT where it is set, else the first free one from `FIRST_PORT` on. Raises OSError when it is taken."""
    wanted = os.environ.get("DEV_PORT")
    if wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, int(wanted)))
        return int(wanted)
    for port in range(FIRST_PORT, FIRST_PORT + PORT_TRIES):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {FIRST_PORT} to {FIRST_PORT + PORT_TRIES - 1}: set DEV_PORT")
