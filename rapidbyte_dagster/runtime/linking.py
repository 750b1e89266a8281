"""Host functions as callbacks of wasmtime's C API.

wasmtime-py's own `define_func` boxes every argument and keeps an exception of a callback in a global that all threads
share: measured, 7.3 µs a call, and with four threads thousands of exceptions ended up in the wrong thread. The C API's
*unchecked* callbacks take 0.6 µs and have no such global. They get raw values, which is sound because the
module's imports were compared with the ABI's signatures when it was loaded (`connector.py`).

    callback(env, caller, values, count) -> trap        values: count slots of 16 bytes, little-endian,
                                                        arguments in, results out, starting at slot 0

This is the only module that uses `wasmtime._ffi`; pyproject.toml pins wasmtime for its sake.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from rapidbyte_dagster.runtime import abi

_SLOT_WORDS = 4
"""Slots are 16 bytes (room for a v128) and are read as 32-bit words."""

Keep = Callable[[str, BaseException], int]
"""Takes what a host function raised and answers the status for the guest."""

Implementations = Mapping[str, Callable[..., Any]]
"""Host functions by import name; i32 parameters arrive unsigned."""

_RAW_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32), ctypes.c_size_t
)
_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
_VALUE_TYPES = {"i32": wasmtime.ValType.i32, "i64": wasmtime.ValType.i64, "f64": wasmtime.ValType.f64}


def link(engine: wasmtime.Engine, functions: Implementations, keep: Keep) -> tuple[wasmtime.Linker, list[object]]:
    """A linker that offers `functions`, and the callbacks, which must live as long as the store they are used in."""
    linker = wasmtime.Linker(engine)
    alive: list[object] = []
    for name, (params, results) in abi.IMPORTS.items():
        callback = _RAW_CALLBACK(_adapt(name, params, results, functions[name], keep))
        kind = wasmtime.FuncType([_VALUE_TYPES[t]() for t in params], [_VALUE_TYPES[t]() for t in results])
        error = ffi.wasmtime_linker_define_func_unchecked(
            linker.ptr(),
            abi.NAMESPACE.encode(),
            len(abi.NAMESPACE),
            name.encode(),
            len(name),
            kind.ptr(),
            ctypes.cast(callback, ffi.wasmtime_func_unchecked_callback_t),
            None,
            _NO_FINALIZER,
        )
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
        alive.append(callback)
    return linker, alive


def _adapt(
    name: str, params: tuple[str, ...], results: tuple[str, ...], function: Callable[..., Any], keep: Keep
) -> Callable[[Any, Any, Any, int], int]:
    """`function` as a raw callback. Nothing may leave it: ctypes would print it and let the guest run on."""
    if name == "now":
        return _adapt_clock(function)
    if "f64" in params:
        return _adapt_metric(name, function, keep)
    if "i64" in (*params, *results):
        return _adapt_wide(name, params, results, function, keep)
    return _ADAPTERS[len(params)](name, function, keep)


def _adapt0(name: str, function: Callable[..., Any], keep: Keep) -> Callable[[Any, Any, Any, int], int]:
    def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
        try:
            values[0] = function()
        except BaseException as failure:  # noqa: BLE001  a thread's edge: see _adapt
            values[0] = keep(name, failure)
        return 0

    return callback


def _adapt1(name: str, function: Callable[..., Any], keep: Keep) -> Callable[[Any, Any, Any, int], int]:
    def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
        try:
            values[0] = function(values[0])
        except BaseException as failure:  # noqa: BLE001
            values[0] = keep(name, failure)
        return 0

    return callback


def _adapt2(name: str, function: Callable[..., Any], keep: Keep) -> Callable[[Any, Any, Any, int], int]:
    def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
        try:
            values[0] = function(values[0], values[4])
        except BaseException as failure:  # noqa: BLE001
            values[0] = keep(name, failure)
        return 0

    return callback


def _adapt3(name: str, function: Callable[..., Any], keep: Keep) -> Callable[[Any, Any, Any, int], int]:
    def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
        try:
            values[0] = function(values[0], values[4], values[8])
        except BaseException as failure:  # noqa: BLE001
            values[0] = keep(name, failure)
        return 0

    return callback


def _adapt4(name: str, function: Callable[..., Any], keep: Keep) -> Callable[[Any, Any, Any, int], int]:
    def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
        try:
            values[0] = function(values[0], values[4], values[8], values[12])
        except BaseException as failure:  # noqa: BLE001
            values[0] = keep(name, failure)
        return 0

    return callback


_ADAPTERS = (_adapt0, _adapt1, _adapt2, _adapt3, _adapt4)
"""By number of i32 parameters; written out because a loop over slots costs more than the call."""


def _adapt_clock(function: Callable[[], int]) -> Callable[[Any, Any, Any, int], int]:
    def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
        try:
            microseconds = function()
        except BaseException:  # noqa: BLE001  no status in an i64 that is a time
            microseconds = 0
        values[0] = microseconds & 0xFFFFFFFF
        values[1] = microseconds >> 32 & 0xFFFFFFFF
        return 0

    return callback


def _adapt_wide(
    name: str, params: tuple[str, ...], results: tuple[str, ...], function: Callable[..., Any], keep: Keep
) -> Callable[[Any, Any, Any, int], int]:
    """For what is not called for every few rows. i64 parameters arrive signed."""

    def argument(values: Any, slot: int, type_: str) -> int:
        low = int(values[_SLOT_WORDS * slot])
        if type_ == "i32":
            return low
        wide = low | int(values[_SLOT_WORDS * slot + 1]) << 32
        return wide - (wide >> 63 << 64)

    def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
        try:
            result = function(*(argument(values, slot, type_) for slot, type_ in enumerate(params)))
        except BaseException as failure:  # noqa: BLE001
            result = keep(name, failure)
        values[0] = result & 0xFFFFFFFF
        if results == ("i64",):
            values[1] = result >> 32 & 0xFFFFFFFF
        return 0

    return callback


def _adapt_metric(name: str, function: Callable[..., Any], keep: Keep) -> Callable[[Any, Any, Any, int], int]:
    slot = 2 * _SLOT_WORDS

    def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
        try:
            (value,) = struct.unpack("<d", struct.pack("<II", values[slot], values[slot + 1]))
            values[0] = function(values[0], values[4], value)
        except BaseException as failure:  # noqa: BLE001
            values[0] = keep(name, failure)
        return 0

    return callback
