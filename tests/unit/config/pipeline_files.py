"""Pipeline files for the tests of this folder, and what loading them tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.config import Pipeline, load_pipeline
from rapidbyte_dagster.errors import ConfigError

VALID = """\
version: "1.0"
pipeline: shop
source:
  use: postgres
  config:
    host: ${SHOP_HOST}
    port: ${PGPORT:-5432}
    user: etl
    password: ${SHOP_PASSWORD}
    database: shop
  streams:
    - name: users
      columns: [id, email]
    - name: orders
      schema: sales
      table: sold
      write_mode: replace
      primary_key: [id]
destination:
  use: dest-postgres
  config: {host: dw, user: etl, database: dw, schema: raw}
  write_mode: append
"""
"""Line numbers in the tests are those of this text."""

ENVIRON = {"SHOP_HOST": "db.internal", "SHOP_PASSWORD": "s3cret-word"}


def changed(*replacements: tuple[str, str], after: str = "") -> str:
    """VALID with each first text replaced by the second, and `after` at its end."""
    text = VALID
    for old, new in replacements:
        assert old in text, f"{old!r} is not in the valid file"
        text = text.replace(old, new, 1)
    return text + after


def load_text(folder: Path, text: str, name: str = "shop.yaml") -> Pipeline:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return load_pipeline(path)


def problems_in(folder: Path, text: str | bytes) -> list[str]:
    """The problems of a file that must have some, each without the folder's name: `shop.yaml:3: …`."""
    path = folder / "shop.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path)
    for problem in caught.value.problems:
        assert problem in str(caught.value), "an error tells its problems when it is shown"
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def only_problem(folder: Path, text: str | bytes) -> str:
    problems = problems_in(folder, text)
    assert len(problems) == 1, problems
    return problems[0]
