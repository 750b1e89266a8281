from __future__ import annotations

from pathlib import Path

import pytest

import hatch_build
from tests.unit.regex.driver import Driver

ROOT = Path(hatch_build.__file__).resolve().parent


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """The command, compiled from the sources as they are: seconds when they changed, else nothing."""
    prefix = tmp_path_factory.mktemp("regex-driver")
    hatch_build.zig(ROOT, "build", "regex-driver", "--prefix", str(prefix))
    return Driver(prefix / "bin" / "regex-driver")
