"""No address or length that a guest makes up reaches memory outside its own: every host function answers INVALID."""

from __future__ import annotations

from typing import Any

import pytest

from rapidbyte_dagster.errors import Kind, SourceError
from rapidbyte_dagster.runtime import Message
from rapidbyte_dagster.runtime.abi import IMPORTS
from rapidbyte_dagster.runtime.status import Status
from tests.sandbox.connectors import MEGABYTE, Recorder, Scripted, call

WILD = [
    (-1, 1),
    (-1, -1),
    (0, -1),
    (2**31 - 1, 16),
    (-(2**31), 16),
    (64 * MEGABYTE, 1),
    (1024, 64 * MEGABYTE),
    (65_536, -65_536),
]
"""Outside of 64 MB or wrapping around 32 bits, as signed numbers."""

TAKES_POINTER: dict[str, list[Any]] = {
    "emit": ["PTR", "LEN"],
    "barrier": ["PTR", "LEN"],
    "prepare": ["PTR", "LEN"],
    "committed": ["PTR", "LEN"],
    "drift": ["PTR", "LEN"],
    "emit_dlq_batch": ["PTR", "LEN"],
    "tcp_connect": ["PTR", "LEN"],
    "tcp_start_tls": [1, "PTR", "LEN"],
    "tcp_recv": [1, "PTR", "LEN", 100],
    "tcp_send": [1, "PTR", "LEN", 100],
    "log": [1, "PTR", "LEN"],
    "metric": ["PTR", "LEN", 1.0],
    "random": ["PTR", "LEN"],
}


def test_every_import_with_a_pointer_is_covered() -> None:
    without = {"next", "read", "tcp_close", "now", "is_cancelled", "room", "settled", "spool_drop", "pause"}
    # Their numbers are wider than the scripted connector's: `test_spools.py` has them.
    without |= {"spool_append", "spool_read"}
    assert set(TAKES_POINTER) | without == set(IMPORTS)


@pytest.mark.parametrize("name", TAKES_POINTER)
def test_a_wild_pointer_is_invalid(scripted: Scripted, name: str) -> None:
    host = Recorder()
    steps = [
        call(name, *[{"PTR": address, "LEN": length}.get(arg, arg) for arg in TAKES_POINTER[name]])
        for address, length in WILD
    ]
    assert set(scripted.run(*steps, host=host).statuses) == {Status.INVALID}
    assert (host.emitted, host.calls, host.metrics) == ([], [], {})


@pytest.mark.parametrize("address", [-1, -3, 64 * MEGABYTE])
def test_next_with_a_wild_pointer_loses_nothing(scripted: Scripted, address: int) -> None:
    host = Recorder(items=[Message(b"kept")])
    result = scripted.run(call("next", address), {"take": True}, host=host)
    assert result.statuses == [Status.INVALID, 1]
    assert result.shown == ["kept"]


@pytest.mark.parametrize("address", [-1, -3, 64 * MEGABYTE])
def test_read_with_a_wild_pointer_leaves_the_message_pending(scripted: Scripted, address: int) -> None:
    host = Recorder(items=[Message(b"kept")])
    steps = [call("next", 1024), call("read", address, 4), call("read", 1024, 4)]
    assert scripted.run(*steps, host=host).statuses == [1, Status.INVALID, Status.OK]


@pytest.mark.parametrize(("address", "length"), WILD)
def test_a_wild_piece_in_a_good_list_is_invalid(scripted: Scripted, address: int, length: int) -> None:
    host = Recorder()
    assert scripted.run({"emit": ["good", [address, length], "good"]}, host=host).statuses == [Status.INVALID]
    assert host.emitted == []


def test_pieces_that_overlap_cannot_make_a_message_larger_than_the_memory(scripted: Scripted) -> None:
    host = Recorder()
    megabyte = [0, MEGABYTE]
    result = scripted.run({"emit": [megabyte]}, {"emit": [megabyte] * 100}, host=host)
    assert result.statuses == [Status.OK, Status.INVALID]
    assert [len(message) for message in host.emitted] == [MEGABYTE]


def test_too_many_pieces_are_invalid(scripted: Scripted) -> None:
    assert scripted.run(call("emit", 0, 65_537), host=Recorder()).statuses == [Status.INVALID]


def test_the_guest_is_blamed_when_it_gives_up_over_its_own_wild_pointer(scripted: Scripted) -> None:
    with pytest.raises(SourceError, match="calling random: connector 'scripted' broke the ABI") as caught:
        scripted.run(call("random", -1, 8, strict=True))
    assert caught.value.kind is Kind.CONNECTOR
    assert "0xffffffff" in str(caught.value)


def test_zero_bytes_may_be_anywhere(scripted: Scripted) -> None:
    assert scripted.run(call("random", 0, 0), call("random", -1, 0), call("tcp_send", 1, -1, 0, 0)).statuses == [0] * 3
