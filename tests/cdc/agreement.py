"""Whether the destination agrees with the source about the tables of `tables.py`."""

from __future__ import annotations

from collections.abc import Mapping

from tests.cdc.history import assert_tells_everything_once
from tests.cdc.replication import Replication

WITHOUT_PRIMARY_KEY = {"tags": "label", "notes": "body"}


def assert_follows(replication: Replication, *, audited: bool) -> None:
    """Tables of upserts hold what the source's do, and histories tell how it came to be.

    audited: all of it is in the source's `audit`, since the streams began with empty tables.
    """
    for one in replication.streams:
        stream: Mapping[str, object] = {"name": one} if isinstance(one, str) else one
        name, write_mode = str(stream["name"]), stream.get("write_mode", replication.write_mode)
        if write_mode == "upsert" and name not in WITHOUT_PRIMARY_KEY:
            replication.assert_mirrors(name)
        elif write_mode == "upsert":
            columns = f"id, version, {WITHOUT_PRIMARY_KEY[name]}"
            expected = replication.source.fetch(f"SELECT {columns} FROM {name} ORDER BY 1, 2, 3")
            found = replication.rows(name, columns, "1, 2, 3")
            assert found == expected, sorted(set(found) ^ set(expected), key=str)[:10]
        elif name != "notes":
            assert_tells_everything_once(
                replication.source, replication.destination, name, replication.table(name), audited=audited
            )
