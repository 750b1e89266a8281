"""Two pipelines over one source: one is interrupted, the other is not, and the database holds their tables together."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from rapidbyte_dagster.config import Pipeline, load_pipeline
from rapidbyte_dagster.engine import StreamResult, run_stream
from rapidbyte_dagster.engine.start import Start
from rapidbyte_dagster.state import Checkpoint, open_state
from tests.pipelines import write_pipeline
from tests.postgres_server import Database
from tests.recovery.cells import RESOURCES, Cell
from tests.recovery.failpoints import Failpoint
from tests.recovery.proxy import HOST, Proxy
from tests.recovery.worker import Job, Report, StateCrash, Worker, work

INTERRUPTED = "raw"
UNDISTURBED = "calm"
STATE = "state"
"""The names of the two pipelines and of the schemas that they write to; and that of a state store in PostgreSQL."""

GOING_SECONDS = 10.0
"""How long the server may take to see that a killed client is gone."""

# Rows as text, since a row type is not comparable where a column's is not.
DIFFERENCE = """
    (SELECT 'lost' AS what, left(t::text, 60) FROM ({expected}) t
     EXCEPT ALL SELECT 'lost', left(t::text, 60) FROM ({found}) t)
    UNION ALL
    (SELECT 'repeated or wrong', left(t::text, 60) FROM ({found}) t
     EXCEPT ALL SELECT 'repeated or wrong', left(t::text, 60) FROM ({expected}) t)
    ORDER BY 1, 2 LIMIT 20
"""
CONTENT = """SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE "C")) FROM ({query}) t"""

LEFTOVERS = """
    SELECT c.relkind::text || ' ' || c.oid::regclass::text FROM pg_class c
    WHERE c.relpersistence = 't'
       OR (c.relname LIKE '\\_rapidbyte\\_%' AND c.relname NOT LIKE '\\_rapidbyte\\_watermarks%'
           AND c.relnamespace::regnamespace::text <> 'state')
    UNION ALL
    SELECT 'lock ' || l.locktype || ' ' || l.mode FROM pg_locks l
    JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.pid <> pg_backend_pid() AND NOT EXISTS (
        SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.backend_type <> 'client backend'
    )
    UNION ALL
    SELECT 'session ' || application_name || ': ' || coalesce(state, '') || ' ' || left(query, 80)
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'rapidbyte%' AND pid <> pg_backend_pid()
    UNION ALL
    SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts WHERE database = current_database()
    UNION ALL
    SELECT 'unfinished index ' || indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid
"""


@dataclass
class Trial:
    folder: Path
    source: Database
    destination: Database
    cell: Cell
    source_proxy: Proxy
    destination_proxy: Proxy
    resources: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    state_proxy: Proxy | None = None
    """With it the state is kept in PostgreSQL, in the destination's database."""
    replays: bool = False
    """Whether the processes replay dead letters, instead of running the stream."""

    def __post_init__(self) -> None:
        if self.state_proxy is not None:
            self.destination.execute(f"CREATE SCHEMA {STATE}")
        self.interrupted = self._write(
            INTERRUPTED,
            self.source_proxy.config(self.source),
            self.destination_proxy.config(self.destination, schema=INTERRUPTED),
        )
        self.undisturbed = self._write(
            UNDISTURBED, self.source.config, {**self.destination.config, "schema": UNDISTURBED}
        )

    def _write(self, name: str, source: Mapping[str, Any], destination: Mapping[str, Any]) -> Path:
        options = {**RESOURCES, **self.resources}
        return write_pipeline(
            self.folder,
            source,
            destination,
            [self.cell.stream_section],
            name=name,
            write_mode=self.cell.write_mode,
            resources=options,
            transforms=list(self.cell.transforms),
            **self._state_section,
            **{name: section for name, section in self.sections.items() if name != "destination_section"},
            destination_section={
                "on_data_error": self.cell.on_data_error,
                **self.sections.get("destination_section", {}),
            },
        )

    @property
    def _state_section(self) -> dict[str, Any]:
        if self.state_proxy is None:
            return {}
        # The proxy sees nothing of an encrypted connection.
        through: dict[str, Any] = {
            "host": HOST,
            "port": self.state_proxy.port,
            "sslmode": "disable",
            "gssencmode": "disable",
        }
        dsn = make_conninfo(self.destination.dsn, **through, options=f"-csearch_path={STATE}")
        return {"state": {"backend": "postgres", "connection": dsn}}

    @property
    def pipeline(self) -> Pipeline:
        """The one that is interrupted."""
        return load_pipeline(self.interrupted)

    # What happens

    def prepare(self) -> None:
        """Both pipelines are where the interrupted run is to begin."""
        self.source.execute(self.cell.source)
        if self.cell.runs_before:
            self.run_undisturbed()
            self.run_interrupted()
        for schema in (INTERRUPTED, UNDISTURBED):
            if self.cell.destination:
                self.destination.execute(self.cell.destination.format(schema=schema))
        if self.cell.changes:
            self.source.execute(self.cell.changes)

    def run_undisturbed(self, start: Start = Start.RESUME) -> StreamResult:
        return _run(load_pipeline(self.undisturbed), start)

    def run_interrupted(self, start: Start = Start.RESUME) -> StreamResult:
        """The same pipeline that is interrupted otherwise: in this process, with nobody in its way."""
        return _run(self.pipeline, start)

    def job(self, crash: StateCrash | None = None, start: Start = Start.RESUME) -> Job:
        self.last_job = Job(
            self.interrupted, "events", str(uuid.uuid4()), start=start, crash=crash, replays=self.replays
        )
        return self.last_job

    def kill_at(self, failpoint: Failpoint, start: Start = Start.RESUME) -> None:
        """A run that ends there by SIGKILL."""
        victims: list[Worker] = []
        started = threading.Event()

        def kill() -> None:
            started.wait(GOING_SECONDS)
            victims[0].kill()

        before = self.watermark()
        self._arm(failpoint, kill)
        with Worker(self.job(failpoint.state, start)) as worker:
            victims.append(worker)
            started.set()
            report = worker.wait()
            assert worker.was_killed, f"never got to: {failpoint}; {report}\n{self.destination_proxy.statements}"
        if failpoint.committed is not None:
            # It was struck where it was meant to be.
            assert self.watermark() == before + (failpoint.nth or 1) - (not failpoint.committed)

    def cut_at(self, failpoint: Failpoint, start: Start = Start.RESUME) -> StreamResult:
        """A run that loses a connection there, and goes on with its next attempt."""
        proxy = self._arm(failpoint, None)
        result = self.run_interrupted(start)
        assert proxy.struck.is_set(), f"never got to: {failpoint}\n{proxy.statements}"
        return result

    def _arm(self, failpoint: Failpoint, strike: Callable[[], None] | None) -> Proxy:
        if failpoint.source is not None:
            self.source_proxy.arm(failpoint.source, strike)
            return self.source_proxy
        if failpoint.store is not None:
            assert self.state_proxy is not None
            self.state_proxy.arm(failpoint.store, strike)
            return self.state_proxy
        if failpoint.destination is not None:
            self.destination_proxy.arm(failpoint.destination, strike)
        return self.destination_proxy

    def restart(self, start: Start = Start.RESUME, *, same_run: bool = False) -> Report:
        """A new process, which nobody kills; it must succeed. `same_run`: the one before once more, under its id."""
        report = work(replace(self.last_job, crash=None) if same_run else self.job(start=start))
        assert report.error is None, report.error
        return report

    def run_later(self) -> None:
        """One more run of both, after more rows came: it moves what is new, and nothing else."""
        self.source.execute(self.cell.later)
        calm, result = self.run_undisturbed(), self.run_interrupted()
        assert result.rows == calm.rows
        if self.cell.later_rows is not None:
            assert result.rows == self.cell.later_rows
        self.assert_equal()

    def commits_of_last_run(self) -> int:
        """Of the undisturbed pipeline."""
        checkpoints = self.undisturbed_checkpoints()
        return sum(checkpoint.run_id == checkpoints[0].run_id for checkpoint in checkpoints)

    def side(self, name: str) -> tuple[Database, Proxy]:
        """`source` or `destination`."""
        if name == "source":
            return self.source, self.source_proxy
        return self.destination, self.destination_proxy

    def wait_for_lock(self) -> None:
        """Until a session waits for the stream's lock."""
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        deadline = time.monotonic() + GOING_SECONDS
        while self.destination.fetch_value(waiting) == 0:
            assert time.monotonic() < deadline, "nobody waits for the stream's lock"
            time.sleep(0.02)

    # What must hold

    def assert_equal(self) -> None:
        """The interrupted pipeline's table holds what the other's does, row for row."""
        expected, found = (f"SELECT * FROM {schema}.events" for schema in (UNDISTURBED, INTERRUPTED))
        difference = self.destination.fetch(DIFFERENCE.format(expected=expected, found=found))
        assert difference == [], difference
        [content] = self.destination.fetch(CONTENT.format(query=expected))
        assert self.destination.fetch(CONTENT.format(query=found)) == [content]
        assert content[0] > 0

    def assert_settled(self) -> None:
        """State store and watermark tell the same, nothing is half done, nobody holds anything."""
        checkpoints = self.checkpoints()
        assert checkpoints[0].sequence == self.watermark()
        cursor = self.destination.fetch_value(f"SELECT cursor::text FROM {INTERRUPTED}._rapidbyte_watermarks")
        assert json.loads(cursor or "null") == checkpoints[0].cursor
        assert [c.sequence for c in checkpoints] == sorted({c.sequence for c in checkpoints}, reverse=True)
        assert self.prepared_checkpoints() == 0
        assert self.letters_in_all() == sum(c.dead_letters for c in checkpoints)
        if self.cell.write_mode == "append":
            rows = self.destination.fetch_value(f"SELECT count(*) FROM {INTERRUPTED}.events")
            assert sum(c.rows for c in checkpoints) == rows
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        for database in (self.source, self.destination):
            deadline = time.monotonic() + GOING_SECONDS
            while left := database.fetch(LEFTOVERS, superuser=True):
                assert time.monotonic() < deadline, left
                time.sleep(0.05)

    def watermark(self) -> int:
        """Its sequence number; 0 when there is none."""
        table = f"{INTERRUPTED}._rapidbyte_watermarks"
        if self.destination.fetch_value("SELECT to_regclass(%s) IS NULL", [table]):
            return 0
        return int(self.destination.fetch_value(f"SELECT coalesce(max(sequence), 0) FROM {table}"))

    def checkpoints(self) -> list[Checkpoint]:
        """Committed ones, newest first."""
        with open_state(self.pipeline, {}) as state:
            return state.checkpoints(INTERRUPTED, "events", limit=10_000)

    def undisturbed_checkpoints(self) -> list[Checkpoint]:
        with open_state(self.pipeline, {}) as state:
            return state.checkpoints(UNDISTURBED, "events", limit=10_000)

    def prepared_checkpoints(self) -> int:
        """Those of which the state store does not know whether they were committed."""
        return self._count_of_state("_rapidbyte_checkpoints", "status = 'prepared'")

    def letters_in_all(self) -> int:
        """Dead letters in the store, those that do not count included."""
        return self._count_of_state("_rapidbyte_dlq", "true")

    def letters(self, pipeline: str = INTERRUPTED) -> list[dict[str, Any]]:
        """Those that count."""
        with open_state(self.pipeline, {}) as state:
            return state.dead_letters(pipeline, "events").to_pylist()

    def _count_of_state(self, table: str, condition: str) -> int:
        sql = f"SELECT count(*) FROM {table} WHERE {condition} AND pipeline_name = '{INTERRUPTED}'"
        if self.state_proxy is not None:
            return int(self.destination.fetch_value(sql.replace("FROM ", f"FROM {STATE}.")))
        with contextlib.closing(sqlite3.connect(self.state_file)) as db:
            return int(db.execute(sql).fetchone()[0])

    # The state store's file

    @property
    def state_file(self) -> Path:
        return self.folder / ".rapidbyte" / "state.db"

    def forget_state(self) -> None:
        """The whole store is gone, as after `rm`."""
        if self.state_proxy is not None:
            self.destination.execute(f"DROP SCHEMA {STATE} CASCADE; CREATE SCHEMA {STATE}")
        else:
            shutil.rmtree(self.state_file.parent)

    @contextlib.contextmanager
    def state_restored_afterwards(self) -> Iterator[None]:
        """What the block does to the state store is undone, as by a backup that is put back."""
        kept = self.folder / "kept"
        shutil.copytree(self.state_file.parent, kept)
        yield
        shutil.rmtree(self.state_file.parent)
        kept.rename(self.state_file.parent)

    @contextlib.contextmanager
    def destination_restored_afterwards(self) -> Iterator[None]:
        """The same for the interrupted pipeline's schema, rows and watermark."""
        tables = ("events", "_rapidbyte_watermarks")
        for table in tables:
            self.destination.execute(f"CREATE TABLE public.kept_{table} AS TABLE {INTERRUPTED}.{table}")
        yield
        self.destination.execute(
            ";".join(
                f"TRUNCATE {INTERRUPTED}.{table}; INSERT INTO {INTERRUPTED}.{table} TABLE public.kept_{table};"
                f" DROP TABLE public.kept_{table}"
                for table in tables
            )
        )


def _run(pipeline: Pipeline, start: Start) -> StreamResult:
    with open_state(pipeline, {}) as state:
        return run_stream(pipeline, pipeline.streams[0], state=state, run_id=str(uuid.uuid4()), environ={}, start=start)
