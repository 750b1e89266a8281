"""Values that come as changes are those that a full refresh brings, whatever their type."""

from __future__ import annotations

import pytest

from tests.cdc.conftest import Replicate
from tests.pipelines import make_pipeline, run
from tests.roundtrip.builtin_types import FAMILIES
from tests.roundtrip.comparison import Table, assert_same
from tests.roundtrip.random_tables import TYPES, Generator, create
from tests.roundtrip.seed import SEED
from tests.roundtrip.tables import SHEETS


@pytest.mark.parametrize(
    "sheet", ["scalars", *(pytest.param(s, marks=pytest.mark.full) for s in SHEETS if s != "scalars")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_value_of_every_type_arrives_by_a_change(replicate: Replicate, family: str, sheet: str) -> None:
    replication = replicate("items")
    SHEETS[sheet](FAMILIES[family]).create(replication.source, "items")
    # The rows go, and come back as changes; half of them as updates of rows of NULLs would, by way of their keys.
    replication.source.execute("CREATE TABLE kept AS TABLE items; DELETE FROM items")
    replication.catch_up()
    replication.source.execute("INSERT INTO items TABLE kept")
    replication.catch_up()
    replication.assert_mirrors()
    replication.source.execute(
        "UPDATE items SET n = -1 - n; DELETE FROM items WHERE n % 2 = 0; "
        "INSERT INTO items SELECT * FROM kept WHERE n % 2 = 1"
    )
    replication.catch_up()
    replication.assert_mirrors()


@pytest.mark.parametrize(
    "family", [*list(FAMILIES)[:1], *(pytest.param(f, marks=pytest.mark.full) for f in list(FAMILIES)[1:])]
)
def test_a_row_is_found_by_all_that_it_holds_whatever_its_types(replicate: Replicate, family: str) -> None:
    replication = replicate("items")
    SHEETS["scalars"](FAMILIES[family]).create(replication.source, "items")
    replication.source.execute("ALTER TABLE items DROP CONSTRAINT items_pkey, REPLICA IDENTITY FULL")
    replication.catch_up()
    replication.source.execute("UPDATE items SET n = n + 1000 WHERE n % 2 = 0; DELETE FROM items WHERE n % 3 = 0")
    replication.catch_up()
    assert_same(
        Table(replication.source, "public", "items"), Table(replication.destination, "raw", "items"), keyed=False
    )


@pytest.mark.parametrize("number", [0, 1, *(pytest.param(n, marks=pytest.mark.full) for n in range(2, 12))])
def test_a_random_table_that_changes_is_what_a_full_refresh_brings(replicate: Replicate, number: int) -> None:
    print(f"RAPIDBYTE_TEST_SEED={SEED}")  # noqa: T201  shown when it fails
    generator = Generator(f"{SEED}/{number}")
    chosen = generator.random
    replication = replicate(
        "items", sections={"resources": {"max_batch_bytes": chosen.choice([1, 1000, 65536, 2**24])}}
    )
    for database in (replication.source, replication.destination):
        database.execute(TYPES)
    columns = generator.columns(chosen.randint(1, 20), narrow=False)
    create(replication.source, "items", columns, 300, key=True)
    replication.catch_up()
    names = [f'"{column.name.replace(chr(34), chr(34) * 2)}"' for column in columns]
    for _ in range(4):
        changed = chosen.sample(names, chosen.randint(1, len(names)))
        assignments = ", ".join(
            f"{name} = (SELECT o.{name} FROM items o WHERE o.n = 301 - items.n)" for name in changed
        )
        replication.source.execute(f"UPDATE items SET {assignments} WHERE n BETWEEN 1 AND 300 AND n / 3 * 3 = n")
        replication.source.execute(
            "UPDATE items SET n = n + 1000 WHERE n BETWEEN 5 AND 15; DELETE FROM items WHERE n BETWEEN 20 AND 25"
        )
    replication.catch_up()
    replication.assert_mirrors()
    pipeline = make_pipeline(
        replication.folder,
        replication.source,
        replication.destination,
        [{"name": "items", "table": "refreshed"}],
        name="refreshed",
        write_mode="replace",
    )
    run(pipeline)
    assert_same(Table(replication.destination, "raw", "refreshed"), Table(replication.destination, "raw", "items"))
