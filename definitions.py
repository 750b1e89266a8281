"""The code location: every pipeline in `pipelines/` as Dagster assets."""

from pathlib import Path

from rapidbyte_dagster import build_definitions

defs = build_definitions(Path(__file__).parent / "pipelines")
