"""DuckDB as a place to compute in: closed off, on one thread, and stopped when the run is.

It runs in this process, beside the run, and not in a sandbox of WebAssembly: what it must not do is switched off before
the first statement comes, and cannot be switched on again.
"""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pyarrow as pa

from rapidbyte_dagster.errors import ConfigError, Kind, RapidbyteError

if TYPE_CHECKING:
    import duckdb

VERSION: Final = "2.0.0"
"""The only one that this module is made for: which parts of a statement there can be is its parser's to say."""

RELATION: Final = "stream"
"""What the batch at hand is called in statements."""

ABANDONED_SECONDS: Final = 0.4
"""How long a stop waits for a statement that is running. DuckDB looks at a stop between vectors of 2,048 rows: within
one it computes on, and is left behind."""

_SLICE_SECONDS: Final = 0.02
"""How often a wait looks at the stop."""

_SETTINGS: Final[dict[str, str]] = {
    # No file, no network, no code from elsewhere.
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    # Nor what happens to be a variable of this process.
    "python_enable_replacements": "false",
    # Memory that runs out is an error, and not a file.
    "temp_directory": "",
    "threads": "1",
    # Errors where PostgreSQL has them: 1/0, ln(0), sqrt(-1).
    "ieee_floating_point_ops": "false",
    "error_on_division_by_zero": "true",
    # uuid stays uuid.
    "arrow_lossless_conversion": "true",
}

T = TypeVar("T")


class EngineError(Exception):
    """A statement failed. Where there were rows its text may show their values, and is for nobody to see."""


@dataclass(frozen=True)
class Function:
    """One of DuckDB's, as its catalog tells of it."""

    kind: str
    """`scalar`, `aggregate`, `macro`, `table`, …"""
    stability: str | None
    """`CONSISTENT` where the same arguments always give the same."""
    definition: str | None
    """A macro's."""
    parameters: list[str]


_ALL_FUNCTIONS: Final = """
SELECT lower(function_name), function_type, stability, macro_definition, parameters FROM duckdb_functions()
"""


class Batch:
    """What statements see as `stream`: the values lie where they are."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def __arrow_c_schema__(self) -> object:
        return self.batch.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = pa.RecordBatchReader.from_batches(self.batch.schema, [self.batch])
        return reader.__arrow_c_stream__(requested_schema)  # type: ignore[no-untyped-call]


class Engine:
    """One database in memory, without tables. For one thread at a time; `stopped` tells whether the run is over, and
    why, and may be asked at any time."""

    def __init__(self, max_memory: int, stopped: Callable[[], RapidbyteError | None]) -> None:
        """`max_memory` is in bytes. Raises `ConfigError` where DuckDB is not installed, MemoryError."""
        self._settings = {**_SETTINGS, "memory_limit": f"{max_memory}B"}
        self._stopped = stopped
        self._duckdb = _library()
        self._connection = self._connect()
        self._given: Batch | None = None
        self._functions: dict[str, list[Function]] = {}
        self._left_behind = False

    def close(self) -> None:
        if not self._left_behind:
            self._connection.close()

    def parse(self, statement: str) -> dict[str, Any]:
        """The parser's tree, or what it says of a statement that is none: `{"error": true, "error_message": …}`."""
        tree = json.loads(self._value("SELECT json_serialize_sql(?)", statement))
        assert isinstance(tree, dict)
        return tree

    def unparse(self, expression: dict[str, Any]) -> str:
        """The SQL text of an expression of such a tree."""
        node = {**self.parse("SELECT 1")["statements"][0]["node"], "select_list": [{**expression, "alias": ""}]}
        text = self._value(
            "SELECT json_deserialize_sql(?)",
            json.dumps({"error": False, "statements": [{"node": node, "named_param_map": []}]}),
        )
        return text.removeprefix("SELECT ")

    def functions(self, name: str) -> Sequence[Function]:
        """Those of that name, in any case."""
        if not self._functions:
            for found, *rest in self._run(lambda: self._connection.execute(_ALL_FUNCTIONS).fetchall()):
                self._functions.setdefault(found, []).append(Function(*rest))
        return self._functions.get(name.lower(), ())

    def query(self, statement: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What `statement` makes of `batch`, in the order of its rows.

        Raises `EngineError`, MemoryError, or whatever stops the run.
        """
        if self._given is None or self._given.batch.schema != batch.schema:
            self._given = Batch(batch)
            self._connection.register(RELATION, self._given)
        self._given.batch = batch
        made = self._run(lambda: self._connection.sql(statement).to_arrow_table())
        return made.combine_chunks().to_batches()[0] if made.num_rows else empty(made.schema)

    def _value(self, statement: str, parameter: str) -> str:
        rows = self._run(lambda: self._connection.execute(statement, [parameter]).fetchall())
        return str(rows[0][0])

    def _connect(self) -> duckdb.DuckDBPyConnection:
        try:
            connection: duckdb.DuckDBPyConnection = self._duckdb.connect(":memory:", config=self._settings)
            connection.execute("SET TimeZone = 'UTC'")
            # It would take what two expressions share out of the TRY around one of them.
            connection.execute("SET disabled_optimizers = 'common_subexpressions'")
            connection.execute("SET lock_configuration = true")
        except self._duckdb.OutOfMemoryException as error:
            raise MemoryError from error
        return connection

    def _run(self, work: Callable[[], T]) -> T:
        """Does `work` on a thread of its own: whoever waits for it can be stopped when it cannot."""
        results: list[T] = []
        failures: list[BaseException] = []
        done = threading.Event()
        connection = self._connection

        def run() -> None:
            try:
                results.append(work())
            except BaseException as failure:  # noqa: BLE001  a thread's edge: raised again below
                failures.append(failure)
            finally:
                done.set()
                if self._left_behind:
                    connection.close()

        if (stopped := self._stopped()) is not None:
            raise stopped
        threading.Thread(target=run, name="duckdb").start()
        since: float | None = None
        while not done.wait(_SLICE_SECONDS):
            if (stopped := self._stopped()) is None:
                continue
            since = since or time.monotonic()
            # Again and again: a statement that is only about to start does not see it.
            connection.interrupt()
            if time.monotonic() - since > ABANDONED_SECONDS:
                self._left_behind = True
                raise stopped
        if failures:
            self._fail(failures[0])
        return results[0]

    def _fail(self, failure: BaseException) -> None:
        duckdb = self._duckdb
        if (stopped := self._stopped()) is not None:
            raise stopped from failure
        if isinstance(failure, duckdb.OutOfMemoryException | MemoryError):
            raise MemoryError from failure
        if isinstance(failure, duckdb.InternalException | duckdb.FatalException):
            # It is of no use any more.
            self._connection.close()
            self._connection, self._given = self._connect(), None
        if isinstance(failure, duckdb.Error):
            raise EngineError(str(failure)) from failure
        raise failure


def empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _library() -> Any:
    """DuckDB, imported when it is needed: whoever has no such transform need not have it."""
    if importlib.util.find_spec("duckdb") is None:
        raise ConfigError(
            "transform-sql needs DuckDB, which is not installed",
            kind=Kind.CONFIG,
            hint="pip install 'rapidbyte-dagster[sql]' (for Python 3.11 or later)",
        )
    import duckdb

    if duckdb.__version__ != VERSION:
        raise ConfigError(
            f"transform-sql needs DuckDB {VERSION}, and {duckdb.__version__} is installed",
            kind=Kind.CONFIG,
            hint="pip install 'rapidbyte-dagster[sql]'",
        )
    return duckdb
