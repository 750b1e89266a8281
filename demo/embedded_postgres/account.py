"""Who the server runs as.

PostgreSQL refuses to run as root. An ordinary user runs it as himself; root runs it as an unprivileged account that
the system already has. Nothing is created and no permission of a folder that exists is loosened for it: what that
account cannot reach is put elsewhere (see `server.py` and `installation.py`).
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CANDIDATES = ("pgserver", "postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """The account of the server's processes; `uid` and `gid` are None for "as we are"."""

    name: str
    uid: int | None
    gid: int | None

    @classmethod
    def choose(cls) -> Account:
        """The account to run a server as from this process.

        Raises LookupError for root on a system without any of `CANDIDATES`.
        """
        if os.geteuid() != 0:
            return cls(name=str(os.geteuid()), uid=None, gid=None)
        for name in CANDIDATES:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
        raise LookupError(
            "PostgreSQL does not run as root, and this system has none of the accounts "
            f"{', '.join(CANDIDATES)}: run as an ordinary user, or create one with `useradd --system pgserver`"
        )

    @property
    def _identity(self) -> tuple[int, int] | None:
        return None if self.uid is None or self.gid is None else (self.uid, self.gid)

    def popen_options(self) -> dict[str, Any]:
        """Keyword arguments that make `subprocess` run a program as this account."""
        if self._identity is None:
            return {}
        uid, gid = self._identity
        return {"user": uid, "group": gid, "extra_groups": ()}

    def run(self, command: list[str], *, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs `command` as this account, in `/`, because the current folder may be out of its reach."""
        return subprocess.run(
            command, cwd="/", env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL, **self.popen_options()
        )

    def can_run(self, program: Path) -> bool:
        try:
            return self.run([str(program), "--version"]).returncode == 0
        except OSError:
            return False

    def can_enter(self, folder: Path) -> bool:
        """Whether the account may pass through every folder on the way to `folder`, and that one too."""
        return self._identity is None or self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]).returncode == 0

    def own(self, path: Path, *, mode: int = 0o700) -> None:
        """Makes the account the owner of `path`, which is closed to everybody else."""
        if self._identity is not None:
            os.chown(path, *self._identity)
        path.chmod(mode)
