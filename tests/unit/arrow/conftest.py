from __future__ import annotations

from pathlib import Path

import pytest

import hatch_build
from tests.unit.arrow.roundtrip import Roundtrip

ROOT = Path(hatch_build.__file__).resolve().parent


@pytest.fixture(scope="session")
def roundtrip(tmp_path_factory: pytest.TempPathFactory) -> Roundtrip:
    """The command, compiled from the sources as they are: seconds when they changed, else nothing."""
    prefix = tmp_path_factory.mktemp("arrow-roundtrip")
    hatch_build.zig(ROOT, "build", "arrow-roundtrip", "--prefix", str(prefix))
    return Roundtrip(prefix / "bin" / "arrow-roundtrip")
