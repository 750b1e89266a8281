"""Values on their way between a stream's Arrow and DuckDB's: the same but at the ends of their ranges.

    stream                                   DuckDB
    -infinity   -2^31 days, -2^63 µs         -(2^31 - 1) days, -(2^63 - 1) µs
    infinity    2^31 - 1 days, 2^63 - 1 µs   the same
    NaN, ±Infinity of a numeric              none: a row that has one cannot be computed with
    ±infinity of an interval                 none
    timestamps of 294247 to 294276           none (the stream has them wrapped around to negative numbers)

docs/types.md says why the stream has them so.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

Values: TypeAlias = Any
"""A `pa.Array`: the stubs know too little of what can be done with one."""

_DAYS = (-(2**31), -(2**31) + 1)
_MICROS = (-(2**63), -(2**63) + 1)
"""-infinity, as the stream has it and as DuckDB has it."""

FIRST_TIMESTAMP: Final = -210_866_803_200_000_000
"""4714-11-24 BC in µs since 1970, PostgreSQL's first. What is before it in a stream is after its last one."""

_EXACT: Final[dict[pa.DataType, pa.DataType]] = {
    # A byte for each.
    pa.bool8(): pa.bool_(),
    pa.int8(): pa.int16(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}
"""What the stream has no type for, and the next one that holds all of it."""

_STREAM_TYPES: Final = frozenset(
    (pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.date32())
) | {
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.time64("us"),
    pa.month_day_nano_interval(),
    pa.uuid(),
    pa.json_(),
}


def can_compute(data_type: pa.DataType) -> bool:
    """Whether DuckDB takes values of a stream's type."""
    if pa.types.is_list(data_type):
        return not pa.types.is_list(data_type.value_type) and can_compute(data_type.value_type)
    return data_type in _STREAM_TYPES or pa.types.is_decimal128(data_type)


def stream_type(data_type: pa.DataType) -> pa.DataType | None:
    """The stream's type for what DuckDB made; None where there is none."""
    if pa.types.is_list(data_type):
        item = None if pa.types.is_list(data_type.value_type) else stream_type(data_type.value_type)
        # How long an interval is can only be asked of one by itself.
        return None if item is None or pa.types.is_interval(item) else pa.list_(pa.field("item", item))
    exact = _EXACT.get(data_type, data_type)
    return exact if exact in _STREAM_TYPES or pa.types.is_decimal128(exact) else None


def for_engine(values: Values) -> tuple[Values, Values | None]:
    """`values` as DuckDB has them, and where they have no place there: None for nowhere."""
    data_type = values.type
    if pa.types.is_list(data_type):
        return values, _of_lists(values)
    if pa.types.is_date32(data_type):
        return _replaced(values, pa.int32(), *_DAYS), None
    if pa.types.is_timestamp(data_type):
        return _replaced(values, pa.int64(), *_MICROS), _wrapped(values)
    if pa.types.is_decimal128(data_type) or pa.types.is_interval(data_type):
        marks = _MARKS["decimal" if pa.types.is_decimal128(data_type) else "interval"]
        # The 16 bytes of each value, as they are.
        _, data = values.buffers()
        plain = pa.Array.from_buffers(_BYTES_16, len(values), [None, data], 0, values.offset)
        return values, _anywhere(pc.and_(pc.is_in(plain, value_set=marks), values.is_valid()))
    return values, None


def for_stream(values: Values, wanted: pa.DataType) -> tuple[Values, Values | None]:
    """What DuckDB made, as values of `wanted`, and where the stream has no place for them."""
    values = _cast(values, wanted)
    if pa.types.is_date32(wanted):
        return _replaced(values, pa.int32(), *reversed(_DAYS)), None
    if pa.types.is_timestamp(wanted):
        values = _replaced(values, pa.int64(), *reversed(_MICROS))
        return values, _wrapped(values)
    if pa.types.is_list(wanted):
        return values, _of_lists(values)
    return values, None


def _cast(values: Values, wanted: Any) -> Values:
    if values.type == wanted:
        return values
    if values.type == pa.bool8():
        return values.storage.cast(wanted)
    if pa.types.is_list(wanted) and values.type.value_type == pa.bool8():
        items = _cast(values.values, wanted.value_type)
        return pa.ListArray.from_arrays(values.offsets, items, type=wanted, mask=values.is_null())
    return values.cast(wanted)


def _of_lists(values: Values) -> Values | None:
    """Where an item would have to be another number, or has no place at all."""
    items = values.flatten()
    replaced, misfits = for_engine(items)
    if replaced is not items:
        changed = pc.not_equal(replaced, items)
        misfits = changed if misfits is None else pc.or_(misfits, changed)
    if misfits is None or not pc.any(misfits).as_py():
        return None
    parents = values.value_parent_indices().filter(misfits)
    return pc.is_in(pa.array(range(len(values)), parents.type), value_set=parents)


def _replaced(values: Values, numbers: pa.DataType, old: int, new: int) -> Values:
    plain = values.cast(numbers)
    # They are at the end of the range or next to it: nothing is to be done where the least is beyond both.
    least = pc.min(plain).as_py()
    if least is None or least > max(old, new):
        return values
    found = pc.equal(plain, pa.scalar(old, numbers))
    if not pc.any(found).as_py():
        return values
    return pc.if_else(found, pa.scalar(new, numbers), plain).cast(values.type)


def _wrapped(values: Values) -> Values | None:
    plain = values.cast(pa.int64())
    least = pc.min(plain).as_py()
    if least is None or least >= FIRST_TIMESTAMP:
        return None
    return _anywhere(pc.and_(pc.less(plain, pa.scalar(FIRST_TIMESTAMP)), pc.greater(plain, pa.scalar(_MICROS[1]))))


def _anywhere(found: Values) -> Values | None:
    return pc.fill_null(found, False) if pc.any(found).as_py() else None


def _int(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little", signed=True)


_BYTES_16: Final = pa.binary(16)

_MARKS: Final = {
    "decimal": pa.array([_int(value, 16) for value in (-(2**127), -(2**127) + 1, 2**127 - 1)], _BYTES_16),
    "interval": pa.array(
        [
            _int(2**31 - 1, 4) * 2 + _int(2**63 - 1, 8),
            _int(-(2**31), 4) * 2 + _int(-(2**63), 8),
        ],
        _BYTES_16,
    ),
}
