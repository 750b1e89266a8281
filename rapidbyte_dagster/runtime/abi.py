"""ABI version 1 in tables: what a connector exports, what it may import, and the limits of what crosses.

`docs/connector-abi.md` is the text of this contract.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
NAMESPACE: Final = "rapidbyte"
"""The one module that a connector may import from."""

Signature = tuple[tuple[str, ...], tuple[str, ...]]
"""Parameter and result types by their WebAssembly names."""

_I32: Final = "i32"
_I64: Final = "i64"

IMPORTS: Final[dict[str, Signature]] = {
    "emit": ((_I32, _I32), (_I32,)),
    "barrier": ((_I32, _I32), (_I32,)),
    "next": ((_I32,), (_I32,)),
    "read": ((_I32, _I32), (_I32,)),
    "prepare": ((_I32, _I32), (_I32,)),
    "committed": ((_I32, _I32), (_I32,)),
    "drift": ((_I32, _I32), (_I32,)),
    "emit_dlq_batch": ((_I32, _I32), (_I32,)),
    "room": ((_I32,), (_I32,)),
    "settled": ((), (_I64,)),
    "spool_append": ((_I64, _I32, _I32), (_I32,)),
    "spool_read": ((_I64, _I64, _I32, _I32), (_I32,)),
    "spool_drop": ((_I64,), (_I32,)),
    "tcp_connect": ((_I32, _I32), (_I32,)),
    "tcp_start_tls": ((_I32, _I32, _I32), (_I32,)),
    "tcp_recv": ((_I32, _I32, _I32, _I32), (_I32,)),
    "tcp_send": ((_I32, _I32, _I32, _I32), (_I32,)),
    "tcp_close": ((_I32,), (_I32,)),
    "log": ((_I32, _I32, _I32), (_I32,)),
    "metric": ((_I32, _I32, "f64"), (_I32,)),
    "now": ((), ("i64",)),
    "random": ((_I32, _I32), (_I32,)),
    "is_cancelled": ((), (_I32,)),
    "pause": ((_I32,), (_I32,)),
}

_VERB: Final[Signature] = ((_I32, _I32), ("i64",))

EXPORTS: Final[dict[str, Signature]] = {
    "rb_abi_version": ((), (_I32,)),
    "rb_alloc": ((_I32,), (_I32,)),
    "rb_free": ((_I32, _I32), ()),
    "rb_spec": _VERB,
    "rb_open": _VERB,
    "rb_check": _VERB,
    "rb_close": _VERB,
}
"""What every connector exports, beside `memory`."""

EXPORTS_OF_ROLE: Final[dict[str, dict[str, Signature]]] = {
    "source": {"rb_discover": _VERB, "rb_read": _VERB},
    "destination": {"rb_write": _VERB},
    "transform": {"rb_transform": _VERB},
}

OPTIONAL_EXPORTS_OF_ROLE: Final[dict[str, dict[str, Signature]]] = {
    "source": {
        "rb_capture": _VERB,
        "rb_confirm": _VERB,
        "rb_describe": _VERB,
        "rb_digest": _VERB,
        "rb_slot": _VERB,
        "rb_snapshot": _VERB,
        "rb_split": _VERB,
    },
    "destination": {
        "rb_apply": _VERB,
        "rb_compare": _VERB,
        "rb_digest": _VERB,
        "rb_rewind": _VERB,
        "rb_stage": _VERB,
    },
    "transform": {},
}
"""What a connector may leave out; `Connector.offers` tells."""

MAX_MODULE_BYTES: Final = 64 * 1024 * 1024
"""A connector's .wasm file. The first-party ones stay below 1 MB."""

MAX_RESULT_BYTES: Final = 64 * 1024 * 1024
"""A verb's JSON result. The largest is `rb_discover` of tens of thousands of tables: about 1 KB each."""

MAX_CONTROL_BYTES: Final = 4 * 1024 * 1024
"""A JSON argument of a host function: a barrier with its cursor, a connection's target."""

MAX_LETTERS_BYTES: Final = 256 * 1024 * 1024
"""The JSON of dead letters handed over at once. A row of 100 MB has to fit whose bytes JSON doubles, as `\\x…` does."""

MAX_LOG_BYTES: Final = 16 * 1024
"""One log line; what is longer is cut."""

MAX_METRIC_NAME_BYTES: Final = 128

MAX_METRICS: Final = 256
"""Counters of one instance; each becomes a line of a run's metadata."""

MAX_RANDOM_BYTES: Final = 1024 * 1024
"""Random bytes at once; keys, nonces and salts are tens of bytes."""

MAX_PAUSE_MS: Final = 100
"""One `pause`: shorter than anybody waits who stops a run."""

MAX_SPOOLS: Final = 4096
"""Files of what does not fit into memory: one for each transaction that its source has begun to send."""

MAX_PIECES: Final = 65_536
"""Pieces of one emitted message: three buffers for each of PostgreSQL's 1,600 columns is less than a tenth of it."""

MAX_MESSAGE_BYTES: Final = 2**31 - 1
"""One IPC message. PostgreSQL's largest value is 1 GB; Arrow's lengths and the ABI's results are signed 32-bit."""


def describe(signature: Signature) -> str:
    """`signature` as WebAssembly's text format has it: `(i32, i32) -> (i64)`."""
    params, results = signature
    return f"({', '.join(params)}) -> ({', '.join(results)})"
