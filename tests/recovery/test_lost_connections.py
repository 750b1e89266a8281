"""Connections that break while the process lives: the run notices, tries again, and nothing is lost or repeated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import DestinationError, Kind
from tests.mortal_server import crash, restart
from tests.postgres_server import Database
from tests.recovery import cells
from tests.recovery.cells import Cell
from tests.recovery.conftest import MakeTrial
from tests.recovery.failpoints import FINAL, WATERMARK, Failpoint
from tests.recovery.proxy import Moment, Proxy, When
from tests.recovery.selection import Case, each, half, with_quick_ones
from tests.recovery.trial import Trial
from tests.recovery.worker import Worker

RETRIES = {"max_retries": 6}

CUTS = (
    Failpoint("source begins", source=Moment("^BEGIN", "answered")),
    Failpoint("source's COPY", source=Moment(copied=300_000)),
    Failpoint("destination connects", destination=Moment("pg_advisory_lock", "answered")),
    Failpoint("destination's COPY", destination=Moment(copied=600_000)),
    Failpoint("after the watermark", destination=Moment(WATERMARK, "answered"), nth=FINAL),
    Failpoint("COMMIT sent, never arrived", destination=Moment("^COMMIT", within=WATERMARK), nth=FINAL),
    Failpoint("COMMIT done, not acknowledged", destination=Moment("^COMMIT", "answered", within=WATERMARK), nth=FINAL),
    Failpoint("COMMIT acknowledged", destination=Moment("^COMMIT", "relayed", within=WATERMARK), nth=FINAL),
)
IN_THE_MIDDLE = (
    Failpoint("first COMMIT sent, never arrived", destination=Moment("^COMMIT", within=WATERMARK)),
    Failpoint("first COMMIT done, not acknowledged", destination=Moment("^COMMIT", "answered", within=WATERMARK)),
)


CASES = with_quick_ones(
    Case(cell, cut) for cell in cells.ALL for cut in (*CUTS, *(IN_THE_MIDDLE if cell.commits_on_the_way else ()))
)


@each(half(CASES))
def test_a_run_whose_connection_is_cut_goes_on_from_its_last_checkpoint(
    make_trial: MakeTrial, cell: Cell, failpoint: Failpoint
) -> None:
    trial = make_trial(cell, resources=RETRIES)
    trial.prepare()
    calm = trial.run_undisturbed()
    result = trial.cut_at(failpoint.of_commits(trial.commits_of_last_run()))
    if failpoint.name == "COMMIT acknowledged":
        # All that counts has happened: whether a late cut is noticed is a matter of microseconds.
        assert result.attempts in (1, 2)
    else:
        assert (result.attempts, len(result.retried)) == (2, 1)
    assert result.rows == calm.rows
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()


@pytest.mark.parametrize(
    ("cell", "side"),
    [
        pytest.param(cells.FULL_APPEND, "source", marks=pytest.mark.full),
        pytest.param(cells.FULL_APPEND, "destination", marks=pytest.mark.full),
        (cells.FULL_REPLACE_SWAP, "destination"),
        pytest.param(cells.FULL_UPSERT, "destination", marks=pytest.mark.full),
        (cells.INCREMENTAL_APPEND, "source"),
        pytest.param(cells.INCREMENTAL_UPSERT, "destination", marks=pytest.mark.full),
    ],
    ids=str,
)
def test_a_backend_that_is_terminated_in_its_copy_is_followed_by_another(
    make_trial: MakeTrial, cell: Cell, side: str
) -> None:
    trial = make_trial(cell, resources=RETRIES)
    trial.prepare()
    trial.run_undisturbed()
    database, proxy = trial.side(side)
    terminated: list[tuple[object, ...]] = []

    def terminate() -> None:
        terminated.extend(
            database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'rapidbyte/%%' AND query LIKE 'COPY%%'",
                superuser=True,
            )
        )

    proxy.arm(Moment(copied=400_000), terminate, cuts=False)
    result = trial.run_interrupted()
    assert terminated == [(True,)]
    assert result.attempts == 2
    assert "terminat" in result.retried[0]
    trial.assert_equal()
    trial.assert_settled()


@pytest.mark.parametrize("when", [pytest.param("arrives", marks=pytest.mark.full), "answered"])
@pytest.mark.parametrize(
    ("statement", "within"),
    [
        pytest.param("INSERT INTO _rapidbyte_checkpoints", "", id="prepare", marks=pytest.mark.full),
        pytest.param("^COMMIT", "INSERT INTO _rapidbyte_checkpoints", id="prepare's COMMIT"),
        pytest.param("UPDATE _rapidbyte_checkpoints", "", id="finalise", marks=pytest.mark.full),
        pytest.param("^COMMIT", "UPDATE _rapidbyte_checkpoints", id="finalise's COMMIT"),
    ],
)
@pytest.mark.parametrize(
    "cell", [pytest.param(cells.FULL_APPEND, marks=pytest.mark.full), cells.INCREMENTAL_APPEND], ids=str
)
def test_a_connection_to_the_state_store_that_is_cut_is_made_again(
    make_trial: MakeTrial, cell: Cell, statement: str, within: str, when: When
) -> None:
    trial = make_trial(cell, state_in_postgres=True)
    trial.prepare()
    trial.run_undisturbed()
    assert trial.state_proxy is not None
    trial.state_proxy.arm(Moment(statement, when, within=within))
    result = trial.run_interrupted()
    assert trial.state_proxy.struck.is_set(), trial.state_proxy.statements
    assert result.attempts == 1
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()


@pytest.mark.parametrize(
    ("cell", "moment", "how"),
    [
        pytest.param(
            cells.FULL_APPEND, Moment(copied=400_000), crash, id="append: crash in COPY", marks=pytest.mark.full
        ),
        pytest.param(
            cells.FULL_APPEND,
            Moment("^COMMIT", "answered", within=WATERMARK),
            crash,
            id="append: crash after COMMIT",
        ),
        pytest.param(
            cells.FULL_REPLACE_SWAP,
            Moment(copied=400_000),
            restart,
            id="replace: restart in COPY",
            marks=pytest.mark.full,
        ),
        pytest.param(
            cells.INCREMENTAL_APPEND,
            Moment("^COMMIT", "answered", nth=2, within=WATERMARK),
            crash,
            id="incremental: crash after COMMIT 2",
            marks=pytest.mark.full,
        ),
        pytest.param(
            cells.INCREMENTAL_UPSERT,
            Moment("^COMMIT", nth=2, within=WATERMARK),
            restart,
            id="incremental upsert: restart before COMMIT 2",
        ),
    ],
)
def test_a_server_that_restarts_in_the_middle_of_a_run_is_waited_for(
    tmp_path: Path,
    mortal_server: EmbeddedPostgres,
    cell: Cell,
    moment: Moment,
    how: Callable[[EmbeddedPostgres], None],
) -> None:
    databases = []
    for name in ("source", "destination"):
        mortal_server.create_database(name)
        databases.append(Database(mortal_server, name))
    source, destination = databases
    with Proxy(source) as source_proxy, Proxy(destination) as destination_proxy:
        trial = Trial(
            tmp_path, source, destination, cell, source_proxy, destination_proxy, resources={"max_retries": 10}
        )
        trial.prepare()
        trial.run_undisturbed()
        destination_proxy.arm(moment, lambda: how(mortal_server))
        result = trial.run_interrupted()
        assert destination_proxy.struck.is_set()
        assert result.attempts >= 2
        trial.assert_equal()
        trial.assert_settled()


@pytest.mark.parametrize(
    "cell", [cells.FULL_APPEND, pytest.param(cells.INCREMENTAL_APPEND, marks=pytest.mark.full)], ids=str
)
def test_a_commit_that_reaches_the_server_after_the_restart_is_waited_for(make_trial: MakeTrial, cell: Cell) -> None:
    """The network holds a killed process's COMMIT back until its successor is at work."""
    trial = make_trial(cell)
    trial.prepare()
    trial.run_undisturbed()
    released = threading.Event()
    trial.destination_proxy.arm(Moment("^COMMIT", within=WATERMARK), lambda: released.wait(20), cuts=False)
    with Worker(trial.job()) as killed:
        assert trial.destination_proxy.striking.wait(20)
        killed.kill()
        killed.wait()
    with Worker(trial.job()) as successor:
        # Long enough to ask for the stream's lock, which the killed one's session has.
        trial.wait_for_lock()
        released.set()
        report = successor.wait()
    assert report.error is None
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()


@pytest.mark.full
def test_a_second_run_of_a_stream_fails_clearly_while_the_first_is_stuck(make_trial: MakeTrial) -> None:
    trial = make_trial(cells.FULL_APPEND)
    trial.prepare()
    trial.run_undisturbed()
    released = threading.Event()
    trial.destination_proxy.arm(Moment(copied=400_000), lambda: released.wait(30), cuts=False)
    with Worker(trial.job()) as first:
        assert trial.destination_proxy.striking.wait(20)
        with pytest.raises(DestinationError, match="another run is writing") as caught:
            trial.run_interrupted()
        assert caught.value.kind is Kind.RESOURCE
        released.set()
        assert first.wait().error is None
    trial.assert_equal()
    trial.assert_settled()


@pytest.mark.full
def test_a_stalled_connection_is_cut_by_the_connectors_time_limit(make_trial: MakeTrial) -> None:
    """A peer that says nothing any more must not hold a run for ever; what comes back then has lost nothing."""
    limits = {"limits": {"timeout_seconds": 2}}
    trial = make_trial(cells.FULL_APPEND, sections={"destination_section": limits})
    trial.prepare()
    trial.run_undisturbed()
    released = threading.Event()
    trial.destination_proxy.arm(Moment("^COMMIT", within=WATERMARK), lambda: released.wait(30))
    started = time.monotonic()
    with pytest.raises(DestinationError) as caught:
        trial.run_interrupted()
    assert caught.value.kind is Kind.TIMEOUT
    assert time.monotonic() - started < 6
    released.set()
    trial.restart()
    trial.assert_equal()
    trial.assert_settled()


def test_a_destination_that_stays_away_fails_the_run_and_the_next_one_settles_it(make_trial: MakeTrial) -> None:
    """Every attempt is spent after a COMMIT of which nobody heard; days later the destination is back."""
    trial = make_trial(cells.FULL_APPEND, resources={"max_retries": 1})
    trial.prepare()
    trial.run_undisturbed()
    proxy = trial.destination_proxy

    def go_away() -> None:
        proxy.refuses = True

    proxy.arm(Moment("^COMMIT", "answered", within=WATERMARK), go_away)
    with pytest.raises(DestinationError, match="may be in the table"):
        trial.run_interrupted()
    proxy.refuses = False
    trial.restart()
    trial.assert_equal()
    trial.assert_settled()
    trial.run_later()
