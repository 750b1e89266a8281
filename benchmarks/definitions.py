"""How long a code location of many pipelines takes to load, beyond importing Dagster.

Run as a script with a folder: loads the pipelines in it and prints the seconds. What Dagster itself does with the
definitions afterwards is not in them: it resolves each job against every asset, whoever made them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIPELINES = 100
STREAMS_EACH = 3
ROOT = Path(__file__).resolve().parents[1]

PIPELINE = """\
version: "1.0"
pipeline: {name}
source:
  use: source-postgres
  config: {{host: "${{HOST}}", user: "${{DB_USER}}", password: "${{PASSWORD}}", database: shop}}
  streams:
{streams}
destination:
  use: dest-postgres
  config: {{host: "${{HOST}}", user: "${{DB_USER}}", password: "${{PASSWORD}}", database: warehouse, schema: {name}}}
  write_mode: replace
"""


def seconds_to_load(rounds: int) -> list[float]:
    """The time of each of `rounds` processes that loads `PIPELINES` pipelines of `STREAMS_EACH` streams."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(PIPELINES):
            streams = "".join(f"    - {{name: table_{i}, sync_mode: full_refresh}}\n" for i in range(STREAMS_EACH))
            pipeline = PIPELINE.format(name=f"pipeline_{number}", streams=streams.rstrip("\n"))
            (Path(name) / f"pipeline_{number}.yaml").write_text(pipeline)
        return [_load_in_a_process(name) for _ in range(rounds)]


def _load_in_a_process(folder: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.definitions", folder], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def main(folder: str) -> None:
    import dagster

    assert dagster
    started = time.perf_counter()
    from rapidbyte_dagster import build_definitions

    definitions = build_definitions(folder)
    seconds = time.perf_counter() - started
    assert len(list(definitions.assets or ())) >= PIPELINES * STREAMS_EACH
    print(seconds)


if __name__ == "__main__":
    main(sys.argv[1])
