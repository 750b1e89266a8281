"""All the ways in which a table can be followed while it changes."""

from __future__ import annotations

from pathlib import Path

from tests.roundtrip.increments import WAYS, assert_follows
from tests.roundtrip.movement import Pair
from tests.roundtrip.upserts import assert_single_changes_are_seen, assert_upserts


def assert_is_followed(folder: Path, pair: Pair, table: str) -> None:
    """By upserts of the whole table, and by incremental streams. The table is one of `Sheet.create`."""
    assert_upserts(folder, pair, table)
    assert_single_changes_are_seen(folder, pair, table)
    for way in WAYS:
        assert_follows(folder, pair, table, way)
