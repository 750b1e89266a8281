"""Dead letters as rows: what a record may hold, and what becomes of it in Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from rapidbyte_dagster.engine.letter_rows import LetterRow, messages_of, read_json, retold, row_of

TYPES = {"id": "bigint", "flag": "boolean", "note": "text"}


def row(record: str, types: dict[str, str] | None = None, number: int = 1) -> LetterRow:
    return row_of(number, read_json(record), types or TYPES)


def read(rows: Sequence[LetterRow], *, max_bytes: int = 2**20) -> list[list[dict[str, Any]]]:
    """The batches, as whoever takes the messages sees them."""
    batches: list[list[dict[str, Any]]] = []
    schema: pa.Schema | None = None
    for message, number in messages_of(rows, ["id"], max_bytes=max_bytes):
        opened = pa.ipc.read_message(message)
        if opened.type == "schema":
            schema = pa.ipc.read_schema(opened)
            assert schema.metadata == {b"rapidbyte:primary_key": b'["id"]'}
            assert number == 0
            continue
        assert schema is not None
        batch = pa.ipc.read_record_batch(opened, schema)
        batch.validate(full=True)
        assert batch.num_rows == number
        batches.append(batch.to_pylist())
    return batches


def test_numbers_keep_their_digits_and_everything_becomes_text() -> None:
    digits = "1" * 6000
    found = row(f'{{"note": 1.50e3, "flag": true, "id": {digits}}}')
    assert dict(found.values) == {"id": digits, "flag": "true", "note": "1.50e3"}
    assert list(found.values) == list(found.types) == ["id", "flag", "note"]
    assert dict(row('{"flag": false, "note": null}').values) == {"flag": "false", "note": None}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("null", "it holds no row"),
        ("{}", "no object of columns"),
        ("[]", "no object of columns"),
        ('{"no": 1}', "column 'no' has no type in its types, which has: id, flag, note"),
        ('{"note": []}', "column 'note' holds a list: write its text"),
        ('{"note": {}}', "column 'note' holds an object: write its text"),
        ('{"note": 1, "note": 2}', "'note' is there twice"),
        ('{"id": -Infinity}', "-Infinity is no number in JSON"),
        ('{"note": "\\ud800"}', "half a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_no_row_is_told(record: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        row(record)


def test_batches_are_of_one_shape_and_bounded() -> None:
    rows = [row(f'{{"id": {number}}}', number=number) for number in range(100)]
    other = row('{"id": 100, "note": null}', number=100)
    found = read([*rows, other, rows[0]], max_bytes=1000)
    assert [each["id"] for batch in found for each in batch] == [*map(str, range(101)), "0"]
    assert found[-2:] == [[{"id": "100", "note": None}], [{"id": "0"}]]
    assert 5 < len(found) < 30
    assert len(read([row('{"note": "' + "x" * 5000 + '"}'), other], max_bytes=1000)) == 2
    assert read([]) == []


def test_values_that_were_given_as_texts_are_told_as_a_record_has_them() -> None:
    types = {"id": "bigint", "flag": "boolean", "note": "text", "sum": "numeric"}
    record = {"id": "-7", "flag": "true", "note": "7", "sum": "7", "gone": "7"}
    assert retold({"record": record, "types": types, "message": "no"}) == {
        "record": {"id": -7, "flag": True, "note": "7", "sum": "7", "gone": "7"},
        "types": types,
        "message": "no",
    }
    for odd in ("07", "-0", "1e3", " 7", "x", "9" * 40):
        assert retold({"record": {"id": odd}, "types": types})["record"] == {"id": odd}
    broken: Any
    for broken in (None, 7, {}, {"record": None, "types": types}, {"record": {}, "types": None}):
        assert retold(broken) == broken
