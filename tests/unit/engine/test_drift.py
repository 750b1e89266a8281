"""What becomes of the schema changes that a destination reports, between its guest and the state store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import OnDataError, Redactor, Resources, SchemaEvolution
from rapidbyte_dagster.config.models import NewColumn, RemovedColumn, TypeChange
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.drift import read_changes
from rapidbyte_dagster.engine.hosts import CheckpointingHost, DestinationHost
from rapidbyte_dagster.engine.stream_commits import StreamCommits
from rapidbyte_dagster.errors import Kind, RapidbyteError
from rapidbyte_dagster.state import SchemaChange, SchemaEvent
from rapidbyte_dagster.state.sqlite import SqliteStateStore

POLICY = SchemaEvolution(
    new_column=NewColumn.IGNORE, removed_column=RemovedColumn.IGNORE, type_change=TypeChange.COERCE
)
IGNORED: dict[str, Any] = {
    "kind": "new_column",
    "column": "phone",
    "stream": "text",
    "table": None,
    "policy": "ignore",
    "action": "ignored",
    "ddl": [],
    "message": "column phone (text) is new and left out",
}
WIDENED = {
    "kind": "type_change",
    "column": "id",
    "stream": "bigint",
    "table": "integer",
    "policy": "coerce",
    "action": "widened",
    "ddl": ["ALTER TABLE raw.users ALTER COLUMN id TYPE bigint"],
    "message": "column id is bigint now, was integer",
}
KEPT = {**IGNORED, "kind": "removed_column", "column": "fax", "action": "kept", "message": "fax is kept"}
RELAXED = {
    **WIDENED,
    "kind": "nullability_change",
    "policy": "allow",
    "action": "relaxed",
    "message": "id may hold NULL now",
}
KEY = {**IGNORED, "kind": "primary_key", "column": None, "policy": None, "action": "left", "message": "the key is left"}
REFUSED = {**IGNORED, "action": "refused", "message": "column phone is new, and the policy is to fail"}


@dataclass
class Destination:
    """A destination's host, and what it has told to whom."""

    state: SqliteStateStore
    redactor: Redactor = field(default_factory=lambda: Redactor(()))
    lines: list[tuple[int, str]] = field(default_factory=list)
    heard: list[tuple[SchemaChange, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        latest = self.state.latest_checkpoint("shop", "users")
        self.ledger = BarrierLedger(Resources(), latest.sequence if latest else 0)
        on_log = lambda level, message: self.lines.append((level, message))  # noqa: E731
        commits = StreamCommits(
            self.redactor,
            on_log,
            self.state,
            pipeline="shop",
            stream="users",
            run_id="run",
            policy=POLICY,
            on_data_error=OnDataError.FAIL,
            on_drift=self.heard.append,
        )
        self.host = CheckpointingHost(self.redactor, on_log, Channel(1024), self.state, commits)
        self.host.ledger = self.ledger

    def drift(self, *changes: dict[str, Any]) -> None:
        self.host.drift({"changes": list(changes)})

    def commit(self, *, answered: bool = True) -> None:
        pending = self.ledger.mark(None, final=True)
        assert pending is not None
        self.host.prepare({"sequence": pending.sequence, "rows": 0})
        if answered:
            self.host.committed({"sequence": pending.sequence})


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqliteStateStore]:
    with SqliteStateStore(tmp_path / "state.db") as store:
        yield store


def history(state: SqliteStateStore) -> Sequence[SchemaEvent]:
    return state.schema_state("shop", "users").history


def columns(events: Sequence[SchemaEvent]) -> list[list[str | None]]:
    return [[change.column for change in event.changes] for event in events]


def test_changes_are_recorded_with_the_checkpoint_that_follows_them(state: SqliteStateStore) -> None:
    destination = Destination(state)
    destination.drift(WIDENED, IGNORED)
    assert [[change.model_dump(mode="json") for change in report] for report in destination.heard] == [
        [WIDENED, IGNORED]
    ]
    destination.commit(answered=False)
    assert history(state) == ()
    destination.host.committed({"sequence": 1})
    (event,) = history(state)
    assert (event.run_id, event.sequence) == ("run", 1)
    assert [change.model_dump(mode="json") for change in event.changes] == [WIDENED, IGNORED]
    assert destination.host.checkpoint is not None
    assert (
        destination.host.checkpoint.schema_changes == tuple(destination.host.commits.prepared_changes) == event.changes
    )


def test_a_commit_without_a_report_has_no_changes(state: SqliteStateStore) -> None:
    destination = Destination(state)
    destination.commit()
    assert (destination.host.commits.prepared_changes, history(state)) == ({}, ())


def test_of_several_reports_before_a_commit_the_last_one_belongs_to_it(state: SqliteStateStore) -> None:
    destination = Destination(state)
    destination.drift(WIDENED, IGNORED)
    destination.drift(WIDENED)
    destination.commit()
    assert columns(history(state)) == [["id"]]
    assert len(destination.heard) == 2


def test_what_is_ignored_in_every_run_is_recorded_once_and_told_each_time(state: SqliteStateStore) -> None:
    for _ in range(3):
        destination = Destination(state)
        destination.drift(IGNORED, KEPT)
        destination.commit()
        assert [change.column for change in destination.host.commits.prepared_changes] == ["phone", "fax"]
    assert columns(history(state)) == [["phone", "fax"]]
    assert [checkpoint.sequence for checkpoint in state.checkpoints("shop", "users")] == [3, 2, 1]


def test_what_is_left_aside_again_beside_ddl_or_after_it_is_no_news(state: SqliteStateStore) -> None:
    for report in ([IGNORED], [IGNORED, WIDENED], [IGNORED], [IGNORED, KEPT], [KEPT], [KEPT]):
        destination = Destination(state)
        destination.drift(*report)
        destination.commit()
    assert columns(history(state)) == [["phone"], ["phone", "id"], ["phone", "fax"], ["fax"]]


def test_ddl_is_recorded_each_time_it_is_done(state: SqliteStateStore) -> None:
    for _ in range(2):
        destination = Destination(state)
        destination.drift(WIDENED)
        destination.commit()
    assert columns(history(state)) == [["id"], ["id"]]


def test_a_commit_that_did_not_happen_leaves_its_changes_to_be_recorded_again(state: SqliteStateStore) -> None:
    lost = Destination(state)
    lost.drift(IGNORED)
    lost.commit(answered=False)
    state.reconcile("shop", "users", None)
    destination = Destination(state)
    destination.ledger = destination.host.ledger = BarrierLedger(Resources(), 1)
    destination.drift(IGNORED)
    destination.commit()
    assert columns(history(state)) == [["phone"]]


def test_a_run_of_many_commits_tells_each_change_once(state: SqliteStateStore) -> None:
    destination = Destination(state)
    ledger = BarrierLedger(Resources(checkpoint_interval_rows=1), 0)
    destination.host.ledger = ledger
    for sequence in (1, 2):
        ledger.count(1, 10)
        ledger.mark(sequence, final=False)
        destination.drift(IGNORED)
        destination.host.prepare({"sequence": sequence, "rows": 1})
        destination.host.committed({"sequence": sequence})
    assert [change.column for change in destination.host.commits.prepared_changes] == ["phone"]
    assert columns(history(state)) == [["phone"]]
    assert len(destination.heard) == 2
    assert len(destination.lines) == 1


def test_each_change_is_logged_as_loudly_as_it_matters(state: SqliteStateStore) -> None:
    destination = Destination(state)
    destination.drift(WIDENED, RELAXED, KEPT, IGNORED, KEY)
    assert destination.lines == [
        (logging.INFO, "destination: column id is bigint now, was integer"),
        (logging.INFO, "destination: id may hold NULL now"),
        (logging.INFO, "destination: fax is kept"),
        (logging.WARNING, "destination: column phone (text) is new and left out"),
        (logging.WARNING, "destination: the key is left"),
    ]


def test_what_is_refused_is_heard_and_left_to_the_error_to_say(state: SqliteStateStore) -> None:
    destination = Destination(state)
    destination.drift(REFUSED)
    assert [change.action.severity for change in destination.heard[0]] == ["error"]
    assert destination.lines == []
    with pytest.raises(RapidbyteError, match="although it refused") as caught:
        destination.commit()
    assert caught.value.kind is Kind.PROTOCOL
    assert history(state) == ()


def test_secrets_stay_out_of_what_is_told_and_kept(state: SqliteStateStore) -> None:
    secret = {
        **WIDENED,
        "column": "s3cr3t_id",
        "stream": "s3cr3t.mood",
        "table": '"s3cr3t".mood',
        "ddl": ['ALTER TABLE "s3cr3t".users ALTER COLUMN id TYPE bigint'],
        "message": "column id of s3cr3t.users",
    }
    destination = Destination(state, Redactor({"s3cr3t": "${SCHEMA}"}))
    destination.drift(secret)
    destination.commit()
    (event,) = history(state)
    for told in (str(destination.lines), str(destination.heard), event.model_dump_json()):
        assert "s3cr3t" not in told
        assert "${SCHEMA}.users" in told


MALFORMED: list[tuple[Any, str]] = [
    ({}, "changes: Field required"),
    ({"changes": None}, "changes: "),
    ({"changes": {}}, "changes: "),
    ({"changes": ["secret"]}, "changes.0: "),
    ({"changes": [{**IGNORED, "kind": "secret"}]}, "changes.0.kind: "),
    ({"changes": [IGNORED, {**IGNORED, "action": "secret"}]}, "changes.1.action: "),
    ({"changes": [{**IGNORED, "message": None}]}, "changes.0.message: "),
    ({"changes": [{**IGNORED, "stream": ["secret"]}]}, "changes.0.stream: "),
    ({"changes": [{**IGNORED, "ddl": "secret"}]}, "changes.0.ddl: "),
    ({"changes": [{**IGNORED, "ddl": [7]}]}, "changes.0.ddl.0: "),
    ({"changes": [{**IGNORED, "column": None}]}, "changes.0.column: every change but the primary key's names one"),
    ({"changes": [{**KEY, "column": "secret"}]}, "changes.0.column: "),
    ({"changes": [{**IGNORED, "policy": "secret"}]}, "changes.0.policy: not the one in force"),
    ({"changes": [{**IGNORED, "policy": None}]}, "changes.0.policy: "),
    ({"changes": [{**KEY, "policy": "ignore"}]}, "changes.0.policy: "),
    ({"changes": [{**REFUSED, "ddl": ["secret"]}]}, "changes.0.ddl: what is refused changes nothing"),
]


@pytest.mark.parametrize(("payload", "told"), MALFORMED)
def test_a_report_of_another_form_is_the_connectors_fault_and_shows_no_value(
    state: SqliteStateStore, payload: Any, told: str
) -> None:
    destination = Destination(state)
    with pytest.raises(RapidbyteError) as caught:
        destination.host.drift(payload)
    assert caught.value.kind is Kind.PROTOCOL
    assert told in caught.value.info.message
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None
    assert (destination.heard, destination.lines) == ([], [])


def test_what_the_abi_does_not_have_is_passed_over() -> None:
    (change,) = read_changes({"changes": [{**IGNORED, "more": 1}], "more": 2}, POLICY, Redactor(()))
    assert change.model_dump(mode="json") == IGNORED


def test_nothing_is_a_report_too(state: SqliteStateStore) -> None:
    destination = Destination(state)
    destination.drift(IGNORED)
    destination.drift()
    destination.commit()
    assert history(state) == ()


def test_a_destination_that_writes_nothing_has_no_changes_to_tell(state: SqliteStateStore) -> None:
    destination = Destination(state)
    destination.host.ledger = None
    with pytest.raises(RapidbyteError, match="sent schema changes outside of rb_write"):
        destination.drift(IGNORED)


def test_a_shards_destination_may_not_tell_of_changes() -> None:
    host = DestinationHost(Redactor(()), lambda level, message: None, Channel(1024))
    host.ledger = BarrierLedger(Resources(), 0)
    with pytest.raises(RapidbyteError, match="for a shard") as caught:
        host.drift({"changes": [IGNORED]})
    assert caught.value.kind is Kind.PROTOCOL
