"""What the commands have in common: the pipeline file, and some of its streams."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import click

from rapidbyte_dagster.config import Pipeline, Stream
from rapidbyte_dagster.errors import UsageError

# Whether it can be read is told by whoever reads it, with the file's other problems.
pipeline_path = click.Path(path_type=Path, readable=False)
pipeline_argument = click.argument("pipeline_file", metavar="PIPELINE", type=pipeline_path)


def chosen_streams(pipeline: Pipeline, names: Sequence[str]) -> list[Stream]:
    """The streams called `names`, in the file's order; all of them when none is named."""
    known = [stream.name for stream in pipeline.streams]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"pipeline {pipeline.name!r} has no stream {name!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known)}",
            )
    return [stream for stream in pipeline.streams if not names or stream.name in names]
