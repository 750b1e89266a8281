"""What a destination tells of how a stream's columns and its table's differ, read: a guest is not trusted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from rapidbyte_dagster.config import Redactor, SchemaEvolution
from rapidbyte_dagster.engine.violation import violation
from rapidbyte_dagster.errors import Stage
from rapidbyte_dagster.state import ChangeAction, ChangeKind, SchemaChange


class _Report(BaseModel):
    changes: tuple[SchemaChange, ...]


def read_changes(payload: Mapping[str, Any], policy: SchemaEvolution, redactor: Redactor) -> tuple[SchemaChange, ...]:
    """The argument of `drift`, without secrets. Raises an error of kind `protocol` that shows none of its values."""
    faults = []
    try:
        changes = _Report.model_validate(payload).changes
    except ValidationError as invalid:
        changes = ()
        faults = [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in invalid.errors(include_input=False)
        ]
    for number, change in enumerate(changes):
        faults += [f"changes.{number}.{fault}" for fault in _faults(change, policy)]
    if faults:
        raise violation(Stage.DESTINATION, f"told of schema changes in a form that the ABI does not have: {faults[0]}")
    return tuple(_without_secrets(change, redactor) for change in changes)


def log_level(change: SchemaChange) -> int | None:
    """That of the change's message; None where an error will say it."""
    if change.action is ChangeAction.REFUSED:
        return None
    return logging.WARNING if change.action.severity == "warning" else logging.INFO


def is_repeated(changes: tuple[SchemaChange, ...], last: tuple[SchemaChange, ...]) -> bool:
    """Whether `changes` only say again what was left aside when `last` was written down: a column that is ignored is
    found in every run."""
    return not any(change.ddl for change in changes) and changes == tuple(change for change in last if not change.ddl)


def _faults(change: SchemaChange, policy: SchemaEvolution) -> list[str]:
    """What does not fit together in it."""
    of_key = change.kind is ChangeKind.PRIMARY_KEY
    faults = []
    if (change.column is None) is not of_key:
        faults.append("column: every change but the primary key's names one")
    if change.policy != (None if of_key else getattr(policy, change.kind)):
        faults.append("policy: not the one in force")
    if change.ddl and change.action is ChangeAction.REFUSED:
        faults.append("ddl: what is refused changes nothing")
    return faults


def _without_secrets(change: SchemaChange, redactor: Redactor) -> SchemaChange:
    # Not the policy, which is one of the file's words.
    texts = {name: getattr(change, name) for name in ("column", "stream", "table", "message")}
    shown: dict[str, Any] = {name: redactor.redact(text) for name, text in texts.items() if text is not None}
    return change.model_copy(update={**shown, "ddl": tuple(map(redactor.redact, change.ddl))})
