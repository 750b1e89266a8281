"""Where a relative path of a pipeline file counts from."""

from __future__ import annotations

import sys
from pathlib import Path

from rapidbyte_dagster.errors import ConfigError


def caller_folder(depth: int) -> Path | None:
    """The folder of the file whose code called, `depth` frames up; None for code without a file."""
    file = sys._getframe(depth + 1).f_globals.get("__file__")
    return Path(file).resolve().parent if file else None


def locate(path: str | Path, folder: Path | None) -> Path:
    """`path` as an absolute one: relative to `folder` if it exists there, else to the working directory.

    The calling file comes first because the working directory of a code location depends on who starts it. Raises
    `ConfigError` when there is nothing in either place.
    """
    asked = Path(path).expanduser()
    bases = [Path()] if asked.is_absolute() else [*([folder] if folder else []), Path.cwd()]
    places = list(dict.fromkeys((base / asked).absolute() for base in bases))
    for place in places:
        if place.exists():
            return place
    raise ConfigError(
        f"there is no file or folder {str(path)!r}",
        detail="looked for " + ", ".join(map(str, places)),
        hint="a relative path counts from the calling Python file's folder, then from the working directory",
    )
