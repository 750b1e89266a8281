from __future__ import annotations

from typing import Any

import pytest

from rapidbyte_dagster.engine.answers import Checked, Discovered, OpenedDestination, Written, read_answer
from rapidbyte_dagster.errors import Kind, RapidbyteError, Stage

WRITTEN = {"schema": "raw", "table": "users", "columns": [{"name": "id", "type": "bigint", "nullable": False}]}


def test_an_answer_is_read_without_what_the_abi_does_not_have() -> None:
    written = read_answer(Written, {**WRITTEN, "more": 1}, verb="rb_write", stage=Stage.DESTINATION)
    assert (written.schema_, written.table, written.columns[0].name, written.primary_key) == (
        "raw",
        "users",
        "id",
        None,
    )


@pytest.mark.parametrize(
    ("shape", "answer"),
    [
        (Written, {}),
        (Written, {**WRITTEN, "columns": [{"name": "id"}]}),
        (Written, {**WRITTEN, "table": None}),
        (OpenedDestination, {"watermark": {"cursor": 1}}),
        (OpenedDestination, {"watermark": {"sequence": -1}}),
        (OpenedDestination, {"watermark": "secret-watermark"}),
        (Checked, {"findings": [{"level": "secret-level", "check": "x", "message": "y"}]}),
        (Discovered, {"tables": 7}),
    ],
)
def test_an_answer_of_another_shape_is_the_connectors_fault_and_shows_no_value(
    shape: Any, answer: dict[str, Any]
) -> None:
    with pytest.raises(RapidbyteError, match="broke the ABI") as caught:
        read_answer(shape, answer, verb="rb_write", stage=Stage.DESTINATION)
    assert caught.value.kind is Kind.CONNECTOR
    assert caught.value.__context__ is None
    assert "secret" not in str(caught.value)
