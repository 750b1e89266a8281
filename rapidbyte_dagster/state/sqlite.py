"""The state store in one SQLite file, for pipelines that run on one machine."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Self

from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state.dead_letter_sql import DEFAULT_TABLE, LetterTable
from rapidbyte_dagster.state.letter_shape import FoundColumn, require_shape
from rapidbyte_dagster.state.migrations import letter_table, migrations
from rapidbyte_dagster.state.sql import Execute, SqlStateStore

if TYPE_CHECKING:
    from rapidbyte_dagster.config import Pipeline

# How long one writer waits for another, in seconds: steps of one run write for milliseconds at a time, so a store
# that stays locked this long is held by something else (a backup, a stopped process).
BUSY_TIMEOUT_SECONDS = 30.0

# Between two looks at a lock that somebody else holds, for about a millisecond as a rule.
BUSY_RETRY_SECONDS = 0.01

# SQLite's own wait is deaf to signals: it gets what a commit of a neighbour takes, the rest is waited for here.
DEAF_WAIT_SECONDS = 0.1

# A number that counts up by itself: the row's own.
IDENTITY = "INTEGER PRIMARY KEY"

MIGRATIONS = migrations(IDENTITY)

T = TypeVar("T")

UNREACHABLE_HINT = "check that the folder exists, is writable and has space, or set `state.path` in the pipeline file"
# SQLite tells with its plain DatabaseError that the content is not what it should be, and nothing else.
DAMAGED_HINT = (
    "the file is damaged, or no state store: move it away and the next run starts a new one,"
    " which follows the destination's watermarks"
)

DEFAULT_FOLDER = ".rapidbyte"
FILE_NAME = "state.db"


def default_path(pipeline: Pipeline, environ: Mapping[str, str]) -> Path:
    """The SQLite file of `pipeline`: see `open_state`."""
    base = pipeline.path.parent
    configured = pipeline.state.resolve_path(environ)
    if configured is not None:
        return base / Path(configured).expanduser()
    home = environ.get("DAGSTER_HOME")
    return (Path(home).expanduser() / "rapidbyte" if home else base / DEFAULT_FOLDER) / FILE_NAME


class SqliteStateStore(SqlStateStore):
    """See `StateStore`. One connection under one lock: the store is touched a few times per checkpoint."""

    def __init__(self, path: Path, shown: str | None = None, *, letters: LetterTable | None = None) -> None:
        """`shown` stands for `path` in messages: the environment's part of a path is not to be seen. `letters` is where
        dead letters are kept."""
        self._path = path
        self._letters = letters or self._letters
        self._shown = shown or str(path)
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=DEAF_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._failure("cannot be opened", error) from error
        try:
            # WAL lets the UI read while a run writes; FULL makes a prepared checkpoint survive a power cut.
            self._enter_wal_mode()
            self._connection.execute("PRAGMA synchronous = FULL")
            self._migrate()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._failure("cannot be used", error) from error
        except StateError:
            self._connection.close()
            raise

    @classmethod
    def existing(cls, path: Path, shown: str | None = None, *, letters: LetterTable | None = None) -> Self | None:
        """The store at `path`, where opening it makes and migrates nothing; else None. Raises what opening raises."""
        # What cannot be read is told by opening it.
        with suppress(OSError, sqlite3.Error):
            if not path.exists() or _is_unfinished(path, letters or cls._letters):
                return None
        return cls(path, shown, letters=letters)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # The file

    def _enter_wal_mode(self) -> None:
        """SQLite's own patience does not cover this switch: of several processes that open a new file, one wins."""
        self._execute_patiently("PRAGMA journal_mode = WAL")

    def _execute_patiently(self, statement: str, parameters: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Waits for a lock where a signal can reach the wait."""
        deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
        while True:
            try:
                return self._connection.execute(statement, parameters)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(BUSY_RETRY_SECONDS)

    def _migrate(self) -> None:
        with self._transaction() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise StateError(
                    f"state store {self._shown} was written by a newer version of rapidbyte-dagster"
                    f" (format {version}, this one knows {len(MIGRATIONS)})",
                    hint="upgrade rapidbyte-dagster, or point `state.path` at another file",
                )
            if version == 0 and db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                raise StateError(
                    f"{self._shown} is a database of something else, and no state store",
                    hint="point `state.path` at a file of its own",
                )
            for step in MIGRATIONS[version:]:
                for statement in step:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            self._require_letters(db)

    def _require_letters(self, db: sqlite3.Connection) -> None:
        """The table of dead letters, made where it is not there."""
        name = self._letters.name
        # What else has its name, a view or an index, cannot be taken for it.
        [is_there] = db.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        if not is_there and name != DEFAULT_TABLE:
            for statement in letter_table(name, IDENTITY):
                db.execute(statement)
        found = db.execute('SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', (name,))
        columns = [
            FoundColumn(column, type.lower(), not required or default is not None, bool(pk))
            for column, type, required, default, pk in found
        ]
        require_shape(name, columns, key_type="integer", where=f"the state store {self._shown}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                # IMMEDIATE takes the write lock at once: a later upgrade from reader to writer cannot wait its turn.
                self._execute_patiently("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failure("cannot be written", error) from error
            finally:
                # Whatever interrupted it, a signal handler included: the next one begins with nothing open.
                with suppress(sqlite3.Error):
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")

    def _write_together(self, pipeline: str, streams: Sequence[str], work: Callable[[Execute], T]) -> T:
        with self._transaction() as db:
            return work(db.execute)

    def _read(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        with self._lock:
            try:
                return self._execute_patiently(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._failure("cannot be read", error) from error

    def _failure(self, what: str, error: Exception) -> StateError:
        # An OSError's own text holds the path as well.
        reason = error.strerror if isinstance(error, OSError) else error
        return StateError(
            f"the state store {self._shown} {what}: {reason}",
            hint=DAMAGED_HINT if type(error) is sqlite3.DatabaseError else UNREACHABLE_HINT,
        )


def _is_unfinished(path: Path, letters: LetterTable) -> bool:
    """Whether the file is empty, or of an older format, or without the table of dead letters."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            return db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
        named = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (letters.name,)).fetchone()
        return bool(version < len(MIGRATIONS)) or (named is None and letters.name != DEFAULT_TABLE)
