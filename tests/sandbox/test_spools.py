"""What a guest puts by on the host's disk, and the functions whose numbers are 64 bits wide."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.runtime import Connector, Instance, NoData
from tests.sandbox.connectors import EXPORTS_OF_A_SOURCE, OPEN_SANDBOX, write_module

IMPORTS = """
    (import "rapidbyte" "spool_append" (func $append (param i64 i32 i32) (result i32)))
    (import "rapidbyte" "spool_read" (func $read (param i64 i64 i32 i32) (result i32)))
    (import "rapidbyte" "spool_drop" (func $drop (param i64) (result i32)))
    (import "rapidbyte" "room" (func $room (param i32) (result i32)))
    (import "rapidbyte" "settled" (func $settled (result i64)))
"""

ANSWER = r'{"ok": {"text": "........", "count": 0}}'
AT = 64
TEXT_AT = AT + ANSWER.index(".")
COUNT_AT = AT + ANSWER.index("0}")

ID = -(2**40)
FAR = 2**33


class Settled(NoData):
    asked: float | None = None

    def room(self, seconds: float) -> bool:
        self.asked = seconds
        return True

    def settled(self) -> int:
        return 2**40 + 5


def read(folder: Path, body: str, host: NoData | None = None) -> dict[str, object]:
    """What `rb_read` answers that has run `body`, which leaves the number for `count`."""
    answer = ANSWER.replace('"', r"\"")
    verb = f"""
        (data (i32.const 0) "abcdefgh") (data (i32.const {AT}) "{answer}")
        (func (export "rb_read") (param i32 i32) (result i64) (local i32)
            i32.const {COUNT_AT} {body} i32.const 48 i32.add i32.store8
            i64.const {AT << 32 | len(ANSWER)})
    """
    exports = EXPORTS_OF_A_SOURCE.replace('(func (export "rb_read") (param i32 i32) (result i64) i64.const 0)', verb)
    connector = Connector.load(write_module(folder, IMPORTS + exports))
    with Instance(connector, host=host or NoData(), sandbox=OPEN_SANDBOX, stage=Stage.SOURCE) as instance:
        return instance.call("rb_read", {})


def append(at: int, length: int) -> str:
    return f"(drop (call $append (i64.const {ID}) (i32.const {at}) (i32.const {length})))"


def test_what_is_put_by_is_read_from_any_place(tmp_path: Path) -> None:
    take = f"(call $read (i64.const {ID}) (i64.const 2) (i32.const {TEXT_AT}) (i32.const 8))"
    assert read(tmp_path, append(0, 3) + append(3, 4) + take) == {"text": "cdefg...", "count": 5}


def test_beyond_its_end_there_is_nothing(tmp_path: Path) -> None:
    take = f"(call $read (i64.const {ID}) (i64.const {FAR}) (i32.const {TEXT_AT}) (i32.const 8))"
    assert read(tmp_path, append(0, 3) + take)["count"] == 0


def test_a_spool_that_is_dropped_is_gone(tmp_path: Path) -> None:
    take = f"(i32.sub (i32.const 0) (call $read (i64.const {ID}) (i64.const 0) (i32.const {TEXT_AT}) (i32.const 8)))"
    dropped = f"(drop (call $drop (i64.const {ID})))"
    # INVALID is -1.
    assert read(tmp_path, append(0, 3) + dropped + take)["count"] == 1


def test_more_than_fits_in_memory_comes_back_whole(tmp_path: Path) -> None:
    """Both pages of its memory, a hundred times: they go to the disk."""
    again = f"""(block (result i32)
        (loop $again {append(0, 131072)}
            (br_if $again (i32.lt_u (local.tee 2 (i32.add (local.get 2) (i32.const 1))) (i32.const 100))))
        (call $read (i64.const {ID}) (i64.const {99 * 131072 + 1}) (i32.const {TEXT_AT}) (i32.const 3)))"""
    assert read(tmp_path, again) == {"text": "bcd.....", "count": 3}


def test_wide_numbers_arrive_whole(tmp_path: Path) -> None:
    host = Settled()
    same = f"(i64.eq (call $settled) (i64.const {2**40 + 5}))"
    asked = "(drop (call $room (i32.const 1500)))"
    assert read(tmp_path, asked + same, host)["count"] == 1
    assert host.asked == 1.5


def test_a_spool_beyond_the_guests_memory_is_refused(tmp_path: Path) -> None:
    wild = f"(i32.sub (i32.const 0) (call $append (i64.const {ID}) (i32.const 131000) (i32.const 1000)))"
    assert read(tmp_path, wild)["count"] == 1


def test_a_place_beyond_the_guests_memory_is_not_read_into(tmp_path: Path) -> None:
    take = f"(i32.sub (i32.const 0) (call $read (i64.const {ID}) (i64.const 0) (i32.const 131000) (i32.const 1000)))"
    assert read(tmp_path, append(0, 3) + take)["count"] == 1


def test_a_host_without_a_stream_settles_nothing(tmp_path: Path) -> None:
    negative = "(i32.wrap_i64 (i64.sub (i64.const 0) (call $settled)))"
    assert read(tmp_path, negative)["count"] == 1


def test_a_disk_that_is_full_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder for temporary files does not take any."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    loops = "".join(append(0, 131072) for _ in range(3))
    failed = f"(i32.sub (i32.const 0) (call $append (i64.const {ID}) (i32.const 0) (i32.const 131072)))"
    # FAILED is -6.
    assert read(tmp_path, loops + failed)["count"] == 6
