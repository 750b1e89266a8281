"""Slots, positions and what is said when changes are gone: nothing is skipped in silence."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from demo.embedded_postgres import EmbeddedPostgres
from rapidbyte_dagster.errors import RapidbyteError
from tests.cdc.conftest import Replicate
from tests.cdc.replication import SLOT, Replication, wait_until
from tests.cdc.worker import Job, start
from tests.integration.cli.command import rapidbyte
from tests.postgres_server import Database

ITEMS = "CREATE TABLE items (id int PRIMARY KEY, n int); CREATE TABLE others (id int PRIMARY KEY);"


@pytest.fixture
def replication(replicate: Replicate) -> Replication:
    """`items` and `others`, which were snapshotted."""
    replication = replicate("items", "others")
    replication.source.execute(ITEMS + "INSERT INTO items SELECT i, i FROM generate_series(1, 5) i")
    replication.catch_up()
    return replication


def refusals(replication: Replication) -> list[str]:
    """What is said of each stream that could not go on, or of the whole run."""
    try:
        outcomes = replication.run().streams.values()
    except RapidbyteError as error:
        return [f"{error} {error.hint}"]
    return [f"{outcome} {outcome.hint}" for outcome in outcomes if isinstance(outcome, RapidbyteError)]


def assert_says_that_changes_are_lost_and_recovers(replication: Replication, what: str = SLOT) -> None:
    """Not once: until somebody asks for a new snapshot. `what` is named as the reason."""
    for _ in range(2):
        told = refusals(replication)
        assert told != []
        assert all("--full-refresh" in one for one in told), told
        assert any(what in one for one in told), told
    replication.catch_up(full_refresh=["items", "others"])
    replication.assert_mirrors()
    replication.source.execute("INSERT INTO items VALUES (1000, 0); INSERT INTO others VALUES (1000)")
    replication.catch_up()
    replication.assert_mirrors()


def test_the_slot_never_passes_what_the_destination_has(replication: Replication) -> None:
    for number in range(3):
        replication.source.execute(f"INSERT INTO items VALUES ({10 + number}, 0)")
        replication.catch_up()
        for stream in ("items", "others"):
            assert not replication.is_behind(replication.position(stream), replication.slot_position())
    replication.assert_mirrors()


def test_a_position_never_goes_back(replication: Replication) -> None:
    last = replication.position("items")
    for sql in ("INSERT INTO items VALUES (10, 0)", "SELECT 1", "INSERT INTO others VALUES (1)"):
        replication.source.execute(sql)
        replication.catch_up()
        now = replication.position("items")
        assert not replication.is_behind(now, last)
        last = now


def test_a_slot_whose_tables_are_idle_moves_on_with_the_traffic_of_others(replication: Replication) -> None:
    """Otherwise the server would keep the log of all its databases for nothing."""
    replication.source.execute("CREATE TABLE elsewhere AS SELECT generate_series(1, 100000) i")
    before = replication.source.fetch_value("SELECT pg_current_wal_lsn()::text")
    replication.catch_up()
    assert not replication.is_behind(replication.slot_position(), before)
    assert not replication.is_behind(replication.position("items"), before)


def test_a_slot_that_was_dropped_is_told_until_a_new_snapshot_is_asked_for(replication: Replication) -> None:
    replication.source.execute(f"SELECT pg_drop_replication_slot('{SLOT}'); INSERT INTO items VALUES (6, 6)")
    assert_says_that_changes_are_lost_and_recovers(replication)


def test_a_slot_that_was_made_again_is_told_until_a_new_snapshot_is_asked_for(replication: Replication) -> None:
    replication.source.execute(f"SELECT pg_drop_replication_slot('{SLOT}')")
    replication.source.execute("INSERT INTO items VALUES (6, 6); DELETE FROM items WHERE id = 1")
    replication.source.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    assert_says_that_changes_are_lost_and_recovers(replication)


def test_changes_that_somebody_else_took_from_the_slot_are_told(replication: Replication) -> None:
    replication.source.execute("INSERT INTO items VALUES (6, 6)")
    replication.source.execute(f"SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())")
    assert_says_that_changes_are_lost_and_recovers(replication)


def test_a_table_that_left_the_publication_for_a_while_is_told(replication: Replication) -> None:
    """Changes from before it came back are nowhere."""
    replication.source.execute(f"ALTER PUBLICATION {SLOT} DROP TABLE items")
    replication.source.execute("INSERT INTO items VALUES (6, 6)")
    told = refusals(replication)
    if told:
        assert any("--full-refresh" in one and "items" in one for one in told), told
        replication.catch_up(full_refresh=["items"])
    replication.assert_mirrors()


def test_a_table_that_was_made_again_is_told(replication: Replication) -> None:
    """The new one has the old one's name and nothing else of it: it is not in the publication, either."""
    replication.source.execute("DROP TABLE items; CREATE TABLE items (id int PRIMARY KEY, n int)")
    replication.source.execute("INSERT INTO items VALUES (2, 22), (7, 7)")
    told = refusals(replication)
    if told:
        assert any("--full-refresh" in one and "items" in one for one in told), told
        replication.catch_up(full_refresh=["items"])
    replication.assert_mirrors()


def test_a_publication_that_was_dropped_is_told(replication: Replication) -> None:
    replication.source.execute(f"DROP PUBLICATION {SLOT}")
    replication.source.execute("INSERT INTO items VALUES (6, 6)")
    told = refusals(replication)
    if told:
        assert any("--full-refresh" in one for one in told), told
        replication.catch_up(full_refresh=["items", "others"])
    replication.assert_mirrors()
    replication.source.execute("INSERT INTO items VALUES (8, 8)")
    replication.catch_up()
    replication.assert_mirrors()


@pytest.mark.full
def test_a_slot_that_another_consumer_holds_is_told_with_who_it_is(replication: Replication) -> None:
    replication.sections = {"resources": {"max_retries": 0}}
    # It confirms nothing, and so takes nothing away.
    holder = psycopg.pq.PGconn.connect(f"{replication.source.dsn} replication=database".encode())
    try:
        options = f"proto_version '1', publication_names '{SLOT}'"
        started = holder.exec_(f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 ({options})".encode())
        assert started.status == psycopg.pq.ExecStatus.COPY_BOTH
        told = refusals(replication)
        assert any(SLOT in one and str(holder.backend_pid) in one for one in told), told
    finally:
        holder.finish()
    replication.wait_until(f"SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{SLOT}'")
    replication.source.execute("INSERT INTO items VALUES (6, 6)")
    replication.catch_up()
    replication.assert_mirrors()


@pytest.mark.full
def test_a_second_run_at_the_same_time_fails_clearly_and_the_first_goes_on(replication: Replication) -> None:
    replication.sections = {"resources": {"max_retries": 0}}
    with start(Job(replication.write(), "first", tail_seconds=60)) as first:
        replication.wait_until("SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND NOT temporary")
        replication.source.execute("INSERT INTO items VALUES (6, 6)")
        wait_until(lambda: len(replication.rows("items")) == 6, "the first run applies")
        told = refusals(replication)
        assert any("another run" in one or "active" in one for one in told), told
        replication.source.execute("INSERT INTO items VALUES (7, 7)")
        wait_until(lambda: len(replication.rows("items")) == 7, "the first run goes on")
        first.kill()
    replication.catch_up()
    replication.assert_mirrors()


def test_a_slot_of_another_kind_is_left_alone_and_told(replicate: Replicate) -> None:
    replication = replicate("items", "others")
    replication.source.execute(ITEMS)
    replication.source.execute(f"SELECT pg_create_physical_replication_slot('{SLOT}')")
    try:
        told = refusals(replication)
        assert any(SLOT in one for one in told), told
        kept = replication.source.fetch("SELECT slot_type FROM pg_replication_slots WHERE slot_name = %s", [SLOT])
        assert kept == [("physical",)]
    finally:
        replication.source.execute(f"SELECT pg_drop_replication_slot('{SLOT}')")


def test_state_that_was_deleted_is_found_again_at_the_destination(replication: Replication) -> None:
    replication.source.execute("INSERT INTO items VALUES (6, 6)")
    for file in (replication.folder / ".rapidbyte").iterdir():
        file.unlink()
    results = replication.catch_up()
    assert results["items"].rows == 1
    replication.assert_mirrors()


def test_a_destination_that_was_restored_from_a_backup_says_that_changes_are_missing(replication: Replication) -> None:
    tables = ("items", "others", "_rapidbyte_watermarks")
    for table in tables:
        replication.destination.execute(f"CREATE TABLE public.kept_{table} AS TABLE raw.{table}")
    replication.source.execute("INSERT INTO items VALUES (6, 6)")
    replication.catch_up()
    replication.destination.execute(
        ";".join(f"TRUNCATE raw.{t}; INSERT INTO raw.{t} TABLE public.kept_{t}" for t in tables)
    )
    replication.source.execute("INSERT INTO items VALUES (7, 7)")
    assert_says_that_changes_are_lost_and_recovers(replication)


def test_a_table_that_was_dropped_by_hand_is_never_continued_in_silence(replication: Replication) -> None:
    replication.destination.execute("DROP TABLE raw.items")
    replication.source.execute("INSERT INTO items VALUES (6, 6); INSERT INTO others VALUES (6)")
    told = refusals(replication)
    assert any("items" in one for one in told), told
    replication.assert_mirrors("others")
    replication.catch_up(full_refresh=["items"])
    replication.assert_mirrors()


def test_a_history_whose_watermark_is_gone_is_not_begun_a_second_time(replicate: Replicate) -> None:
    replication = replicate("items", write_mode="append")
    replication.source.execute(ITEMS + "INSERT INTO items VALUES (1, 1)")
    replication.catch_up()
    replication.destination.execute("TRUNCATE raw._rapidbyte_watermarks")
    told = refusals(replication)
    assert told != []
    assert replication.rows("items", "id", "id") == [(1,)]


@pytest.mark.full
def test_a_slot_that_the_server_gave_up_is_told_with_the_way_to_recover(tmp_path: Path) -> None:
    """`max_slot_wal_keep_size` is what a server spares for a consumer that does not come."""
    with EmbeddedPostgres(durable=False, settings={"max_slot_wal_keep_size": "1MB", "max_wal_size": "64MB"}) as server:
        for name in ("source", "destination"):
            server.create_database(name)
        replication = Replication(
            tmp_path, Database(server, "source"), Database(server, "destination"), ["items", "others"]
        )
        replication.source.execute(ITEMS + "INSERT INTO items VALUES (1, 1)")
        replication.catch_up()
        for number in range(4):
            replication.source.execute(f"INSERT INTO items VALUES ({10 + number}, 0)")
            replication.source.execute("SELECT pg_switch_wal()", superuser=True)
        replication.source.execute("CHECKPOINT", superuser=True)
        assert replication.source.fetch("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
        [told] = refusals(replication)
        assert "rapidbyte cdc teardown" in told
        assert "--full-refresh" in told
        assert rapidbyte("cdc", "teardown", replication.write(), "--yes").returncode == 0
        # Another slot does not bring back what the first one lost.
        assert_says_that_changes_are_lost_and_recovers(replication)


def test_a_table_that_left_the_publication_and_came_back_between_two_runs_is_told(replication: Replication) -> None:
    replication.source.execute(f"ALTER PUBLICATION {SLOT} DROP TABLE items")
    replication.source.execute("INSERT INTO items VALUES (6, 6)")
    replication.source.execute(f"ALTER PUBLICATION {SLOT} ADD TABLE items; INSERT INTO others VALUES (1)")
    for number in range(2):
        [told] = refusals(replication)
        assert "the table of items, or its place in publication" in told, "the reason stays, while the slot goes on"
        assert "--full-refresh" in told
        replication.assert_mirrors("others")
        replication.source.execute(f"INSERT INTO others VALUES (10 + {number})")
    replication.catch_up(full_refresh=["items"])
    replication.assert_mirrors()


def test_a_publication_that_was_made_again_between_two_runs_is_told(replication: Replication) -> None:
    replication.source.execute(f"DROP PUBLICATION {SLOT}; INSERT INTO items VALUES (6, 6)")
    replication.source.execute(f"CREATE PUBLICATION {SLOT} FOR TABLE items, others")
    assert_says_that_changes_are_lost_and_recovers(replication)


def test_a_table_that_takes_anothers_name_is_told_where_all_tables_are_published(replicate: Replicate) -> None:
    """The new one is published from its first row on; of the old one's end nothing is told."""
    replication = replicate("items", "others")
    replication.source.execute(ITEMS + "INSERT INTO items VALUES (1, 1), (2, 2)")
    replication.source.execute("CREATE PUBLICATION everything FOR ALL TABLES", superuser=True)
    replication.source_config = {**replication.source.config, "publication": "everything"}
    replication.catch_up()
    replication.source.execute("DROP TABLE items; CREATE TABLE items (id int PRIMARY KEY, n int)")
    replication.source.execute("INSERT INTO items VALUES (7, 7); INSERT INTO others VALUES (1)")
    told = refusals(replication)
    assert any("--full-refresh" in one and "items" in one for one in told), told
    replication.assert_mirrors("others")
    replication.catch_up(full_refresh=["items"])
    replication.assert_mirrors()


def test_a_server_whose_log_ends_before_the_position_is_told(replication: Replication) -> None:
    """Another server than the one that was captured: its positions begin anew."""
    replication.destination.execute("""UPDATE raw._rapidbyte_watermarks SET cursor = '{"lsn": "FFF/0"}'""")
    replication.source.execute("INSERT INTO items VALUES (6, 6)")
    assert_says_that_changes_are_lost_and_recovers(replication, "another server")


def test_a_stream_whose_changes_are_lost_does_not_keep_the_log_of_the_others(replication: Replication) -> None:
    """What it needs cannot be had any more."""
    replication.source.execute(f"SELECT pg_drop_replication_slot('{SLOT}'); INSERT INTO items VALUES (6, 6)")
    replication.source.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    replication.run(full_refresh=["others"])
    for number in range(3):
        replication.source.execute(f"INSERT INTO others VALUES ({number})")
        before = replication.source.fetch_value("SELECT pg_current_wal_lsn()::text")
        outcomes = replication.run().streams
        assert isinstance(outcomes["items"], RapidbyteError)
    replication.assert_mirrors("others")
    assert not replication.is_behind(replication.slot_position(), before)
