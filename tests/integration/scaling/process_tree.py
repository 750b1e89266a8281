"""What a process and its descendants hold of the machine's memory, as Linux tells it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_KILOBYTE = 1024
_LOOK_SECONDS = 0.02

linux_only = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells")


@dataclass(frozen=True)
class Watched:
    """A command that has ended."""

    output: str
    errors: str
    code: int
    peak_bytes: int
    """The most that its processes had resident together; pages that several share count once for each."""
    processes: int
    """The most of them that there were at once."""


def watch(command: Sequence[str], *, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Watched:
    """Runs `command` and looks at its tree of processes all the while."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **(environ or {})},
    )
    told: list[tuple[str, str]] = []
    reader = threading.Thread(target=lambda: told.append(process.communicate()))
    reader.start()
    peak_bytes = processes = 0
    while reader.is_alive():
        tree = [process.pid, *descendants(process.pid)]
        peak_bytes = max(peak_bytes, sum(map(_resident_bytes, tree)))
        processes = max(processes, len(tree))
        time.sleep(_LOOK_SECONDS)
    [(output, errors)] = told
    return Watched(output, errors, process.returncode, peak_bytes, processes)


def descendants(pid: int) -> list[int]:
    """The process's children and theirs, each behind its parent."""
    found: list[int] = []
    # A process may end while it is looked at.
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * _KILOBYTE
    return 0
