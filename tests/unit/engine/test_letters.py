"""What becomes of rows that a connector set aside, between its guest and the state store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rapidbyte_dagster.config import OnDataError, Redactor, Resources, SchemaEvolution
from rapidbyte_dagster.engine.barriers import BarrierLedger
from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.hosts import CheckpointingHost, DestinationHost, SourceHost
from rapidbyte_dagster.engine.letters import Letters, read_letters
from rapidbyte_dagster.engine.stream_commits import StreamCommits
from rapidbyte_dagster.errors import Kind, RapidbyteError, Stage
from rapidbyte_dagster.runtime import Barrier, End
from rapidbyte_dagster.state import LetterCategory
from rapidbyte_dagster.state.sqlite import SqliteStateStore

LETTER: dict[str, Any] = {
    "record": {"id": 2**70, "ü": "x\0y", "b": "\\x00ff", "ok": True, "none": None},
    "types": {"id": "numeric", "ü": "text", "b": "bytea", "ok": "boolean", "none": "text"},
    "message": "duplicate key value violates unique constraint",
    "category": "unique",
    "sqlstate": "23505",
    "constraint": "users_pkey",
    "column": None,
}


@dataclass
class Stages:
    """Both hosts of a stream, and what they share."""

    state: SqliteStateStore
    on_data_error: OnDataError = OnDataError.DLQ
    redactor: Redactor = field(default_factory=lambda: Redactor(()))
    interval: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        self.channel = Channel(1 << 20)
        self.ledger = BarrierLedger(Resources(checkpoint_interval_rows=self.interval), self.after)
        self.source = SourceHost(self.redactor, self._log, self.channel, self.on_data_error)
        self.commits = StreamCommits(
            self.redactor,
            self._log,
            self.state,
            pipeline="shop",
            stream="users",
            run_id="run",
            policy=SchemaEvolution(),
            on_data_error=self.on_data_error,
            on_drift=lambda _: None,
        )
        self.destination = CheckpointingHost(self.redactor, self._log, self.channel, self.state, self.commits)
        self.source.ledger = self.destination.ledger = self.ledger

    def _log(self, level: int, message: str) -> None:
        raise AssertionError(message)

    def emit(self, rows: int, cursor: Any = None, *, final: bool = True) -> None:
        """The source's rows, and the barrier behind them."""
        self.ledger.count(rows, 10 * rows)
        self.source.barrier({"cursor": cursor, "final": final})

    def prepare(self, sequence: int, rows: int, rejected: Any = 0) -> None:
        self.destination.prepare({"sequence": sequence, "rows": rows, "bytes": 0, "rejected": rejected})

    def commit(self, sequence: int, rows: int, rejected: int = 0) -> None:
        self.prepare(sequence, rows, rejected)
        self.destination.committed({"sequence": sequence})

    @property
    def counts(self) -> tuple[int, int, int]:
        """Rows, rejected rows and dead letters of the last checkpoint."""
        checkpoint = self.destination.checkpoint
        assert checkpoint is not None
        return checkpoint.rows, checkpoint.rejected, checkpoint.dead_letters


def told(*messages: str, **others: Any) -> dict[str, Any]:
    return {"letters": [{**LETTER, "message": message, **others} for message in messages]}


def kept(state: SqliteStateStore) -> list[tuple[int, str, str]]:
    rows = state.dead_letters("shop", "users").to_pylist()
    return [(row["checkpoint_sequence"], row["stage"], row["error_message"]) for row in rows]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqliteStateStore]:
    with SqliteStateStore(tmp_path / "state.db") as store:
        yield store


def test_a_row_is_kept_with_its_reason_as_it_was_told(state: SqliteStateStore) -> None:
    stages = Stages(state)
    stages.emit(1)
    stages.destination.emit_dlq_batch({"letters": [LETTER]})
    stages.commit(1, rows=1, rejected=1)
    (row,) = state.dead_letters("shop", "users").to_pylist()
    assert json.loads(row["record_json"]) == LETTER["record"]
    assert json.loads(row["types_json"]) == LETTER["types"]
    reason = [row[name] for name in ("error_category", "sqlstate", "constraint_name", "column_name", "stage")]
    assert reason == ["unique", "23505", "users_pkey", None, "destination"]
    assert stages.counts == (0, 1, 1)
    assert (stages.commits.rejected, stages.commits.dead_letters) == (1, 1)


def test_both_sides_dead_letters_belong_to_the_checkpoint_of_their_place_in_the_stream(state: SqliteStateStore) -> None:
    stages = Stages(state, interval=1)
    for number in (1, 2):
        stages.source.emit_dlq_batch(told(f"source {number}", category="decode", record=None))
        stages.emit(5, number, final=False)
    stages.source.emit_dlq_batch(told("source 3"))
    stages.emit(0, 3)
    stages.source.finish()
    found = []
    for number in (1, 2):
        assert isinstance(stages.destination.next(), Barrier)
        stages.destination.emit_dlq_batch(told(f"destination {number}"))
        stages.commit(number, rows=5, rejected=1)
        found.append(stages.counts)
    assert isinstance(stages.destination.next(), Barrier)
    stages.commit(3, rows=0)
    assert isinstance(stages.destination.next(), End)
    assert kept(state) == [
        (1, "source", "source 1"),
        (1, "destination", "destination 1"),
        (2, "source", "source 2"),
        (2, "destination", "destination 2"),
        (3, "source", "source 3"),
    ]
    assert [*found, stages.counts] == [(4, 2, 2), (4, 2, 2), (0, 1, 1)]
    told_of = stages.commits
    assert (told_of.refused, told_of.rejected, told_of.dead_letters) == (2, 5, 5)


def test_rows_that_the_source_leaves_out_are_counted_with_the_checkpoint_that_covers_them(
    state: SqliteStateStore,
) -> None:
    stages = Stages(state, OnDataError.SKIP, interval=5)
    stages.ledger.count(5, 50)
    stages.source.barrier({"cursor": 1, "final": False, "rejected": 2})
    # Too early for a checkpoint: what is said here belongs to the next one.
    stages.source.barrier({"cursor": 2, "final": False, "rejected": 3})
    stages.source.barrier({"cursor": 3, "final": True, "rejected": 4})
    stages.source.finish()
    found = []
    for number, (rows, refused) in enumerate([(5, 1), (0, 0)], start=1):
        assert isinstance(stages.destination.next(), Barrier)
        stages.commit(number, rows=rows, rejected=refused)
        found.append(stages.counts)
    assert found == [(4, 3, 0), (0, 7, 0)]
    assert (stages.commits.refused, stages.commits.rejected) == (1, 10)


@pytest.mark.parametrize("on_data_error", [OnDataError.FAIL, OnDataError.DLQ])
def test_a_source_leaves_rows_out_in_silence_only_where_it_may(
    state: SqliteStateStore, on_data_error: OnDataError
) -> None:
    stages = Stages(state, on_data_error)
    with pytest.raises(RapidbyteError, match=f"left 1 rows out where on_data_error is {on_data_error}") as caught:
        stages.source.barrier({"cursor": None, "final": True, "rejected": 1})
    assert caught.value.kind is Kind.PROTOCOL
    stages.source.barrier({"cursor": None, "final": True, "rejected": 0})


@pytest.mark.parametrize("rejected", [-1, "1", None, True, 1.0])
def test_a_sources_count_of_rejected_rows_is_a_count(state: SqliteStateStore, rejected: Any) -> None:
    stages = Stages(state, OnDataError.SKIP)
    with pytest.raises(RapidbyteError, match="source connector sent a barrier without a usable `rejected`"):
        stages.source.barrier({"cursor": None, "final": True, "rejected": rejected})


def test_one_commit_of_several_barriers_has_all_of_their_dead_letters(state: SqliteStateStore) -> None:
    stages = Stages(state, interval=1, after=6)
    for number in (1, 2):
        stages.source.emit_dlq_batch(told(f"source {number}"))
        stages.emit(5, number, final=number == 2)
    stages.source.finish()
    stages.destination.next()
    stages.destination.emit_dlq_batch(told("destination"))
    stages.destination.next()
    stages.commit(8, rows=10, rejected=1)
    assert kept(state) == [
        (8, "source", "source 1"),
        (8, "destination", "destination"),
        (8, "source", "source 2"),
    ]
    assert stages.counts == (9, 3, 3)


def test_what_is_rolled_back_has_no_dead_letters_and_leaves_none(state: SqliteStateStore) -> None:
    lost = Stages(state)
    lost.source.emit_dlq_batch(told("lost"))
    lost.emit(1)
    lost.source.finish()
    lost.destination.next()
    lost.destination.emit_dlq_batch(told("lost too"))
    lost.prepare(1, rows=1, rejected=1)
    assert kept(state) == []
    again = Stages(state, after=state.reconcile("shop", "users", None).sequence)
    again.emit(1)
    again.destination.emit_dlq_batch(told("again"))
    again.commit(2, rows=1, rejected=1)
    assert kept(state) == [(2, "destination", "again")]


def test_a_destination_may_not_commit_over_dead_letters_that_it_did_not_take(state: SqliteStateStore) -> None:
    stages = Stages(state)
    stages.source.emit_dlq_batch(told("in the channel"))
    stages.emit(0)
    with pytest.raises(RapidbyteError, match="before it took what comes before its barrier") as caught:
        stages.prepare(1, rows=0)
    assert caught.value.kind is Kind.PROTOCOL
    assert state.prepared_checkpoint("shop", "users") is None


@pytest.mark.parametrize("rejected", [0, 1, 3])
def test_each_rejected_row_has_one_dead_letter(state: SqliteStateStore, rejected: int) -> None:
    stages = Stages(state)
    stages.emit(5)
    stages.destination.emit_dlq_batch(told("a", "b"))
    with pytest.raises(RapidbyteError, match=f"2 dead letters where it rejected {rejected} rows: not committed"):
        stages.prepare(1, rows=5, rejected=rejected)
    assert state.prepared_checkpoint("shop", "users") is None


def test_rows_that_are_skipped_are_counted_and_not_kept(state: SqliteStateStore) -> None:
    stages = Stages(state, OnDataError.SKIP)
    stages.emit(5)
    stages.commit(1, rows=5, rejected=2)
    assert stages.counts == (3, 2, 0)


def test_where_the_policy_is_to_fail_no_row_may_be_rejected(state: SqliteStateStore) -> None:
    stages = Stages(state, OnDataError.FAIL)
    stages.emit(5)
    with pytest.raises(RapidbyteError, match="rejected 1 rows where it has to fail"):
        stages.prepare(1, rows=5, rejected=1)


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("on_data_error", [OnDataError.FAIL, OnDataError.SKIP])
def test_dead_letters_are_only_told_where_they_are_wanted(
    state: SqliteStateStore, side: str, on_data_error: OnDataError
) -> None:
    stages = Stages(state, on_data_error)
    with pytest.raises(RapidbyteError, match=f"{side} connector .*where on_data_error is {on_data_error}") as caught:
        getattr(stages, side).emit_dlq_batch(told("a"))
    assert caught.value.kind is Kind.PROTOCOL


def test_a_shard_may_set_nothing_aside() -> None:
    channel = Channel(1024)
    source = SourceHost(Redactor(()), lambda level, message: None, channel)
    destination = DestinationHost(Redactor(()), lambda level, message: None, channel)
    source.ledger = destination.ledger = BarrierLedger(Resources(), 0)
    with pytest.raises(RapidbyteError, match="told of dead letters"):
        source.emit_dlq_batch(told("a"))
    with pytest.raises(RapidbyteError, match="told of dead letters for a shard"):
        destination.emit_dlq_batch(told("a"))
    channel.put(Letters((), sequence=1, size=0))
    with pytest.raises(RapidbyteError, match="for a shard"):
        destination.next()
    source.ledger.count(1, 10)
    source.ledger.mark(None, final=True)
    with pytest.raises(RapidbyteError, match="rejected 1 rows"):
        destination.prepare({"sequence": 1, "rows": 1, "bytes": 0, "rejected": 1})


def test_outside_of_a_run_nothing_is_set_aside(state: SqliteStateStore) -> None:
    stages = Stages(state)
    stages.source.ledger = stages.destination.ledger = None
    with pytest.raises(RapidbyteError, match="outside of rb_read"):
        stages.source.emit_dlq_batch(told("a"))
    with pytest.raises(RapidbyteError, match="outside of rb_write"):
        stages.destination.emit_dlq_batch(told("a"))


def test_secrets_stay_out_of_the_reason_and_the_row_stays_as_it_is(state: SqliteStateStore) -> None:
    stages = Stages(state, redactor=Redactor({"s3cr3t": "${SCHEMA}"}))
    stages.emit(1)
    letter = told("of s3cr3t.users", record={"v": "s3cr3t"}, constraint="s3cr3t_check", column="s3cr3t_id")
    stages.destination.emit_dlq_batch(letter)
    stages.commit(1, rows=1, rejected=1)
    (row,) = state.dead_letters("shop", "users").to_pylist()
    shown = [row[name] for name in ("error_message", "constraint_name", "column_name")]
    assert shown == ["of ${SCHEMA}.users", "${SCHEMA}_check", "${SCHEMA}_id"]
    assert row["record_json"] == '{"v":"s3cr3t"}', "or it could not be written again"


def test_the_example_of_the_abi_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "connector-abi.md").read_text()
    example = page.partition("## Dead letters")[2].partition("```json\n")[2].partition("```")[0]
    (letter,) = read_letters({"letters": [json.loads(example)]}, Stage.SOURCE, Redactor(()))
    assert (letter.category, letter.sqlstate, letter.stage) == ("check", "23514", "source")


@pytest.mark.parametrize("category", LetterCategory)
def test_the_abi_lists_every_category(category: LetterCategory) -> None:
    page = (Path(__file__).parents[3] / "docs" / "connector-abi.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith("| `category` |"))
    assert f"`{category}`" in row


MALFORMED: list[tuple[Any, str]] = [
    ({}, "letters: Field required"),
    ({"letters": None}, "letters: "),
    ({"letters": {}}, "letters: "),
    ({"letters": ["secret"]}, "letters.0: "),
    (told("a", record="secret"), "letters.0.record: "),
    (told("a", record={"v": 1.5}), "letters.0.record: a value is null, true, false, a whole number or a text"),
    (told("a", record={"v": ["secret"]}), "letters.0.record: a value is"),
    (told("a", "b", record={"v": {"secret": 1}}), "letters.0.record: a value is"),
    (told("a", types=None), "letters.0.types: "),
    (told("a", types={"secret": 1}), "letters.0.types: "),
    (told("a", message=None), "letters.0.message: "),
    (told("a", category="secret"), "letters.0.category: "),
    (told("a", category=None), "letters.0.category: "),
    (told("a", sqlstate="secret"), "letters.0.sqlstate: "),
    (told("a", sqlstate=23505), "letters.0.sqlstate: "),
    (told("a", constraint=["secret"]), "letters.0.constraint: "),
    (told("a", column=7), "letters.0.column: "),
    ({"letters": [{"types": {}, "message": "a", "category": "check"}]}, "letters.0.record: Field required"),
]


@pytest.mark.parametrize(("payload", "reason"), MALFORMED)
@pytest.mark.parametrize("side", ["source", "destination"])
def test_letters_of_another_form_are_the_connectors_fault_and_show_no_value(
    state: SqliteStateStore, side: str, payload: Any, reason: str
) -> None:
    stages = Stages(state)
    with pytest.raises(RapidbyteError) as caught:
        getattr(stages, side).emit_dlq_batch(payload)
    assert caught.value.kind is Kind.PROTOCOL
    assert reason in caught.value.info.message
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("rejected", [-1, "1", None, True, 1.0])
def test_a_count_of_rejected_rows_is_a_count(state: SqliteStateStore, rejected: Any) -> None:
    stages = Stages(state)
    stages.emit(0)
    with pytest.raises(RapidbyteError, match="without a usable `rejected`"):
        stages.prepare(1, rows=0, rejected=rejected)
