"""Connections that break while the process lives: the run notices, tries again, and nothing is lost or repeated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import RapidbyteError
from tests.cdc.conftest import Interrupt
from tests.cdc.interruption import CATCH_UP, FIRST_RUN, Interrupted, commit
from tests.mortal_server import crash, restart
from tests.postgres_server import Database
from tests.recovery.failpoints import Failpoint
from tests.recovery.proxy import Moment, Proxy

QUICK = {"rows of the snapshot", "changes read"}


def each(*failpoints: Failpoint) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "failpoint",
        [
            pytest.param(failpoint, id=failpoint.name, marks=[] if failpoint.name in QUICK else [pytest.mark.full])
            for failpoint in failpoints
            if failpoint.state is None
        ],
    )


@each(*FIRST_RUN)
def test_a_first_run_whose_connection_is_cut_tries_again(interrupt: Interrupt, failpoint: Failpoint) -> None:
    interrupted = interrupt(max_retries=4)
    interrupted.write_rows()
    proxy = interrupted.arm(failpoint)
    results = interrupted.replication.catch_up()
    assert proxy.struck.is_set(), proxy.statements
    assert max(result.attempts for result in results.values()) == 2
    interrupted.write_changes(20)
    interrupted.replication.catch_up()
    interrupted.assert_recovered(audited=False)


@each(*CATCH_UP)
def test_a_catch_up_whose_connection_is_cut_goes_on_where_it_was(interrupt: Interrupt, failpoint: Failpoint) -> None:
    interrupted = interrupt(max_retries=4)
    interrupted.replication.catch_up()
    interrupted.write_rows()
    interrupted.write_changes()
    proxy = interrupted.arm(failpoint)
    results = interrupted.replication.catch_up()
    assert proxy.struck.is_set(), proxy.statements
    attempts = max(result.attempts for result in results.values())
    late = "confirmed" in failpoint.name or failpoint.name == "COMMIT acknowledged"
    assert attempts in ((1, 2) if late else (2,))
    interrupted.assert_recovered()


@pytest.mark.full
@pytest.mark.parametrize("backend", ["walsender", pytest.param("client backend", marks=pytest.mark.full)])
def test_a_backend_that_is_terminated_is_followed_by_another(interrupt: Interrupt, backend: str) -> None:
    interrupted = interrupt(max_retries=4)
    interrupted.replication.catch_up()
    interrupted.write_rows()
    interrupted.write_changes()
    database, proxy = (
        (interrupted.replication.source, interrupted.source_proxy)
        if backend == "walsender"
        else (interrupted.replication.destination, interrupted.destination_proxy)
    )
    terminated: list[tuple[object, ...]] = []

    def terminate() -> None:
        terminated.extend(
            database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                f" AND application_name LIKE 'rapidbyte%%' AND backend_type = '{backend}'",
                superuser=True,
            )
        )

    proxy.arm(Moment(copied=20_000), terminate, cuts=False)
    results = interrupted.replication.catch_up()
    assert (True,) in terminated
    assert max(result.attempts for result in results.values()) == 2
    interrupted.assert_recovered()


def test_a_destination_that_stays_away_fails_the_run_and_the_next_one_applies_everything_once(
    interrupt: Interrupt,
) -> None:
    """Every attempt is spent after a COMMIT of which nobody heard; later the destination is back."""
    interrupted = interrupt(max_retries=1)
    interrupted.replication.catch_up()
    interrupted.write_rows()
    interrupted.write_changes()
    proxy = interrupted.destination_proxy

    def go_away() -> None:
        proxy.refuses = True

    proxy.arm(commit("answered"), go_away)
    with pytest.raises(RapidbyteError):
        interrupted.replication.catch_up()
    proxy.refuses = False
    interrupted.replication.catch_up()
    interrupted.assert_recovered()


@pytest.mark.full
def test_a_source_that_stays_away_fails_the_run_and_the_next_one_goes_on(interrupt: Interrupt) -> None:
    interrupted = interrupt(max_retries=1)
    interrupted.replication.catch_up()
    interrupted.write_rows()
    proxy = interrupted.source_proxy

    def go_away() -> None:
        proxy.refuses = True

    proxy.arm(Moment(copied=1), go_away)
    with pytest.raises(RapidbyteError):
        interrupted.replication.catch_up()
    proxy.refuses = False
    interrupted.replication.catch_up()
    interrupted.assert_recovered()


@pytest.mark.parametrize(
    ("side", "moment", "how"),
    [
        pytest.param("source", Moment(copied=40_000), crash, id="crash while changes are read", marks=pytest.mark.full),
        pytest.param("destination", commit("answered"), crash, id="crash after COMMIT"),
        pytest.param(
            "destination", commit("arrives", 2), restart, id="restart before COMMIT 2", marks=pytest.mark.full
        ),
        pytest.param("source", Moment("^STANDBY STATUS", nth=2), crash, id="crash at a status", marks=pytest.mark.full),
    ],
)
def test_a_server_that_restarts_in_the_middle_of_a_run_is_waited_for(
    tmp_path: Path, mortal_server: EmbeddedPostgres, side: str, moment: Moment, how: Callable[[EmbeddedPostgres], None]
) -> None:
    for name in ("source", "destination"):
        mortal_server.create_database(name)
    source, destination = Database(mortal_server, "source"), Database(mortal_server, "destination")
    with Proxy(source) as source_proxy, Proxy(destination) as destination_proxy:
        interrupted = Interrupted.make(tmp_path, source, destination, source_proxy, destination_proxy, max_retries=10)
        interrupted.replication.catch_up()
        interrupted.write_rows()
        interrupted.write_changes()
        proxy = source_proxy if side == "source" else destination_proxy
        proxy.arm(moment, lambda: how(mortal_server))
        results = interrupted.replication.catch_up()
        assert proxy.struck.is_set()
        assert max(result.attempts for result in results.values()) >= 2
        interrupted.assert_recovered(crashed=how is crash)
