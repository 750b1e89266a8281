"""Random tables, random projections, small and large batches.

A failure prints its seed; `RAPIDBYTE_TEST_SEED=… pytest tests/roundtrip/test_random_tables.py` repeats it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.roundtrip.movement import Pair, assert_moves
from tests.roundtrip.random_tables import TYPES, Generator, create
from tests.roundtrip.seed import SEED

# The source ends a batch after 65,536 rows of narrow columns.
BATCH_ROWS = 65_536
NARROW = [BATCH_ROWS - 1, BATCH_ROWS, BATCH_ROWS + 1, 2 * BATCH_ROWS]
WIDE = [0, 1, 1, 2, 64, 300, 300, 1000, 3000]
QUICK = {BATCH_ROWS + 1, 0, 300}
BATCH_BYTES = [1, 1000, 64 * 1024, 100_000, 1024 * 1024, 16 * 1024 * 1024]


@pytest.fixture(scope="module")
def typed_pair(pair: Pair) -> Pair:
    for database in (pair.source, pair.destination):
        database.execute(TYPES)
    return pair


@pytest.mark.parametrize(
    ("number", "rows"),
    [
        pytest.param(number, rows, marks=[] if rows in QUICK else [pytest.mark.full])
        for number, rows in enumerate(NARROW + WIDE)
    ],
)
def test_a_random_table_arrives(tmp_path: Path, typed_pair: Pair, number: int, rows: int) -> None:
    print(f"RAPIDBYTE_TEST_SEED={SEED}")  # noqa: T201  shown when it fails
    generator = Generator(f"{SEED}/{number}")
    chosen = generator.random
    narrow = number < len(NARROW)
    columns = generator.columns(chosen.randint(1, 3) if narrow else chosen.randint(1, 20), narrow=narrow)
    create(typed_pair.source, f"random {number}", columns, rows, key=narrow or chosen.random() < 0.7)
    resources = {
        "max_batch_bytes": BATCH_BYTES[-1] if narrow else chosen.choice(BATCH_BYTES),
        "max_inflight_bytes": chosen.choice(BATCH_BYTES),
    }
    result = assert_moves(tmp_path, typed_pair, f"random {number}", resources=resources)
    assert result.rows == rows
    if narrow:
        return
    names = ["n", *(column.name for column in columns)]
    projection = chosen.sample(names, chosen.randint(1, len(names)))
    assert_moves(tmp_path, typed_pair, f"random {number}", columns=projection, resources=resources)
