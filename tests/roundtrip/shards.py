"""Full refreshes by several pairs of connectors at once."""

from __future__ import annotations

from pathlib import Path

from rapidbyte_dagster.config import Pipeline
from rapidbyte_dagster.state import StateStore, open_state
from tests.pipelines import make_pipeline, run
from tests.postgres_server import unique_name
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.movement import LANDING, Pair
from tests.roundtrip.upserts import fall_behind, remember, rewritten_otherwise

SHARDS = 2


def assert_moves_in_shards(folder: Path, pair: Pair, table: str, *, partition_key: str | None = None) -> None:
    """Moves the table in two shards in every write mode, into no table and into an existing one.

    After each run the destination's table must have the source's columns, key and content. The shards are blocks of the
    table, or values of `partition_key`.
    """
    source = Table(pair.source, "public", table)
    by = {} if partition_key is None else {"partition_key": partition_key}
    if partition_key is None:
        # What a column held that is dropped stays in the rows: no more than a few fit into a block.
        pair.source.execute(
            f"ALTER TABLE {source.quoted} ADD filler text STORAGE PLAIN;"
            f"UPDATE {source.quoted} SET filler = repeat('x', 3000); ALTER TABLE {source.quoted} DROP filler",
            superuser=True,
        )
    for mode in ("append", "replace", "upsert"):
        target = Table(pair.destination, LANDING, unique_name(f"{mode} in shards"))
        pipeline = make_pipeline(
            folder,
            pair.source,
            pair.destination,
            [{"name": table, "table": target.name, "shards": SHARDS, **by}],
            name=unique_name("sharding"),
            write_mode=mode,
            resources={"parallelism": SHARDS},
        )
        with open_state(pipeline, {}) as state:
            for again in (False, True):
                copy = None
                if again and mode == "append":
                    pair.destination.execute(f"TRUNCATE {target.quoted}", superuser=True)
                elif again:
                    fall_behind(target)
                    copy = remember(target) if mode == "upsert" else None
                assert_reads_in_shards(pipeline, state)
                assert_same(source, target, keyed=mode != "append")
                if copy is not None:
                    assert rewritten_otherwise(target, copy) == []


def assert_reads_in_shards(pipeline: Pipeline, state: StateStore) -> None:
    told: list[str] = []

    def tell(_: int, message: str) -> None:
        told.append(message)

    run(pipeline, state=state, on_log=tell)
    assert f"the table is read in {SHARDS} shards at once" in told
