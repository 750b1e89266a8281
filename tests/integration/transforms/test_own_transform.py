"""The transform that docs/transforms.md shows: compiled as the page says, and between two real databases."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database

ROOT = Path(__file__).resolve().parents[3]
COMPILE_SECONDS = 120
"""About 2 on an idle machine where Zig's cache is warm."""


def blocks(language: str) -> str:
    """The one block of code in this language below the page's "Writing your own"."""
    page = (ROOT / "docs" / "transforms.md").read_text(encoding="utf-8").partition("## Writing your own")[2]
    [code] = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return str(code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the module and its manifest, made by what the page says."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "trim.zig").write_text(blocks("zig"), encoding="utf-8")
    (folder / "manifest.json").write_text(blocks("json"), encoding="utf-8")
    script = re.sub(r"^SDK=.*$", f"SDK='{ROOT / 'connectors'}'", blocks("sh"), count=1, flags=re.MULTILINE)
    assert "-O ReleaseSafe" in script
    # Checked as well, and compiled in a third of the time.
    script = script.replace("-O ReleaseSafe", "-O Debug")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shared = ROOT / "connectors" / ".zig-cache" / "global"
    cache = {"ZIG_LOCAL_CACHE_DIR": str(folder / "cache"), "ZIG_GLOBAL_CACHE_DIR": str(shared)}
    subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=folder,
        env={**os.environ, **cache, "PATH": path},
        check=True,
        timeout=COMPILE_SECONDS,
    )
    return folder


def test_the_transform_of_the_page_does_what_the_page_says(
    folder: Path, source_db: Database, destination_db: Database
) -> None:
    source_db.execute("CREATE TABLE users (id int, email text)")
    source_db.execute("INSERT INTO users VALUES (1, ' a@b.example '), (2, '   '), (3, NULL), (4, 'c@d.example')")
    pipeline = make_pipeline(
        folder,
        source_db,
        destination_db,
        ["users"],
        transforms=[{"use": "./trim.wasm", "config": {"column": "email"}}],
        destination_section={"on_data_error": "dlq"},
    )
    result = run(pipeline)
    assert destination_db.fetch("SELECT id, email FROM raw.users ORDER BY id") == [
        (1, "a@b.example"),
        (3, None),
        (4, "c@d.example"),
    ]
    assert result.dead_letters == 1
    with open_state(pipeline, {}) as state:
        [letter] = state.dead_letters("shop", "users").to_pylist()
    assert (letter["error_message"], letter["error_category"]) == ("column email is blank", "rule")


def test_its_errors_name_what_is_wrong(folder: Path, source_db: Database, destination_db: Database) -> None:
    source_db.execute("CREATE TABLE users (id int, email text); INSERT INTO users VALUES (1, ' ')")
    for column, kind, message in (
        ("id", Kind.CONFIG, "column: id is integer and no text"),
        ("mail", Kind.CONFIG, "column: stream users has no column mail"),
        ("email", Kind.DATA, "row 1 of stream users: column email is blank"),
    ):
        transforms = [{"use": "./trim.wasm", "config": {"column": column}}]
        with pytest.raises(RapidbyteError) as caught:
            run(make_pipeline(folder, source_db, destination_db, ["users"], transforms=transforms))
        assert (caught.value.info.kind, caught.value.info.message) == (kind, message)
