"""A statement at work on the batches of one schema.

    batch ──▶ the columns that something is computed of ──▶ DuckDB ──▶ computed columns, rows that stay
      └─────── the other columns, as they are ──────────────────────────────┴──▶ batch

Columns that the statement leaves as they are never go through DuckDB: they keep every value, whatever its type, and
everything that their field says. Where the statement fails, one more asks which rows it fails on, and why.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rapidbyte_dagster.errors import ConfigError, Kind
from rapidbyte_dagster.transforms.arrow_values import Values, can_compute, for_engine, for_stream, stream_type
from rapidbyte_dagster.transforms.duckdb_engine import RELATION, Engine, EngineError, empty
from rapidbyte_dagster.transforms.printed import UNREADABLE, of_text, pg_type
from rapidbyte_dagster.transforms.statement import Output, Statement

_PRIMARY_KEY: Final = b"rapidbyte:primary_key"

_PART_SECONDS: Final = 0.1
"""What one statement may take, about: DuckDB can only be stopped between vectors of 2,048 rows, and does not count the
memory of what it makes within one. So the first statement gets one row, and the next ones as many as this allows."""
_PART_BYTES: Final = 16 * 1024 * 1024
"""What one statement may make, about."""
_PART_ROWS: Final = 1024 * 1024
_GROWTH: Final = 4.0

_SHOWN_CHARACTERS: Final = 200
"""Of an expression in a message."""


@dataclass(frozen=True)
class Failure:
    """A row that the statement fails on. `row` counts from 0, in the part."""

    row: int
    reasons: tuple[str, ...]
    category: str
    column: str | None
    """The column of the result, where it is only one."""


@dataclass
class Outcome:
    """What became of a part of a batch."""

    part: pa.RecordBatch
    batches: list[pa.RecordBatch]
    failures: list[Failure]
    filtered: int


class Projection:
    """`statement` over batches of `schema`. Raises `ConfigError` where the two do not go together.

    In a replay every column holds the text forms of its type: those that something is computed of are read as that
    type, and every column is told as NOT NULL, as those are that came.
    """

    def __init__(self, engine: Engine, statement: Statement, schema: pa.Schema, *, replay: bool = False) -> None:
        self._engine = engine
        self._replay = replay
        if len(set(schema.names)) < len(schema.names):
            raise _misfit("the stream has two columns of one name")
        texts = {field.name: of_text(pg_type(field)) for field in schema} if replay else {}
        read_as = {name: type_name for name, type_name in texts.items() if type_name is not None}
        self._bound = bound = statement.bind(schema.names, read_as)
        for name in bound.used:
            if read_as.get(name) == UNREADABLE:
                shown = pg_type(schema.field(name))
                raise ConfigError(
                    f"query: column {name!r} is {shown}, which is not read from the text that a dead letter has",
                    kind=Kind.UNSUPPORTED,
                    hint="repair the row in the source, and let the stream bring it again",
                )
            if not can_compute(schema.field(name).type):
                shown = pg_type(schema.field(name))
                raise _misfit(f"column {name!r} is {shown}, which DuckDB has no type for: it can only be left as it is")
        self._used = pa.schema([schema.field(name) for name in bound.used])
        self._row = _unused_name(bound.used)
        self._rows_at_once = 1
        self._statement = self._main_statement()
        computed = self._computed_fields()
        self._bound = replace(bound, outputs=tuple(_guarded(output, computed) for output in bound.outputs))
        self._statement = self._main_statement()
        self._diagnosis = self._diagnosing_statement()
        self.schema = pa.schema(
            [
                computed[output.name] if output.source is None else schema.field(output.source).with_name(output.name)
                for output in bound.outputs
            ],
            metadata=_kept_metadata(schema, bound.outputs),
        )
        self.is_identity = bound.condition is None and self.schema.equals(schema, check_metadata=True) and not computed
        """Whether every batch stays what it is."""

    def apply(self, batch: pa.RecordBatch) -> Iterator[Outcome]:
        """What becomes of `batch`, part by part. Raises MemoryError, `RapidbyteError`."""
        start = 0
        while start < batch.num_rows:
            began = time.monotonic()
            part = batch.slice(start, self._rows_at_once)
            outcome = Outcome(part, [], [], 0)
            self._compute(part, range(part.num_rows), outcome)
            outcome.failures.sort(key=lambda failure: failure.row)
            yield outcome
            start += part.num_rows
            self._set_pace(part.num_rows, time.monotonic() - began, sum(each.nbytes for each in outcome.batches))

    def _set_pace(self, rows: int, seconds: float, size: int) -> None:
        """After `rows` took so long and made so many bytes."""
        share = min(_PART_SECONDS / max(seconds, 1e-6), _PART_BYTES / max(size, 1), _GROWTH)
        self._rows_at_once = min(max(1, int(rows * share)), _PART_ROWS)

    def _compute(self, batch: pa.RecordBatch, rows: Sequence[int], outcome: Outcome) -> None:
        """Adds what becomes of `batch`, which is `rows` of the part."""
        if not batch.num_rows:
            return
        if self._statement is None:
            outcome.batches.append(self._assembled(batch, {}))
            return
        given, misfits = self._given(batch)
        if misfits:
            self._leave_out(batch, rows, {row: ([reason], "out_of_range") for row, reason in misfits.items()}, outcome)
            return
        made = None
        with contextlib.suppress(EngineError):
            made = self._engine.query(self._statement, given)
        if made is not None:
            self._take_over(batch, made, rows, outcome)
        else:
            self._find_failures(batch, given, rows, outcome)

    def _take_over(self, batch: pa.RecordBatch, made: pa.RecordBatch, rows: Sequence[int], outcome: Outcome) -> None:
        """Adds the rows that DuckDB `made` of `batch`, unless the stream has no place for one of their values."""
        columns: dict[str, Values] = {}
        misfits: dict[int, list[str]] = {}
        stayed = made.column(made.num_columns - 1) if self._bound.condition is not None else None
        for place, output in enumerate(self._bound.computed):
            wanted = self.schema.field(output.name).type
            columns[output.name], unfit = for_stream(made.column(place), wanted)
            for row in _positions(unfit):
                position = row if stayed is None else stayed[row].as_py()
                misfits.setdefault(position, []).append(f"column {output.name}: the value is before the first {wanted}")
        if misfits:
            found = {row: (reasons, "out_of_range") for row, reasons in misfits.items()}
            self._leave_out(batch, rows, found, outcome)
            return
        if stayed is not None and len(stayed) < batch.num_rows:
            outcome.filtered += batch.num_rows - len(stayed)
            batch = batch.take(stayed)
        if batch.num_rows:
            outcome.batches.append(self._assembled(batch, columns))

    def _leave_out(
        self,
        batch: pa.RecordBatch,
        rows: Sequence[int],
        found: dict[int, tuple[list[str], str]],
        outcome: Outcome,
    ) -> None:
        """Adds failures of rows of `batch`, and what becomes of the others."""
        for row, (reasons, category) in found.items():
            columns = {reason.partition(":")[0].removeprefix("column ") for reason in reasons}
            only = columns.pop() if len(columns) == 1 and reasons[0].startswith("column ") else None
            outcome.failures.append(Failure(rows[row], tuple(reasons), category, only))
        rest = [row for row in range(batch.num_rows) if row not in found]
        self._compute(batch.take(pa.array(rest, pa.int64())), [rows[row] for row in rest], outcome)

    def _find_failures(
        self, batch: pa.RecordBatch, given: pa.RecordBatch, rows: Sequence[int], outcome: Outcome
    ) -> None:
        """The statement failed on `batch`: asks on which rows. Where nothing is found, halves it until one is left."""
        try:
            found = self._diagnosed(self._engine.query(self._diagnosis, given))
        except EngineError:
            found = {}
        if not found and batch.num_rows == 1:
            found = {0: (["the statement fails"], "other")}
        if found:
            self._leave_out(batch, rows, found, outcome)
            return
        half = batch.num_rows // 2
        self._compute(batch.slice(0, half), rows[:half], outcome)
        self._compute(batch.slice(half), rows[half:], outcome)

    def _diagnosed(self, flags: pa.RecordBatch) -> dict[int, tuple[list[str], str]]:
        """What the diagnosis says: each row that fails, with its reasons and its category."""
        found: dict[int, tuple[list[str], str]] = {}
        for row in _positions(flags.column(0)):
            found[row] = (["WHERE: the condition fails"], "other")
        for number, output in enumerate(self._bound.computed):
            for row in _positions(flags.column(f"failed {number}")):
                casts = [
                    cast
                    for place, cast in enumerate(output.casts)
                    if flags.column(f"cast {number} {place}")[row].as_py()
                ]
                text = casts[0] if casts else output.text
                reasons, category = found.get(row, ([], "cast"))
                reason = f"column {output.name}: {_shortened(text)} fails"
                found[row] = ([*reasons, reason], category if casts else "other")
        return found

    def _given(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
        """What DuckDB is given of `batch`, and the rows that it cannot be given, with the reason."""
        columns = []
        misfits: dict[int, str] = {}
        for field in self._used:
            values, unfit = for_engine(batch.column(field.name))
            columns.append(values)
            for row in _positions(unfit):
                misfits.setdefault(row, f"{field.name} holds NaN, an infinity or a date that DuckDB does not have")
        columns.append(pa.array(range(batch.num_rows), pa.int32()))
        names = [*self._used.names, self._row]
        return pa.RecordBatch.from_arrays(columns, names), misfits

    def _assembled(self, batch: pa.RecordBatch, computed: dict[str, Values]) -> pa.RecordBatch:
        columns = [
            batch.column(output.source) if output.source is not None else computed[output.name]
            for output in self._bound.outputs
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _main_statement(self) -> str | None:
        """None where nothing is to be computed."""
        bound = self._bound
        items = [f"{output.sql} AS c{number}" for number, output in enumerate(bound.computed)]
        if bound.condition is None:
            return f"SELECT {', '.join(items)} FROM {RELATION}" if items else None
        return f"SELECT {', '.join([*items, _quoted(self._row)])} FROM {RELATION} WHERE {bound.condition}"

    def _diagnosing_statement(self) -> str:
        """For every row, in order: whether the condition fails; and where it holds, which columns and which casts do.

        TRY makes NULL of what fails, and `… IS NULL` by itself never is.
        """
        condition = self._bound.condition or "true"
        flags = [f'{_fails(condition)} AS "where"']
        for number, output in enumerate(self._bound.computed):
            flags.append(f'coalesce(TRY({condition}), false) AND {_fails(output.sql)} AS "failed {number}"')
            flags += [f'{_fails(cast)} AS "cast {number} {place}"' for place, cast in enumerate(output.casts)]
        return f"SELECT {', '.join(flags)} FROM {RELATION}"

    def _computed_fields(self) -> dict[str, pa.Field[Any]]:
        """What the computed columns are, told by DuckDB of no rows."""
        if self._statement is None:
            return {}
        try:
            made = self._engine.query(self._statement, self._given(empty(self._used))[0]).schema
        except EngineError as error:
            raise _misfit(str(error).partition("\n")[0]) from None
        fields = {}
        for place, output in enumerate(self._bound.computed):
            wanted = stream_type(made.field(place).type)
            if wanted is None:
                raise _misfit(f"column {output.name!r} would be {_shown(made.field(place).type)}", hint=_CAST_HINT)
            fields[output.name] = pa.field(output.name, wanted, nullable=not self._replay)
        return fields


_CAST_HINT: Final = (
    "a stream has BOOLEAN, integers up to BIGINT, FLOAT, DOUBLE, DECIMAL, VARCHAR, BLOB, DATE, TIME, TIMESTAMP,"
    " TIMESTAMPTZ, INTERVAL, UUID, JSON, and lists of one of these: CAST it to one of them"
)


def _shown(data_type: pa.DataType) -> str:
    if isinstance(data_type, pa.OpaqueType):
        return data_type.type_name
    return "NULL, of no type" if pa.types.is_null(data_type) else str(data_type)


_HOURS: Final = 2_562_046
"""The whole hours that an interval's nanoseconds have room for, less one."""


def _guarded(output: Output, computed: dict[str, pa.Field[Any]]) -> Output:
    """An interval beyond the stream's range fails: DuckDB, which counts microseconds, would make another of it."""
    if output.source is not None or not pa.types.is_interval(computed[output.name].type):
        return output
    is_in_range = f"coalesce(abs(hour({output.text})) <= {_HOURS}, true)"
    return replace(output, guarded=f"CASE WHEN {is_in_range} THEN {output.text} ELSE to_hours({_HOURS}) * 1000000 END")


def _fails(expression: str) -> str:
    return f"TRY(({expression}) IS NULL) IS NULL"


def _positions(flags: Values | None) -> Iterator[int]:
    """Where `flags` are true."""
    if flags is None:
        return iter(())
    return (position.as_py() for position in pc.indices_nonzero(for_stream(flags, pa.bool_())[0]))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _unused_name(names: Sequence[str]) -> str:
    name = "row"
    while name in {each.lower() for each in names}:
        name += "_"
    return name


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _kept_metadata(schema: pa.Schema, outputs: Sequence[Output]) -> Any:
    """The schema's own, but for a key that is not all there under its names."""
    metadata = dict(schema.metadata or {})
    if _PRIMARY_KEY in metadata:
        untouched = {output.name for output in outputs if output.source == output.name}
        if not set(json.loads(metadata[_PRIMARY_KEY])) <= untouched:
            del metadata[_PRIMARY_KEY]
    return metadata or None


def _misfit(what: str, hint: str | None = None) -> ConfigError:
    return ConfigError(f"query: {what}", kind=Kind.CONFIG, hint=hint)
