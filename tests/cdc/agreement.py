"""Whether the destination agrees with the source about the tables of `tables.py`."""

from __future__ import annotations

from tests.cdc.history import assert_tells_everything_once
from tests.cdc.replication import Replication
from tests.cdc.tables import KEYED


def assert_follows(replication: Replication, *, audited: bool) -> None:
    """The tables of `tables.py` hold what the source's do, or their histories tell how it came to be."""
    if replication.write_mode == "upsert":
        replication.assert_mirrors(*KEYED[:2], "readings")
        for table in ("tags", "notes"):
            rows = "SELECT id, version, {0} FROM {1}.{2} ORDER BY 1, 2, 3"
            value = "label" if table == "tags" else "body"
            assert replication.rows(table, f"id, version, {value}", "1, 2, 3") == replication.source.fetch(
                rows.format(value, "public", table)
            )
        return
    for table in KEYED:
        assert_tells_everything_once(
            replication.source, replication.destination, table, replication.table(table), audited=audited
        )
