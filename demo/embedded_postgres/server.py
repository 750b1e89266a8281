"""One PostgreSQL server of our own: `with EmbeddedPostgres() as server: …`."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import psycopg
from psycopg import sql
from typing_extensions import LiteralString, Self

from demo.embedded_postgres.account import Account
from demo.embedded_postgres.installation import Installation

HOST = "127.0.0.1"
SUPERUSER = "postgres"
USER = "etl"
Auth = Literal["scram-sha-256", "md5", "password", "trust", "reject"]

START_SECONDS = 60.0
STOP_SECONDS = 40.0
"""More than the supervisor's own patience, so that it is the one to lose it."""
POLL_SECONDS = 0.02
SOCKET_PATH_BYTES = 103
"""Of a unix socket, without its NUL: 107 on Linux, 103 on macOS."""
PORT_ATTEMPTS = 5
"""A port that was free a moment ago may be taken by somebody else."""
LOG_TAIL_LINES = 15

# Roles choose how they authenticate by membership, which needs no reload of the file.
HBA = """\
local all,replication {superuser} trust
local all,replication +auth_trust trust
host  all,replication +auth_trust    127.0.0.1/32 trust
host  all,replication +auth_reject   127.0.0.1/32 reject
host  all,replication +auth_md5      127.0.0.1/32 md5
host  all,replication +auth_password 127.0.0.1/32 password
host  all,replication all            127.0.0.1/32 scram-sha-256
local all,replication all scram-sha-256
"""
SETTINGS = {
    "listen_addresses": HOST,
    "wal_level": "logical",
    "max_connections": "100",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
MEMORY = "/dev/shm"
"""Linux's file system in memory. A container's may be small."""
MEMORY_BYTES = 6 * 1024**3
"""What has to be free there: several servers may share it, each with gigabytes of tables and write-ahead log."""
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class ServerFailed(Exception):
    """The server did not start, or ended by itself; the message ends with the last lines of its log."""


class EmbeddedPostgres:
    """A server on 127.0.0.1 and on a unix socket, which ends with this process, however that ends.

    Args:
        folder: where the data is kept from one start to the next. None: a temporary one, removed at the end.
            When the server's account cannot reach it (root's home), a folder of /tmp named after it is used.
        settings: of postgresql.conf, beside and above `SETTINGS`.
        durable: False suits data that nobody would miss: no fsync, and without a `folder` it lies in memory, where
            there is room.
        installation: default: the one from pip.
        hba: what becomes pg_hba.conf.
        files: copied into the data folder when it is made, name -> file; readable by the server alone.

    Once started: `host`, `port`, `socket_folder`, `password` (of `SUPERUSER` and of the ordinary role `USER`).
    Raises ServerFailed when it does not start, LookupError when there is no PostgreSQL or no account for it.
    """

    host = HOST

    def __init__(
        self,
        folder: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        durable: bool = True,
        installation: Installation | None = None,
        hba: str = HBA,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        self._account = Account.choose()
        self._temporary = folder is None
        self.folder = _folder_for(self._account, folder, in_memory=not durable)
        self.installation = (installation or Installation.from_pip()).reachable_by(self._account, self.folder)
        self._settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._hba = hba
        self._files = dict(files or {})
        self._data = self.folder / "data"
        self.log = self.folder / "log"
        self.port = 0
        self.password = ""
        self.socket_folder = self.folder / "socket"
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self if self.ours else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # Life

    def start(self) -> Self:
        """Starts the server, or joins the one that another process runs in the same folder."""
        with self._locked():
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            self.password = (self.folder / "password").read_text()
            if not self._join():
                self._launch()
        return self

    def stop(self) -> None:
        """Ends the server, unless it belongs to another process, and removes a temporary folder."""
        self._dismiss_supervisor(keep_folder=False)

    def crash(self) -> None:
        """Ends the server without a checkpoint or a word to its clients. `start` brings it back on the same port."""
        if self._supervisor is None or self._supervisor.stdout is None:
            raise ServerFailed("the server is not ours to crash")
        os.kill(int(self._pid_file()[0]), signal.SIGQUIT)
        self._supervisor.stdout.readline()
        self._dismiss_supervisor(keep_folder=True)

    @property
    def ours(self) -> bool:
        """Whether this process runs the server, and so ends it."""
        return self._supervisor is not None

    # Use

    def dsn(
        self, database: str, *, user: str = SUPERUSER, password: str | None = None, unix_socket: bool = False
    ) -> str:
        """A connection string for libpq; an empty `password` leaves it out."""
        return psycopg.conninfo.make_conninfo(
            host=str(self.socket_folder) if unix_socket else HOST,
            port=self.port,
            user=user,
            password=(self.password if password is None else password) or None,
            dbname=database,
        )

    def connect(self, database: str = "postgres", *, user: str = SUPERUSER) -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        return psycopg.connect(self.dsn(database, user=user), autocommit=True)

    def create_role(
        self, name: str, *, password: str, auth: Auth = "scram-sha-256", options: LiteralString = ""
    ) -> None:
        """An ordinary role that logs in by `auth` over TCP; `options` are those of CREATE ROLE, as SQL."""
        with self.connect() as connection:
            stored = "md5" if auth == "md5" else "scram-sha-256"
            connection.execute(sql.SQL("set password_encryption = {}").format(sql.Literal(stored)))
            connection.execute(
                sql.SQL("create role {} login password {} {} {}").format(
                    sql.Identifier(name),
                    sql.Literal(password),
                    sql.SQL(options),
                    sql.SQL("") if auth == "scram-sha-256" else sql.SQL("in role {}").format(_auth_role(auth)),
                )
            )

    def create_database(self, name: str, *, owner: str = USER, encoding: str | None = None) -> None:
        """`encoding`: another one than the server's own, in the order of its bytes."""
        # Copying files spares the write-ahead log of a whole database.
        statement = sql.SQL("create database {} owner {} strategy file_copy").format(
            sql.Identifier(name), sql.Identifier(owner)
        )
        if encoding is not None:
            statement += sql.SQL(" template template0 encoding {} locale 'C'").format(sql.Literal(encoding))
        with self.connect() as connection:
            connection.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drops it together with its replication slots, whoever is connected."""
        with self.connect() as connection:
            connection.execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where database = %s and active",
                [name],
            )
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                " where database = %s and not active",
                [name],
            )
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    # How it is done

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        password.write_text(f"pw-{secrets.token_hex(12)}")
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        self._account.own(unfinished)
        self._account.own(password, mode=0o400)
        done = self._account.run(
            [
                self.installation.program("initdb"),
                f"--pgdata={unfinished}",
                f"--username={SUPERUSER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ],
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        )
        if done.returncode != 0:
            raise ServerFailed(f"initdb failed:\n{done.stdout}{done.stderr}")
        (unfinished / "pg_hba.conf").write_text(self._hba.format(superuser=SUPERUSER))
        for name, file in self._files.items():
            shutil.copyfile(file, unfinished / name)
            self._account.own(unfinished / name, mode=0o600)
        unfinished.rename(self._data)

    def _join(self) -> bool:
        """Joins a server that another process runs on this folder; waits for one that is just stopping."""
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and self._supervisor is None:
            state = self._pid_file()
            if len(state) < 8 or not _alive(int(state[0])):
                return False
            self.port, self.socket_folder = int(state[3]), Path(state[4])
            if state[7].strip() == "ready":
                with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._local_dsn()):
                    return True
            time.sleep(POLL_SECONDS)
        return self._supervisor is not None

    def _launch(self) -> None:
        removed = self._prepare_socket_folder()
        for attempt in range(PORT_ATTEMPTS):
            self.port = self.port if self.port and attempt == 0 else _free_port()
            log_start = self.log.stat().st_size if self.log.exists() else 0
            self._supervisor = self._supervise(removed)
            if self._wait_until_ready():
                self._create_roles()
                return
            self._dismiss_supervisor(keep_folder=True)
            with self.log.open("rb") as log:
                log.seek(log_start)
                said = log.read().decode(errors="replace")
            if "Address already in use" not in said:
                break
        raise ServerFailed("PostgreSQL did not start:\n" + "\n".join(said.splitlines()[-LOG_TAIL_LINES:]))

    def _prepare_socket_folder(self) -> str:
        """Makes the folder of the unix socket; returns the folder that the supervisor removes at the end, or "-"."""
        removed = str(self.folder) if self._temporary else "-"
        if not self.socket_folder.exists():
            if len(os.fsencode(self.folder / "socket" / ".s.PGSQL.65535")) <= SOCKET_PATH_BYTES:
                self.socket_folder = self.folder / "socket"
                self.socket_folder.mkdir(exist_ok=True)
            else:
                self.socket_folder = Path(tempfile.mkdtemp(prefix="rapidbyte-", dir="/tmp"))
                removed = str(self.socket_folder)
            self._account.own(self.socket_folder)
        return removed

    def _supervise(self, removed: str) -> subprocess.Popen[bytes]:
        identity = self._account.popen_options()
        settings = {**self._settings, "port": str(self.port), "unix_socket_directories": str(self.socket_folder)}
        return subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(Path(__file__).with_name("supervisor.py")),
                str(identity.get("user", "-")),
                str(identity.get("group", "-")),
                str(self.log),
                removed,
                self.installation.program("postgres"),
                "-D",
                str(self._data),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,
        )

    def _wait_until_ready(self) -> bool:
        """False when the server ended instead."""
        assert self._supervisor is not None
        assert self._supervisor.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            state = self._pid_file()
            if len(state) >= 8 and int(state[3]) == self.port and state[7].strip() == "ready":
                return True
            if select.select([self._supervisor.stdout], [], [], POLL_SECONDS)[0]:
                return False
        return False

    def _create_roles(self) -> None:
        with psycopg.connect(self._local_dsn(), autocommit=True) as connection:
            if connection.execute("select 1 from pg_roles where rolname = %s", [USER]).fetchone():
                return
            for auth in ("md5", "password", "trust", "reject"):
                connection.execute(sql.SQL("create role {}").format(_auth_role(auth)))
            connection.execute(
                sql.SQL("create role {} login replication password {}").format(
                    sql.Identifier(USER), sql.Literal(self.password)
                )
            )

    def _local_dsn(self) -> str:
        return self.dsn("postgres", unix_socket=True)

    def _pid_file(self) -> list[str]:
        """The lines of postmaster.pid: pid, data folder, start, port, socket folder, address, memory, state."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _dismiss_supervisor(self, *, keep_folder: bool) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None or supervisor.stdin is None or supervisor.stdout is None:
            return
        with contextlib.suppress(BrokenPipeError), supervisor.stdin as pipe:
            if keep_folder:
                pipe.write(b"keep")
        supervisor.wait(STOP_SECONDS)
        supervisor.stdout.close()


def _has_room(folder: str) -> bool:
    try:
        return os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free >= MEMORY_BYTES
    except OSError:
        return False


def _folder_for(account: Account, wanted: Path | None, *, in_memory: bool) -> Path:
    """A folder that exists and that `account` may enter."""
    if wanted is None:
        memory = [MEMORY] if in_memory and _has_room(MEMORY) else []
        for parent in (*memory, tempfile.gettempdir(), "/tmp", "/var/tmp"):
            folder = Path(tempfile.mkdtemp(prefix="rapidbyte-pg-", dir=parent))
            account.own(folder)
            if account.can_enter(folder) and len(os.fsencode(folder)) < SOCKET_PATH_BYTES - 30:
                return folder
            folder.rmdir()
        raise ServerFailed(f"no temporary folder that the account {account.name!r} may enter")
    wanted = wanted.resolve()
    wanted.mkdir(parents=True, exist_ok=True)
    account.own(wanted)
    if account.can_enter(wanted):
        return wanted
    name = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12]
    folder = Path(f"/tmp/rapidbyte-pg-{name}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid not in (os.geteuid(), account.uid):
        raise ServerFailed(f"{folder} belongs to somebody else: remove it")
    account.own(folder)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _auth_role(auth: str) -> sql.Identifier:
    return sql.Identifier(f"auth_{auth}")
