"""Lets PostgreSQL's own subscription catch up: `python -m benchmarks.capture.subscription` with the five words below.

DSN is the destination's, SOURCE the connection string that the subscription gets. Prints the seconds from its start
until the row LAST_ID is visible, and how many transactions it has applied since. The subscription is gone afterwards,
its slot is not.
"""

from __future__ import annotations

import json
import sys
import time

import psycopg
from psycopg import sql

from benchmarks.capture.changes import NAME

POLL_SECONDS = 0.005
LONGEST_SECONDS = 1800.0


def main(dsn: str, source: str, slot: str, last_id: str, options: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        started = time.perf_counter()
        connection.execute(
            sql.SQL(
                "create subscription bench connection {} publication bench"
                " with (create_slot = false, copy_data = false, slot_name = {}" + options + ")"
            ).format(sql.Literal(source), sql.Literal(slot))
        )
        arrived = sql.SQL("select from {} where id = {}").format(sql.Identifier(NAME), sql.Literal(int(last_id)))
        while connection.execute(arrived).fetchone() is None:
            if time.perf_counter() - started > LONGEST_SECONDS:
                sys.exit("the subscription does not catch up")
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - started
        connection.execute("alter subscription bench disable")
        connection.execute("alter subscription bench set (slot_name = none)")
        connection.execute("drop subscription bench")
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
