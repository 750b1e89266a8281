"""Where a run is struck: before and after every durable step, and between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.recovery.cells import Cell
from tests.recovery.proxy import Moment, When
from tests.recovery.worker import StateCrash

WATERMARK = r'INSERT INTO "\w+"\."_rapidbyte_watermarks"'

FINAL = 0
"""Stands for the number of the run's last commit."""


@dataclass(frozen=True)
class Failpoint:
    """Exactly one of `destination`, `source`, `store` (moments on the wire) and `state` is given.

    Args:
        nth: of several commits, the one meant: 1, 2 or `FINAL`; None where that makes no difference.
        committed: whether the commit is in the destination by then; None where the failpoint is not about one.
        ended: the run had written down its end: what comes next is another run, and not the same one again.
    """

    name: str
    destination: Moment | None = None
    source: Moment | None = None
    state: StateCrash | None = None
    store: Moment | None = None
    """Of a state store in PostgreSQL."""
    nth: int | None = None
    committed: bool | None = None
    ended: bool = False
    label: str = ""
    """Which of several commits, in words."""

    def __str__(self) -> str:
        return f"{self.name} ({self.label})" if self.label else self.name

    def of_commits(self, count: int) -> Failpoint:
        """With `FINAL` resolved for a run that makes `count` commits."""
        if self.nth is None:
            return self
        nth = count if self.nth == FINAL else self.nth
        assert nth <= count, f"a run of {count} commits has no number {nth}"
        return replace(
            self,
            nth=nth,
            destination=replace(self.destination, nth=nth) if self.destination else None,
            state=replace(self.state, nth=nth) if self.state else None,
        )


ONCE: tuple[Failpoint, ...] = (
    Failpoint("before the start is recorded", state=StateCrash("record_run", "before")),
    Failpoint("after the start is recorded", state=StateCrash("record_run", "after")),
    Failpoint("before reconcile", state=StateCrash("reconcile", "before")),
    Failpoint("after reconcile", state=StateCrash("reconcile", "after")),
    Failpoint("source begins", source=Moment("^BEGIN", "answered")),
    Failpoint("batch read", source=Moment(copied=300_000)),
    Failpoint("first batch sent", destination=Moment(copied=1)),
    Failpoint("batches sent", destination=Moment(copied=600_000)),
    Failpoint("before the end is recorded", state=StateCrash("record_run", "before", nth=2)),
    Failpoint("after the end is recorded", state=StateCrash("record_run", "after", nth=2), ended=True),
    Failpoint("before the schema is recorded", state=StateCrash("record_schema", "before"), ended=True),
)


def commit(when: When) -> Moment:
    """Of a transaction that holds rows and their watermark."""
    return Moment("^COMMIT", when, within=WATERMARK)


PER_COMMIT: tuple[Failpoint, ...] = (
    Failpoint("before prepare", state=StateCrash("prepare", "before"), committed=False),
    Failpoint("after prepare", state=StateCrash("prepare", "after"), committed=False),
    Failpoint("before the watermark", destination=Moment(WATERMARK, "arrives"), committed=False),
    Failpoint("after the watermark", destination=Moment(WATERMARK, "answered"), committed=False),
    Failpoint("COMMIT sent, never arrived", destination=commit("arrives"), committed=False),
    Failpoint("COMMIT done, not acknowledged", destination=commit("answered"), committed=True),
    Failpoint("COMMIT acknowledged", destination=commit("relayed"), committed=True),
    Failpoint("before finalise", state=StateCrash("finalise", "before"), committed=True),
    Failpoint("after finalise", state=StateCrash("finalise", "after"), committed=True),
)


# What shards commit is no checkpoint: nothing of it may count.
STAGING = r"CREATE .*TABLE .*_rapidbyte_shards_"
LEDGER = r"INSERT INTO .*_rapidbyte_shards_"

PER_SHARD: tuple[Failpoint, ...] = (
    Failpoint("staging not committed", destination=Moment("^COMMIT", within=STAGING)),
    Failpoint("staging committed", destination=Moment("^COMMIT", "answered", within=STAGING)),
    Failpoint("first shard not committed", destination=Moment("^COMMIT", within=LEDGER)),
    Failpoint("first shard committed", destination=Moment("^COMMIT", "answered", within=LEDGER)),
    Failpoint("last shard not committed", destination=Moment("^COMMIT", nth=2, within=LEDGER)),
    Failpoint("last shard committed", destination=Moment("^COMMIT", "answered", nth=2, within=LEDGER)),
    Failpoint("snapshot exported", source=Moment("pg_export_snapshot", "answered")),
    Failpoint("snapshot imported", source=Moment("SET TRANSACTION SNAPSHOT", "answered", nth=2)),
)


LETTERS = r'^INSERT INTO "?_rapidbyte_dlq"?'

PER_LETTERS: tuple[Failpoint, ...] = (
    Failpoint("before the dead letters", state=StateCrash("add_dead_letters", "before")),
    Failpoint("after the dead letters", state=StateCrash("add_dead_letters", "after")),
    Failpoint("row refused", destination=Moment("^ROLLBACK TO SAVEPOINT rapidbyte_rows")),
    Failpoint("row undone", destination=Moment("^ROLLBACK TO SAVEPOINT rapidbyte_rows", "answered")),
    Failpoint("range kept", destination=Moment("^RELEASE SAVEPOINT rapidbyte_rows", "answered", nth=2)),
)
LATER_LETTERS: tuple[Failpoint, ...] = (
    Failpoint("before more dead letters", state=StateCrash("add_dead_letters", "before", nth=2)),
    Failpoint("after more dead letters", state=StateCrash("add_dead_letters", "after", nth=2)),
)
"""Where a run tells of them more than once."""

IN_STORE: tuple[Failpoint, ...] = (
    Failpoint("dead letters not inserted", store=Moment(LETTERS)),
    Failpoint("dead letters inserted", store=Moment(LETTERS, "answered")),
    Failpoint("dead letters' COMMIT sent, never arrived", store=Moment("^COMMIT", within=LETTERS)),
    Failpoint("dead letters' COMMIT done, not acknowledged", store=Moment("^COMMIT", "answered", within=LETTERS)),
)
"""Where the state store is in PostgreSQL."""


def failpoints_of_letters(cell: Cell) -> list[Failpoint]:
    """Those that only a cell with rows that are left out has."""
    several = cell.commits_on_the_way or cell.write_mode == "append"
    return [*PER_LETTERS, *(LATER_LETTERS if several else ())]


def failpoints_of(cell: Cell) -> list[Failpoint]:
    """All that the cell has; those of a commit for its first, second and last one where it makes several."""
    per_commit = list(PER_COMMIT)
    if cell.publishes is not None:
        per_commit += [
            Failpoint("before the publication", destination=Moment(cell.publishes, "arrives"), committed=False),
            Failpoint("after the publication", destination=Moment(cell.publishes, "answered"), committed=False),
        ]
    once = [*ONCE, *PER_SHARD] if cell.is_sharded else ONCE
    chosen = {"commit 1": 1, "commit 2": 2, "last commit": FINAL} if cell.commits_on_the_way else {"": FINAL}
    return [
        *once,
        *(replace(failpoint, nth=nth, label=label) for failpoint in per_commit for label, nth in chosen.items()),
    ]
