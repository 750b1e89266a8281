"""Catches a pipeline's slot up to a position: `python -m benchmarks.capture.catching_up PIPELINE POSITION`.

As `rapidbyte run` does, which reads to where the log ends: behind POSITION is what other ways have written there since.
Prints the seconds, from the run's start to its end, and the changes.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.engine import run_slot
from rapidbyte_dagster.state import open_state


def main(file: str, position: str) -> None:
    pipeline = load_pipeline(Path(file))
    [group] = pipeline.slot_groups
    with open_state(pipeline, {}) as state:
        result = run_slot(pipeline, group, state=state, run_id=str(uuid.uuid4()), environ={}, target=position)
    [stream] = result.streams.values()
    if isinstance(stream, Exception):
        raise stream
    print(json.dumps({"streams": [{"seconds": stream.seconds, "rows": stream.rows}]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
