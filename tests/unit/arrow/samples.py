"""A value generator for every Arrow type of the connector ABI."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa

Make = Callable[[random.Random], Any]


def _integer(bits: int) -> Make:
    extremes = [0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))]
    return lambda r: r.choice(extremes) if r.random() < 0.2 else r.getrandbits(bits) - 2 ** (bits - 1)


def _float32(r: random.Random) -> float:
    (single,) = struct.unpack("<f", struct.pack("<f", r.gauss(0, 1e10)))
    return r.choice([0.0, -0.0, math.inf, -math.inf, float(single)])


def _float64(r: random.Random) -> float:
    return r.choice([0.0, -0.0, math.inf, -math.inf, 5e-324, r.gauss(0, 1e100)])


def _decimal(precision: int, scale: int) -> Make:
    def make(r: random.Random) -> decimal.Decimal:
        digits = r.randrange(10 ** r.randint(1, precision))
        with decimal.localcontext() as context:
            context.prec = 80
            return decimal.Decimal(r.choice([digits, -digits])).scaleb(-scale)

    return make


def _text(r: random.Random) -> str:
    return r.choice(["", "a", "naïve", "日本語", "\x00", "🐘" * 3, "x" * r.randint(0, 40)])


def _timestamp(r: random.Random) -> dt.datetime:
    return dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=r.randint(-(10**16), 10**16))


def _timestamptz(r: random.Random) -> dt.datetime:
    return _timestamp(r).replace(tzinfo=dt.timezone.utc)


def _time(r: random.Random) -> dt.time:
    return (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=r.randrange(86_400_000_000))).time()


def _interval(r: random.Random) -> tuple[int, int, int]:
    return (r.randint(-1200, 1200), r.randint(-1000, 1000), r.randint(-(2**63), 2**63 - 1))


def _list_of(item: Make, null_chance: float = 0.2) -> Make:
    def make(r: random.Random) -> list[Any]:
        return [None if r.random() < null_chance else item(r) for _ in range(r.randint(0, 4))]

    return make


SCALARS: dict[str, tuple[pa.DataType, Make]] = {
    "bool": (pa.bool_(), lambda r: r.random() < 0.5),
    "int16": (pa.int16(), _integer(16)),
    "int32": (pa.int32(), _integer(32)),
    "int64": (pa.int64(), _integer(64)),
    "float32": (pa.float32(), _float32),
    "float64": (pa.float64(), _float64),
    "decimal128": (pa.decimal128(12, 4), _decimal(12, 4)),
    "decimal128_widest": (pa.decimal128(38, 38), _decimal(38, 38)),
    "decimal256": (pa.decimal256(76, 10), _decimal(76, 10)),
    "utf8": (pa.string(), _text),
    "binary": (pa.binary(), lambda r: r.randbytes(r.randint(0, 20))),
    "date32": (pa.date32(), lambda r: dt.date.fromordinal(r.randint(1, dt.date.max.toordinal()))),
    "timestamp": (pa.timestamp("us"), _timestamp),
    "timestamptz": (pa.timestamp("us", tz="UTC"), _timestamptz),
    "time64": (pa.time64("us"), _time),
    "interval": (pa.month_day_nano_interval(), _interval),
    "uuid": (pa.binary(16), lambda r: r.randbytes(16)),
    "fixed_size_binary_of_3": (pa.binary(3), lambda r: r.randbytes(3)),
}

LISTS: dict[str, tuple[pa.DataType, Make]] = {
    f"list_of_{name}": (pa.list_(pa.field("item", kind)), _list_of(make)) for name, (kind, make) in SCALARS.items()
}

NESTED: dict[str, tuple[pa.DataType, Make]] = {
    "list_of_list": (pa.list_(pa.list_(pa.int32())), _list_of(_list_of(_integer(32)))),
    "list_of_list_of_list": (pa.list_(pa.list_(pa.list_(pa.string()))), _list_of(_list_of(_list_of(_text)))),
}

EVERY_TYPE = {**SCALARS, **LISTS, **NESTED}


def array(name: str, rows: int, null_chance: float, seed: int) -> pa.Array[Any]:
    """`rows` values of the type, each null with that chance."""
    kind, make = EVERY_TYPE[name]
    generator = random.Random(f"{seed}/{name}")
    return pa.array([None if generator.random() < null_chance else make(generator) for _ in range(rows)], type=kind)


def batch(rows: int, null_chance: float, seed: int) -> pa.RecordBatch:
    """A batch with a column of every type."""
    return pa.RecordBatch.from_arrays(
        [array(name, rows, null_chance, seed) for name in EVERY_TYPE], names=list(EVERY_TYPE)
    )
