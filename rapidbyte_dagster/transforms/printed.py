"""A row's values as PostgreSQL prints them under the settings that every session has here: ISO dates, UTC, all digits.

For rows that are set aside, so that they can be written again exactly. connectors/postgres/printed.zig does the same
from the server's own bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from rapidbyte_dagster.transforms.arrow_values import FIRST_TIMESTAMP, Values

PG_TYPE: Final = b"rapidbyte:pg_type"

_TYPES: Final[dict[pa.DataType, str]] = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.binary(): "bytea",
    pa.date32(): "date",
    pa.timestamp("us"): "timestamp without time zone",
    pa.timestamp("us", "UTC"): "timestamp with time zone",
    pa.time64("us"): "time without time zone",
    pa.month_day_nano_interval(): "interval",
    pa.uuid(): "uuid",
    pa.json_(): "jsonb",
}

_MICROS_PER_DAY: Final = 86_400_000_000
_DAYS_TO_1970: Final = 719_468
"""From 0000-03-01, where years begin that end with their leap day."""


class Unprintable(Exception):
    """A value that PostgreSQL has no text for."""


def pg_type(field: pa.Field[Any]) -> str:
    """The field's PostgreSQL type: the one it tells, or the one that its column would be made of."""
    told = (field.metadata or {}).get(PG_TYPE)
    if told is not None:
        return bytes(told).decode()
    if pa.types.is_list(field.type):
        return f"{_plain_type(field.type.value_type)}[]"
    return _plain_type(field.type)


UNREADABLE: Final = "BLOB"
"""Of types whose texts DuckDB writes in another way."""


def of_text(type_name: str) -> str | None:
    """DuckDB's type for values of a PostgreSQL type that come as texts; None where they are texts in any case."""
    plain = re.sub(r"\([0-9]+\)", "", type_name)
    if plain in _DUCKDB_TYPES:
        return _DUCKDB_TYPES[plain]
    numeric = re.fullmatch(r"numeric\(([0-9]+),([0-9]+)\)", type_name)
    if numeric is None:
        return UNREADABLE if type_name.endswith("[]") else None
    precision, scale = map(int, numeric.groups())
    if scale > precision or precision > _ARROW_DIGITS:
        return None
    return f"DECIMAL({precision}, {scale})" if precision <= _DUCKDB_DIGITS else UNREADABLE


_ARROW_DIGITS: Final = 76
_DUCKDB_DIGITS: Final = 38

_DUCKDB_TYPES: Final = {
    "boolean": "BOOLEAN",
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "real": "FLOAT",
    "double precision": "DOUBLE",
    "bytea": UNREADABLE,
    "date": "DATE",
    "time without time zone": "TIME",
    "timestamp without time zone": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMPTZ",
    "interval": UNREADABLE,
    "uuid": "UUID",
    "json": "JSON",
    "jsonb": "JSON",
}


def _plain_type(data_type: pa.DataType) -> str:
    if pa.types.is_decimal(data_type):
        return f"numeric({data_type.precision},{data_type.scale})"
    return _TYPES.get(data_type, "text")


def printed(batch: pa.RecordBatch, row: int) -> dict[str, bool | int | str | None]:
    """The row as a dead letter's record. Raises `Unprintable`."""
    return {name: _cell(batch.column(place).slice(row, 1)) for place, name in enumerate(batch.schema.names)}


def _cell(value: Values) -> bool | int | str | None:
    """Of one value. What JSON has a form for stays what it is."""
    if value.null_count:
        return None
    if pa.types.is_boolean(value.type) or pa.types.is_integer(value.type):
        plain: bool | int = value[0].as_py()
        return plain
    return _text(value)


def _text(value: Values) -> str:
    """Of one value that is not NULL."""
    data_type = value.type
    if pa.types.is_list(data_type):
        return _array(value.flatten())
    if isinstance(data_type, pa.BaseExtensionType):
        return _uuid(value.storage[0].as_py()) if data_type == pa.uuid() else str(value.storage[0].as_py())
    if pa.types.is_decimal(data_type):
        return _decimal(value)
    for is_type, text in _TEXTS:
        if is_type(data_type):
            return text(value)
    raise Unprintable(f"{data_type} has no text form")


def _array(items: Values) -> str:
    """https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO"""
    texts = []
    for place in range(len(items)):
        item = items.slice(place, 1)
        texts.append("NULL" if item.null_count else _quoted(_text(item)))
    return "{" + ",".join(texts) + "}"


def _quoted(text: str) -> str:
    if text and not _SPECIAL.search(text) and text.upper() != "NULL":
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


_SPECIAL: Final = re.compile('["\\\\{}, \t\n\r\v\f]')


def _float(value: Values) -> str:
    """The shortest digits that are this number again; float8out and float4out choose between `0.00015` and `1.5e-05` by
    the digits that the type is sure to have."""
    number = value[0].as_py()
    if number != number:
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "Infinity" if number > 0 else "-Infinity"
    if number == 0:
        # Which of the two zeros, the decimal below would not say.
        return "-0" if str(number).startswith("-") else "0"
    sign, digits, _ = Decimal(value.cast(pa.string())[0].as_py()).normalize().as_tuple()
    exponent = Decimal(value.cast(pa.string())[0].as_py()).adjusted()
    text = "".join(map(str, digits))
    sure_digits = 6 if pa.types.is_float32(value.type) else 15
    if exponent < -4 or exponent >= sure_digits:
        fraction = f".{text[1:]}" if len(text) > 1 else ""
        text = f"{text[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
    elif exponent < 0:
        text = f"0.{'0' * (-exponent - 1)}{text}"
    elif len(text) <= exponent + 1:
        text += "0" * (exponent + 1 - len(text))
    else:
        text = f"{text[: exponent + 1]}.{text[exponent + 1 :]}"
    return f"-{text}" if sign else text


def _decimal(value: Values) -> str:
    size = value.type.byte_width
    data = value.buffers()[1].to_pybytes()[value.offset * size : (value.offset + 1) * size]
    unscaled = int.from_bytes(data, "little", signed=True)
    largest = 2 ** (8 * size - 1) - 1
    if unscaled in (-largest - 1, -largest, largest):
        return {-largest - 1: "NaN", -largest: "-Infinity", largest: "Infinity"}[unscaled]
    digits = str(abs(unscaled)).rjust(value.type.scale + 1, "0")
    whole, fraction = digits[: len(digits) - value.type.scale], digits[len(digits) - value.type.scale :]
    return ("-" if unscaled < 0 else "") + whole + (f".{fraction}" if fraction else "")


def _date(value: Values) -> str:
    days = value.cast(pa.int32())[0].as_py()
    if days in (-(2**31), 2**31 - 1):
        return "infinity" if days > 0 else "-infinity"
    text, era = _calendar(days)
    return text + era


def _timestamp(value: Values) -> str:
    micros = value.cast(pa.int64())[0].as_py()
    if micros in (-(2**63), 2**63 - 1):
        return "infinity" if micros > 0 else "-infinity"
    if micros < FIRST_TIMESTAMP:
        micros += 2**64
    days, time = divmod(micros, _MICROS_PER_DAY)
    text, era = _calendar(days)
    return f"{text} {_clock(time)}{'+00' if value.type.tz else ''}{era}"


def _calendar(days: int) -> tuple[str, str]:
    """`2024-02-29` of days since 1970, and ` BC` where it is. https://howardhinnant.github.io/date_algorithms.html"""
    era, day_of_era = divmod(days + _DAYS_TO_1970, 146_097)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = 400 * era + year_of_era + (month <= 2)
    return (f"{year:04}-{month:02}-{day:02}", "") if year > 0 else (f"{1 - year:04}-{month:02}-{day:02}", " BC")


def _clock(micros: int) -> str:
    """`04:05:06.789`, with as many hours as there are."""
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _interval(value: Values) -> str:
    """EncodeInterval of datetime.c, in the style `postgres`: `1 year -2 mons +3 days 04:05:06.789`."""
    months, days, nanos = value[0].as_py()
    if (months, days, nanos) in _INFINITE:
        return _INFINITE[months, days, nanos]
    micros, rest = (abs(nanos) // 1000, abs(nanos) % 1000)
    if rest:
        raise Unprintable("an interval with nanoseconds has no text form")
    years, months = (
        (abs(months) // 12, abs(months) % 12) if months >= 0 else (-(abs(months) // 12), -(abs(months) % 12))
    )
    parts: list[str] = []
    follows_minus = False
    for number, unit in ((years, "year"), (months, "mon"), (days, "day")):
        if number:
            plus = "+" if follows_minus and number > 0 else ""
            parts.append(f"{plus}{number} {unit}{'' if number == 1 else 's'}")
            follows_minus = number < 0
    if micros or not parts:
        parts.append(("-" if nanos < 0 else "+" if follows_minus else "") + _clock(micros))
    return " ".join(parts)


_INFINITE: Final = {
    (2**31 - 1, 2**31 - 1, 2**63 - 1): "infinity",
    (-(2**31), -(2**31), -(2**63)): "-infinity",
}


def _uuid(value: bytes) -> str:
    text = value.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


_TEXTS: Final[tuple[tuple[Callable[[Any], bool], Callable[[Any], str]], ...]] = (
    (pa.types.is_string, lambda value: str(value[0].as_py())),
    (pa.types.is_binary, lambda value: "\\x" + value[0].as_py().hex()),
    (pa.types.is_boolean, lambda value: "t" if value[0].as_py() else "f"),
    (pa.types.is_integer, lambda value: str(value[0].as_py())),
    (pa.types.is_floating, _float),
    (pa.types.is_date32, _date),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_time64, lambda value: _clock(value.cast(pa.int64())[0].as_py())),
    (pa.types.is_interval, _interval),
)
