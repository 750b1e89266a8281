"""This engine's source alone: `python -m benchmarks.capture.decoding PIPELINE POSITION TARGET`.

Captures everything from POSITION up to TARGET, as Arrow batches that nobody takes. Prints the seconds, from
the connector's start, and the changes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.capture.ways import PUBLICATION
from rapidbyte_dagster.config import load_pipeline
from rapidbyte_dagster.engine.hosts import StageHost
from rapidbyte_dagster.engine.plan import plan_pipeline
from rapidbyte_dagster.engine.result import ignore_log
from rapidbyte_dagster.errors import Stage


class Nobody(StageHost):
    """Takes whatever comes, and calls it settled."""

    marks = 0

    def emit(self, message: bytes | bytearray) -> None:
        pass

    def barrier(self, payload: dict[str, Any]) -> None:
        self.marks += 1

    def room(self, seconds: float) -> bool:
        return True

    def settled(self) -> int:
        return self.marks


def main(file: str, position: str, target: str) -> None:
    pipeline = load_pipeline(Path(file))
    [group] = pipeline.slot_groups
    plan = plan_pipeline(pipeline, {}, group.streams[0])
    names = plan.slot_names(group)
    started = time.perf_counter()
    with plan.source.worker(Nobody(Stage.SOURCE, plan.redactor, ignore_log)) as source:
        source.call("rb_open", plan.open_argument(Stage.SOURCE, run_id="decoding"))
        argument = {
            "slot": names.slot,
            "publication": PUBLICATION,
            "streams": [{**plan.source_argument(stream), "position": position} for stream in group.streams],
            "hold": None,
            "target": target,
            "seconds": None,
            "max_batch_bytes": pipeline.resources.max_batch_bytes,
            "flush_ms": 20,
        }
        answer = source.call("rb_capture", argument)
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "rows": answer["rows"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
