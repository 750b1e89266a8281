"""Dead letters as rows again: JSON → texts → Arrow, every column as the text form of its PostgreSQL type.

    {"id": 7, "price": "12.50"}  +  {"id": "integer", "price": "numeric(12,2)"}
        ▼
    id: Utf8 (rapidbyte:pg_type integer) "7"      price: Utf8 (… numeric(12,2)) "12.50"

Numbers are never read: their digits stay what they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa

from rapidbyte_dagster.engine.arrow_stream import PG_TYPE, PRIMARY_KEY

# Bytes beside each value: its offset, its bit of validity, Python's own.
_OVERHEAD = 64


@dataclass(frozen=True, slots=True)
class LetterRow:
    """One dead letter's row. `types` has the columns of `values`, in their order."""

    id: int
    values: Mapping[str, str | None]
    """Each as the text form of its type."""
    types: Mapping[str, str]
    """As PostgreSQL writes them."""

    @property
    def size(self) -> int:
        """About as many bytes."""
        return sum(len(value or "") + _OVERHEAD for value in self.values.values())


def read_json(text: str | bytes) -> Any:
    """`text` with its numbers as the texts that they are. Raises `ValueError`."""
    try:
        return json.loads(
            text, parse_int=str, parse_float=str, parse_constant=_no_constant, object_pairs_hook=_without_repetition
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def row_of(number: int, record: Any, types: Any) -> LetterRow:
    """The row of dead letter `number`, of what `read_json` made of its record and types. Raises `ValueError`."""
    if record is None:
        raise ValueError("it holds no row")
    if not isinstance(record, dict) or not record:
        raise ValueError("its record is no object of columns")
    if not isinstance(types, dict) or not all(isinstance(type_name, str) for type_name in types.values()):
        raise ValueError("its types are no object of the columns' PostgreSQL types")
    values: dict[str, str | None] = {}
    for name, value in record.items():
        if name not in types:
            raise ValueError(f"column {name!r} has no type in its types, which has: {', '.join(types) or 'none'}")
        values[name] = _text(name, value)
    # In the order of the types: whoever edits a record may write its columns in any.
    names = [name for name in types if name in values]
    return LetterRow(number, {name: values[name] for name in names}, {name: types[name] for name in names})


def retold(letter: Any) -> Any:
    """What a destination tells of a letter that failed again, with the numbers and truth values that a record has as
    such: the destination was given them as texts. What is no such letter stays as it is."""
    record, types = (letter.get("record"), letter.get("types")) if isinstance(letter, dict) else (None, None)
    if not isinstance(record, dict) or not isinstance(types, dict):
        return letter
    return {**letter, "record": {name: _retold(value, types.get(name)) for name, value in record.items()}}


def _retold(value: Any, type_name: Any) -> Any:
    if not isinstance(value, str):
        return value
    if type_name == "boolean" and value in _TRUTHS:
        return _TRUTHS[value]
    return int(value) if type_name in _INTEGERS and _INTEGER.fullmatch(value) else value


_TRUTHS = {"true": True, "false": False}
_INTEGERS = ("smallint", "integer", "bigint")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def messages_of(rows: Iterable[LetterRow], key: Sequence[str] | None, *, max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Arrow IPC messages with the number of rows in each: a schema's whenever the columns differ from those before.

    `key` is the source table's own. A batch is at most about `max_bytes`, or one row.
    """
    shape: Mapping[str, str] | None = None
    batch: list[LetterRow] = []
    size = 0
    for row in rows:
        if batch and (row.types != shape or size + row.size > max_bytes):
            yield _batch(batch)
            batch, size = [], 0
        if row.types != shape:
            shape = row.types
            yield _schema(shape, key).serialize().to_pybytes(), 0
        batch.append(row)
        size += row.size
    if batch:
        yield _batch(batch)


def _schema(types: Mapping[str, str], key: Sequence[str] | None = None) -> pa.Schema:
    # Told as NOT NULL, although a value may be missing: a destination that follows its stream's columns would drop a
    # NOT NULL of its table, where the row is to be refused for it.
    fields = [
        pa.field(name, pa.string(), nullable=False, metadata={PG_TYPE: type_name.encode()})
        for name, type_name in types.items()
    ]
    return pa.schema(fields, metadata={PRIMARY_KEY: json.dumps(list(key)).encode()} if key else None)


def _batch(rows: Sequence[LetterRow]) -> tuple[bytes, int]:
    schema = _schema(rows[0].types)
    columns = [pa.array([row.values[name] for row in rows], pa.string()) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema).serialize().to_pybytes(), len(rows)


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise ValueError(
            f"column {name!r} holds {'a list' if isinstance(value, list) else 'an object'}: write its text"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"column {name!r} holds half a surrogate pair, which is no text") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON: write it as a text")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found
