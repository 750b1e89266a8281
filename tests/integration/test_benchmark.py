"""The benchmark runs, and notices when something else arrives than was sent."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import events
from benchmarks.destination import Destination
from benchmarks.engine import engine
from benchmarks.measured import CommandFailed, measure
from benchmarks.scenario import Scenario
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.incremental import INCREMENTAL
from benchmarks.session import run_rounds, started_server
from benchmarks.way import DESTINATION, Way, url
from demo.embedded_postgres import EmbeddedPostgres
from demo.embedded_postgres.server import USER
from tests.postgres_server import Database

ROOT = Path(__file__).parents[2]
MEGABYTE = 1024 * 1024


PEERS = [
    pytest.param(scenario.name, way, id=f"{scenario.name}-{way.name}")
    for scenario in SCENARIOS
    for way in scenario.ways
    if way.needs
]

# The others are made alike.
QUICK = ("refresh",)
SESSIONS = [
    pytest.param(scenario, id=scenario.name, marks=[] if scenario.name in QUICK else [pytest.mark.full])
    for scenario in SCENARIOS
]


def run_benchmark(scenario: str, ways: Iterable[str]) -> subprocess.CompletedProcess[str]:
    words = ["--scenario", scenario, *(word for way in ways for word in ("--way", way))]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            "--rows",
            "3000",
            "--rounds",
            "1",
            "--no-definitions",
            "--no-save",
            *words,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("scenario", SESSIONS)
def test_a_small_session_of_the_engine_and_by_hand_moves_equal_content(scenario: Scenario) -> None:
    names = [way.name for way in scenario.ways if not way.needs]
    done = run_benchmark(scenario.name, names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == len(names)


@pytest.mark.parametrize(("scenario", "way"), PEERS)
def test_a_peer_that_is_installed_moves_equal_content(scenario: str, way: Way) -> None:
    if way.missing:
        pytest.skip(f"not installed: {', '.join(way.missing)}")
    done = run_benchmark(scenario, [way.name])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == 1


def test_every_run_finds_the_destination_and_the_folder_as_the_first_one_left_them(tmp_path: Path) -> None:
    def leave_a_file(server: EmbeddedPostgres, folder: Path) -> list[str]:
        create = ["--command", "create table raw.events (id bigint)", "--command", "insert into raw.events values (1)"]
        psql = shlex.join([server.installation.program("psql"), url(server, DESTINATION), *create])
        return ["/bin/sh", "-c", f"{psql} && touch kept"]

    way = Way("continuing", "one that continues", leave_a_file, "continued")
    with started_server() as server:
        destination = Destination(server, tmp_path, primary_key=True)
        destination.keep(way)
        for _ in range(2):
            folder = destination.restore(way)
            assert [file.name for file in folder.iterdir()] == ["kept"]
            (folder / "of this run").touch()
            with server.connect(DESTINATION, user=USER) as connection:
                assert connection.execute("select id from raw.events").fetchall() == [(1,)]
                connection.execute("drop table raw.events")


def test_a_way_that_moves_other_rows_than_the_scenario_says_fails_although_the_content_is_equal() -> None:
    everything = replace(INCREMENTAL, ways=(engine("again", "all again", write_mode="replace", before="absent"),))
    with started_server() as server:
        [series] = run_rounds(server, everything, everything.ways, rows=100, rounds=1, primary_key=True, say=print)
    assert series.failure == "it moved 100 rows, and not 10"


def test_every_second_row_changes_and_the_source_keeps_its_order(source_db: Database) -> None:
    with source_db.connect() as connection:
        events.create(connection, "events", primary_key=True)
        events.seed(connection, 1000)
        connection.execute("create table before as select * from events")
        events.change_every_second(connection)
        changed = "select id from events e join before b using (id) where (e.*) is distinct from (b.*) order by id"
        assert connection.execute(changed).fetchall() == [(number,) for number in range(2, 1001, 2)]
        assert connection.execute("select id from events").fetchall() == [(number,) for number in range(1, 1001)]


def test_the_content_hash_ignores_the_order_and_notices_one_changed_value(source_db: Database) -> None:
    with source_db.connect() as connection:
        events.create(connection, "events", primary_key=False)
        events.seed(connection, 1000)
        before = events.content(connection, "events")
        connection.execute("create table shuffled as select * from events order by token")
        assert events.content(connection, "shuffled") == before
        connection.execute("update shuffled set remark = '' where remark is null and id = 10")
        assert events.content(connection, "shuffled") != before


def test_a_process_is_measured_without_the_memory_of_the_one_that_started_it(tmp_path: Path) -> None:
    ours = bytearray(300 * MEGABYTE)
    measured = measure(["/bin/sh", "-c", "echo done"], environment={}, folder=tmp_path)
    assert len(ours) > measured.peak_rss_bytes
    assert measured.peak_rss_bytes < 50 * MEGABYTE
    assert measured.output == "done\n"


def test_a_command_that_fails_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no such thing"):
        measure(["/bin/sh", "-c", "echo no such thing >&2; exit 3"], environment={}, folder=tmp_path)
