"""Wall time, CPU and peak memory of one command.

The command runs as the child of a small launcher (this file as a script, which imports only the standard library):
on Linux a process starts its life with the peak memory of the one that forked it, and ours is larger than psql's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`."""
COMMAND_SECONDS = 3600


@dataclass(frozen=True)
class Measured:
    """One run of a command and its children, servers not included."""

    wall_seconds: float
    cpu_seconds: float
    """User and system time, all processes of the command together."""
    peak_rss_bytes: int
    """Of its largest process."""
    output: str


class CommandFailed(Exception):
    """The command ended with another code than 0; the message has the end of what it said."""


def measure(command: Sequence[str], *, environment: Mapping[str, str], folder: Path) -> Measured:
    """Runs `command` in `folder` with `environment` beside our own. Raises CommandFailed."""
    with tempfile.NamedTemporaryFile() as figures:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__, figures.name, *command],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode != 0:
            raise CommandFailed(f"exit code {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")
        told = json.load(figures)
    return Measured(wall_seconds=told["wall"], cpu_seconds=told["cpu"], peak_rss_bytes=told["rss"], output=done.stdout)


def launch(figures: str, command: list[str]) -> int:
    started = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - started
    with open(figures, "w") as file:
        cpu = usage.ru_utime + usage.ru_stime
        json.dump({"wall": wall, "cpu": cpu, "rss": usage.ru_maxrss * RSS_UNIT_BYTES}, file)
    return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1], sys.argv[2:]))
