"""A process that dies anywhere loses nothing and repeats nothing: killed by SIGKILL, started again, compared.

Copies are compared with their tables, histories with what triggers wrote down of each change at the source.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from tests.cdc.conftest import Interrupt
from tests.cdc.interruption import CATCH_UP, FIRST_RUN
from tests.cdc.worker import start
from tests.cdc.writers import Writers
from tests.recovery.failpoints import Failpoint
from tests.roundtrip.seed import SEED

QUICK = {"second snapshot's COMMIT done, not acknowledged", "COMMIT done, not acknowledged", "after prepare"}


def each(failpoints: Sequence[Failpoint]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "failpoint",
        [
            pytest.param(failpoint, id=failpoint.name, marks=[] if failpoint.name in QUICK else [pytest.mark.full])
            for failpoint in failpoints
        ],
    )


@each(FIRST_RUN)
def test_a_killed_first_run_is_followed_by_one_that_has_every_row_once(
    interrupt: Interrupt, failpoint: Failpoint
) -> None:
    """Changes come before the kill and before the restart, so that what was snapshotted is not all that there is."""
    interrupted = interrupt()
    interrupted.write_rows()
    interrupted.kill_at(failpoint)
    interrupted.write_changes(20)
    interrupted.restart()
    interrupted.assert_recovered(audited=False)


@each(CATCH_UP)
def test_a_killed_catch_up_is_followed_by_one_that_applies_every_change_once(
    interrupt: Interrupt, failpoint: Failpoint
) -> None:
    interrupted = interrupt()
    interrupted.restart()
    interrupted.write_rows()
    interrupted.write_changes()
    interrupted.kill_at(failpoint)
    interrupted.restart()
    interrupted.assert_recovered()


@each([failpoint for failpoint in CATCH_UP if "COMMIT" in failpoint.name])
def test_a_killed_tail_is_followed_by_a_run_that_applies_every_change_once(
    interrupt: Interrupt, failpoint: Failpoint
) -> None:
    interrupted = interrupt()
    interrupted.restart()
    interrupted.write_rows()
    with Writers(
        interrupted.replication.source, SEED, tables=("accounts", "documents", "readings", "tags"), pause=0.0
    ) as writers:
        interrupted.kill_at(failpoint, tail_seconds=30)
        writers.wait_for(writers.committed + 20)
    interrupted.restart()
    interrupted.assert_recovered()


@pytest.mark.full
def test_processes_that_are_killed_at_random_one_after_the_other_lose_nothing(interrupt: Interrupt) -> None:
    """While writers are at work all the time."""
    print(f"RAPIDBYTE_TEST_SEED={SEED}")  # noqa: T201  shown when it fails
    chosen = random.Random(SEED)
    interrupted = interrupt()
    interrupted.restart()
    interrupted.write_rows()
    with Writers(
        interrupted.replication.source, SEED, tables=("accounts", "documents", "readings", "tags"), pause=0.0
    ) as writers:
        for _ in range(6):
            with start(interrupted.job(tail_seconds=30)) as worker:
                time.sleep(chosen.uniform(0.1, 0.9))
                worker.kill()
        writers.wait_for(writers.committed + 10)
    interrupted.restart()
    interrupted.assert_recovered()
