"""The hosts that carry a schema message from a source to a destination, and what they refuse."""

from __future__ import annotations

import pyarrow as pa
import pytest

from rapidbyte_dagster.config import Redactor, SchemaEvolution
from rapidbyte_dagster.engine.comparison import Comparison, SchemaCapture
from rapidbyte_dagster.errors import Kind, RapidbyteError, Stage
from rapidbyte_dagster.runtime import End, Message

SCHEMA = pa.schema([pa.field("id", pa.int32())])
MESSAGE = bytes(SCHEMA.serialize().to_pybytes())
BATCH = bytes(pa.RecordBatch.from_arrays([pa.array([1], pa.int32())], schema=SCHEMA).serialize().to_pybytes())

ADDED = {
    "kind": "new_column",
    "column": "phone",
    "stream": "text",
    "table": None,
    "policy": "add",
    "action": "added",
    "ddl": ["ALTER TABLE raw.users ADD COLUMN phone text"],
    "message": "column phone (text) is new: it is added",
}


def comparison(*secrets: str) -> Comparison:
    return Comparison(MESSAGE, SchemaEvolution(), Redactor(secrets))


def captured(*messages: bytes) -> bytes | bytearray:
    capture = SchemaCapture()
    for message in messages:
        capture.emit(message)
    return capture.message


def test_the_message_that_a_source_describes_itself_by_is_kept() -> None:
    assert captured(MESSAGE) == MESSAGE


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "no schema message"),
        ([MESSAGE, MESSAGE], "more than a schema message"),
        ([MESSAGE, BATCH], "more than a schema message"),
        ([BATCH], "a record batch before any schema"),
        ([b"no message"], "malformed Arrow message"),
    ],
)
def test_a_source_that_describes_itself_by_anything_else_broke_the_protocol(messages: list[bytes], told: str) -> None:
    with pytest.raises(RapidbyteError, match=told) as caught:
        captured(*messages)
    assert (caught.value.kind, caught.value.info.stage) == (Kind.PROTOCOL, Stage.SOURCE)


def test_a_destination_is_brought_the_message_and_then_the_end() -> None:
    host = comparison()
    assert [host.next(), host.next()] == [Message(MESSAGE), End()]
    assert host.changes == ()


def test_what_a_destination_tells_is_kept_without_secrets() -> None:
    host = comparison("phone")
    host.drift({"changes": [ADDED]})
    assert [change.action for change in host.changes] == ["added"]
    assert "phone" not in host.changes[0].model_dump_json()


def test_a_destination_that_tells_changes_of_another_policy_broke_the_protocol() -> None:
    with pytest.raises(RapidbyteError, match="policy") as caught:
        comparison().drift({"changes": [{**ADDED, "policy": "ignore"}]})
    assert (caught.value.kind, caught.value.info.stage) == (Kind.PROTOCOL, Stage.DESTINATION)
