"""How long a commit takes from the source to the destination: `python -m benchmarks.capture.tail`.

A writer commits at an even pace; a reader asks the destination again and again for the newest row. What is measured is
the time between the two: from the writer's COMMIT that returned to the answer that has its row.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click
from rich.console import Console

from benchmarks.capture import changes
from benchmarks.capture.ways import captured
from benchmarks.report import Goal, show_goals
from benchmarks.scenarios.cdc import CDC
from benchmarks.session import started_server
from benchmarks.way import DESTINATION, SOURCE
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER

ROOT = Path(__file__).resolve().parents[2]
CHANGES_PER_COMMIT = 5
"""Four updates and an insert."""
ROWS_BEFORE = 100_000
START_SECONDS = 30.0
WARM_UP_SECONDS = 2.0
MEDIAN_GOAL_MS = 100.0
P99_GOAL_MS = 300.0

WRITE = """
    with updated as (update changes set amount = amount + 1 where id = any(%(some)s)),
         inserted as (insert into changes (id, title) values (%(id)s, 'tail'))
    select
"""


@dataclass
class Latencies:
    """Milliseconds from commit to visible, of each commit."""

    milliseconds: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        return sorted(self.milliseconds)[min(len(self.milliseconds) - 1, int(share * len(self.milliseconds)))]


def measure_tail(server: EmbeddedPostgres, *, seconds: float, changes_per_second: float) -> Latencies:
    """Of a table that was captured before, and whose tail begins now."""
    committed: dict[int, float] = {}
    seen: dict[int, float] = {}
    done = threading.Event()

    def write() -> None:
        pause = CHANGES_PER_COMMIT / changes_per_second
        with server.connect(SOURCE, user=USER) as connection:
            due = time.perf_counter()
            for number in range(int(seconds / pause)):
                row = ROWS_BEFORE + 1 + number
                some = [1 + (row * changes.STRIDE + k) % ROWS_BEFORE for k in range(CHANGES_PER_COMMIT - 1)]
                connection.execute(WRITE.encode(), {"id": row, "some": some})
                committed[row] = time.perf_counter()
                due += pause
                time.sleep(max(0.0, due - time.perf_counter()))
        done.set()

    def read() -> None:
        newest = ROWS_BEFORE
        deadline = None
        with server.connect(DESTINATION, user=USER) as connection:
            while True:
                found = connection.execute("select max(id) from raw.changes").fetchone()
                now = time.perf_counter()
                assert found is not None
                for row in range(newest + 1, found[0] + 1):
                    seen[row] = now
                newest = found[0]
                if done.is_set():
                    deadline = deadline or now + 5.0
                    if newest >= max(committed) or now > deadline:
                        return
                time.sleep(0.001)

    threads = [threading.Thread(target=work) for work in (read, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = set(committed) - set(seen)
    if missing:
        raise click.ClickException(f"{len(missing)} commits never arrived")
    warm = min(committed.values()) + WARM_UP_SECONDS
    return Latencies([1000 * (seen[row] - at) for row, at in committed.items() if at >= warm])


@click.command()
@click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(min=3))
@click.option("--changes-per-second", default=500.0, show_default=True, type=click.FloatRange(min=1))
def main(seconds: float, changes_per_second: float) -> None:
    """Tail a table that changes at an even pace, and tell how long its commits take to arrive."""
    with tempfile.TemporaryDirectory(prefix="rapidbyte-tail-") as name, started_server(CDC) as server:
        folder = Path(name)
        with server.connect(SOURCE, user=USER) as source:
            changes.create(source, changes.NAME)
            changes.seed(source, 2 * ROWS_BEFORE)
        command = captured("tail", "", write_mode="upsert").command(server, folder)
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        tail = [*command, "--tail", f"{int(seconds + START_SECONDS)}s"]
        # Ended by a signal, which it tells of.
        with subprocess.Popen(tail, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_until_active(server)
                latencies = measure_tail(server, seconds=seconds, changes_per_second=changes_per_second)
            finally:
                process.terminate()
    console = Console(highlight=False)
    console.print(
        f"{len(latencies.milliseconds):,} commits at {changes_per_second:g} changes/s: median"
        f" {median(latencies.milliseconds):.0f} ms, p99 {latencies.percentile(0.99):.0f} ms,"
        f" longest {max(latencies.milliseconds):.0f} ms"
    )
    show_goals(
        [
            Goal("from commit to visible, median", MEDIAN_GOAL_MS, median(latencies.milliseconds), "ms"),
            Goal("from commit to visible, p99", P99_GOAL_MS, latencies.percentile(0.99), "ms"),
        ],
        console,
    )


def _wait_until_active(server: EmbeddedPostgres) -> None:
    deadline = time.monotonic() + START_SECONDS
    with server.connect(SOURCE) as connection:
        while connection.execute("select from pg_replication_slots where active").fetchone() is None:
            if time.monotonic() > deadline:
                raise click.ClickException("the tail does not begin")
            time.sleep(0.05)


if __name__ == "__main__":
    main()
