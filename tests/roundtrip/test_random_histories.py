"""Random tables that change between the runs of random streams: after each run the destination is as it should be.

A failure prints its seed; `RAPIDBYTE_TEST_SEED=… pytest --full tests/roundtrip/test_random_histories.py` repeats it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.state import open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import unique_name
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.movement import LANDING, Pair
from tests.roundtrip.random_histories import History, Past
from tests.roundtrip.random_tables import TYPES, Generator
from tests.roundtrip.seed import SEED

HISTORIES = 80
QUICK = 3
BATCH_BYTES = [1, 10_000, 1024 * 1024]


@pytest.fixture(scope="module")
def typed_pair(pair: Pair) -> Pair:
    for database in (pair.source, pair.destination):
        database.execute(TYPES)
    return pair


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[] if n < QUICK else [pytest.mark.full]) for n in range(HISTORIES)]
)
def test_a_table_that_changes_is_followed(tmp_path: Path, typed_pair: Pair, number: int) -> None:
    print(f"RAPIDBYTE_TEST_SEED={SEED}")  # noqa: T201  shown when it fails
    generator = Generator(f"{SEED}/history {number}")
    chosen = generator.random
    history = History.generate(generator)
    print(history)  # noqa: T201
    past = Past(typed_pair.source, unique_name("history"), history, generator)
    target = Table(typed_pair.destination, LANDING, past.table.name)
    pipeline = make_pipeline(
        tmp_path,
        typed_pair.source,
        typed_pair.destination,
        [{"name": past.table.name, **history.stream}],
        name=unique_name("history"),
        write_mode=history.write_mode,
        resources={
            "parallelism": chosen.choice([1, 2]),
            "max_batch_bytes": chosen.choice(BATCH_BYTES),
            "max_inflight_bytes": chosen.choice(BATCH_BYTES),
            "checkpoint_interval_rows": chosen.choice([0, 0, 1, 50]),
            "checkpoint_interval_bytes": chosen.choice([0, 0, 1000]),
            "checkpoint_interval_seconds": chosen.choice([0, 0, 1]),
        },
    )
    with open_state(pipeline, {}) as state:
        for done in past.steps(chosen.randint(2, 5)):
            print(done)  # noqa: T201
            run(pipeline, state=state)
            assert_same(past.expected, target, history.projection, keyed=history.keeps_key)
