"""Runs that are struck down: a pipeline through proxies, and the moments at which its process or a connection ends."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidbyte_dagster.state import open_state
from tests.cdc.agreement import assert_follows
from tests.cdc.replication import LANDING, PIPELINE, SLOT, Replication
from tests.cdc.tables import AUDIT, DEFINITIONS, ROWS
from tests.cdc.worker import Job, start, work
from tests.cdc.writers import Writers
from tests.postgres_server import Database
from tests.recovery.failpoints import WATERMARK, Failpoint
from tests.recovery.proxy import Moment, Proxy
from tests.recovery.trial import GOING_SECONDS, LEFTOVERS
from tests.recovery.worker import StateCrash, Worker
from tests.roundtrip.seed import SEED

STREAMS: Sequence[Mapping[str, Any]] = (
    {"name": "accounts"},
    {"name": "documents"},
    {"name": "readings"},
    {"name": "tags", "write_mode": "append"},
)
"""Copies and a history, committed together."""

RESOURCES = {"max_batch_bytes": "64kb", "checkpoint_interval_rows": 200, "parallelism": 2}
"""So that a run commits several times."""


def commit(when: Any, nth: int = 1) -> Moment:
    return Moment("^COMMIT", when, nth, within=WATERMARK)


FIRST_RUN: tuple[Failpoint, ...] = (
    Failpoint("publication made", source=Moment("CREATE PUBLICATION", "answered")),
    Failpoint("slot made", source=Moment("CREATE_REPLICATION_SLOT|pg_create_logical_replication_slot", "answered")),
    Failpoint("slot not recorded", state=StateCrash("record_slot", "before")),
    Failpoint("slot recorded", state=StateCrash("record_slot", "after")),
    Failpoint("snapshot taken", source=Moment("CREATE_REPLICATION_SLOT.*TEMPORARY", "answered")),
    Failpoint("snapshot imported", source=Moment("SET TRANSACTION SNAPSHOT", "answered")),
    Failpoint("first rows of the snapshot", destination=Moment(copied=1)),
    Failpoint("rows of the snapshot", destination=Moment(copied=100_000)),
    Failpoint("snapshot's COMMIT sent, never arrived", destination=commit("arrives")),
    Failpoint("snapshot's COMMIT done, not acknowledged", destination=commit("answered")),
    Failpoint("second snapshot's COMMIT sent, never arrived", destination=commit("arrives", 2)),
    Failpoint("second snapshot's COMMIT done, not acknowledged", destination=commit("answered", 2)),
    Failpoint("last snapshot's COMMIT done, not acknowledged", destination=commit("answered", len(STREAMS))),
    Failpoint("before a snapshot is finalised", state=StateCrash("finalise", "before")),
)

CATCH_UP: tuple[Failpoint, ...] = (
    Failpoint("replication starts", source=Moment("START_REPLICATION", "answered")),
    Failpoint("first changes read", source=Moment(copied=1)),
    Failpoint("changes read", source=Moment(copied=40_000)),
    Failpoint("changes written", destination=Moment(copied=20_000)),
    Failpoint("before prepare", state=StateCrash("prepare_together", "before")),
    Failpoint("after prepare", state=StateCrash("prepare_together", "after")),
    Failpoint("before the watermarks", destination=Moment(WATERMARK, "arrives")),
    Failpoint("after the watermarks", destination=Moment(WATERMARK, "answered")),
    Failpoint("COMMIT sent, never arrived", destination=commit("arrives")),
    Failpoint("COMMIT done, not acknowledged", destination=commit("answered")),
    Failpoint("COMMIT acknowledged", destination=commit("relayed")),
    Failpoint("before finalise", state=StateCrash("finalise_together", "before")),
    Failpoint("after finalise", state=StateCrash("finalise_together", "after")),
    Failpoint("second COMMIT sent, never arrived", destination=commit("arrives", 2)),
    Failpoint("second COMMIT done, not acknowledged", destination=commit("answered", 2)),
    Failpoint("before the second prepare", state=StateCrash("prepare_together", "before", 2)),
    Failpoint("after the second finalise", state=StateCrash("finalise_together", "after", 2)),
    Failpoint("first position confirmed", source=Moment("^STANDBY STATUS")),
    Failpoint("second position confirmed", source=Moment("^STANDBY STATUS", nth=2)),
)


@dataclass
class Interrupted:
    """A pipeline of `STREAMS` whose runs can be struck down."""

    replication: Replication
    source_proxy: Proxy
    destination_proxy: Proxy

    @classmethod
    def make(
        cls,
        folder: Path,
        source: Database,
        destination: Database,
        source_proxy: Proxy,
        destination_proxy: Proxy,
        **more: Any,
    ) -> Interrupted:
        source.execute(DEFINITIONS + AUDIT)
        replication = Replication(
            folder,
            source,
            destination,
            STREAMS,
            source_config=source_proxy.config(source),
            destination_config=destination_proxy.config(destination),
            sections={"resources": {**RESOURCES, "max_retries": 0, **more}},
        )
        return cls(replication, source_proxy, destination_proxy)

    def write_rows(self) -> None:
        self.replication.source.execute(ROWS)

    def write_changes(self, transactions: int = 60) -> None:
        with Writers(
            self.replication.source,
            f"{SEED}/{uuid.uuid4()}",
            tables=("accounts", "documents", "readings", "tags"),
            transactions=transactions,
            pause=0.0,
        ):
            pass

    def arm(self, failpoint: Failpoint, strike: Any = None) -> Proxy:
        if failpoint.source is not None:
            self.source_proxy.arm(failpoint.source, strike)
            return self.source_proxy
        if failpoint.destination is not None:
            self.destination_proxy.arm(failpoint.destination, strike)
        return self.destination_proxy

    def job(self, failpoint: Failpoint | None = None, tail_seconds: float | None = None) -> Job:
        crash = failpoint.state if failpoint is not None else None
        return Job(self.replication.write(), str(uuid.uuid4()), crash, tail_seconds)

    def kill_at(self, failpoint: Failpoint, tail_seconds: float | None = None) -> None:
        """A run that ends there by SIGKILL."""
        victims: list[Worker] = []
        started = threading.Event()

        def kill() -> None:
            started.wait(GOING_SECONDS)
            victims[0].kill()

        proxy = self.arm(failpoint, kill)
        with start(self.job(failpoint, tail_seconds)) as worker:
            victims.append(worker)
            started.set()
            report = worker.wait()
            assert worker.was_killed, f"never got to: {failpoint}; {report}\n{proxy.statements}"

    def restart(self) -> None:
        """A new process, which nobody kills; it must succeed."""
        work(self.job())

    def assert_recovered(self, *, audited: bool = True, crashed: bool = False) -> None:
        """Once more changes came and were caught up with, all is there once, and nothing is left behind.

        crashed: a server did, which drops temporary tables only when its autovacuum comes by.
        """
        assert_follows(self.replication, audited=audited)
        self.write_changes(10)
        self.replication.catch_up()
        assert_follows(self.replication, audited=audited)
        self.assert_settled(crashed=crashed)

    def assert_settled(self, *, crashed: bool = False) -> None:
        """State store, watermarks and slot tell the same; nothing is half done, nobody holds anything."""
        replication = self.replication
        sequences = dict(replication.destination.fetch(f"SELECT stream, sequence FROM {LANDING}._rapidbyte_watermarks"))
        with open_state(replication.pipeline, {}) as state:
            for stream in STREAMS:
                name = str(stream["name"])
                latest = state.latest_checkpoint(PIPELINE, name)
                assert latest is not None
                assert latest.sequence == sequences[name]
                assert latest.cursor == {**(latest.cursor or {}), "lsn": replication.position(name)}
                assert state.prepared_checkpoint(PIPELINE, name) is None
                assert not replication.is_behind(replication.position(name), replication.slot_position())
        slots = replication.source.fetch(
            "SELECT slot_name::text, active FROM pg_replication_slots WHERE database = current_database()"
        )
        assert slots == [(SLOT, False)]
        for database in (replication.source, replication.destination):
            deadline = time.monotonic() + GOING_SECONDS
            while left := [
                one for [one] in database.fetch(LEFTOVERS, superuser=True) if not (crashed and "temp" in one)
            ]:
                assert time.monotonic() < deadline, left
                time.sleep(0.05)
