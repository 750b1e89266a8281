"""What every state store keeps to, whichever database it is in."""

from __future__ import annotations

import multiprocessing
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from rapidbyte_dagster.config import SchemaEvolution
from rapidbyte_dagster.config.models import NewColumn, TypeChange
from rapidbyte_dagster.errors import StateError
from rapidbyte_dagster.state import ChangeAction, Committed, RunRecord, SchemaColumn, StateStore, Watermark
from tests.unit.state.backends import Backend
from tests.unit.state.samples import PIPELINE, STREAM, a_change, a_checkpoint, a_version, version_of


def test_a_prepared_checkpoint_does_not_count_until_it_is_finalised(store: StateStore) -> None:
    store.prepare(a_checkpoint(1))
    assert store.latest_checkpoint(PIPELINE, STREAM) is None
    store.finalise(PIPELINE, STREAM, 1)
    latest = store.latest_checkpoint(PIPELINE, STREAM)
    assert latest is not None
    assert (latest.sequence, latest.rows, latest.bytes, latest.run_id) == (1, 10, 100, "run")


def test_a_cursor_comes_back_as_it_was_given(store: StateStore) -> None:
    cursor = {"updated_at": "2024-01-01T00:00:00.123456+00", "id": [1, None, "ü\x00"]}
    store.prepare(a_checkpoint(1, cursor))
    store.finalise(PIPELINE, STREAM, 1)
    latest = store.latest_checkpoint(PIPELINE, STREAM)
    assert latest is not None
    assert latest.cursor == cursor


def test_one_checkpoint_is_found_by_its_number_once_it_is_committed(store: StateStore) -> None:
    for sequence in (1, 2):
        store.prepare(a_checkpoint(sequence, cursor=sequence))
    store.finalise(PIPELINE, STREAM, 1)
    found = store.checkpoint(PIPELINE, STREAM, 1)
    assert found is not None
    assert (found.sequence, found.cursor) == (1, 1)
    for sequence in (0, 2, 3, 2**63):
        assert store.checkpoint(PIPELINE, STREAM, sequence) is None
    assert store.checkpoint(PIPELINE, "other", 1) is None


def test_a_prepared_checkpoint_can_be_seen_until_it_is_finalised(store: StateStore) -> None:
    assert store.prepared_checkpoint(PIPELINE, STREAM) is None
    store.prepare(a_checkpoint(1, cursor=5))
    prepared = store.prepared_checkpoint(PIPELINE, STREAM)
    assert prepared is not None
    assert (prepared.sequence, prepared.cursor, prepared.run_id) == (1, 5, "run")
    store.finalise(PIPELINE, STREAM, 1)
    assert store.prepared_checkpoint(PIPELINE, STREAM) is None


def test_a_crash_between_commit_and_finalise_is_healed_by_the_watermark(store: StateStore) -> None:
    store.prepare(a_checkpoint(1, cursor=5))
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, cursor=5))
    assert (resume.sequence, resume.cursor) == (1, 5)
    latest = store.latest_checkpoint(PIPELINE, STREAM)
    assert latest is not None
    assert latest.sequence == 1


def test_a_crash_between_prepare_and_commit_discards_the_prepared_checkpoint(store: StateStore) -> None:
    store.prepare(a_checkpoint(1, cursor=5))
    store.finalise(PIPELINE, STREAM, 1)
    store.prepare(a_checkpoint(2, cursor=9))
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, cursor=5))
    assert (resume.sequence, resume.cursor) == (2, 5)
    assert [c.sequence for c in store.checkpoints(PIPELINE, STREAM)] == [1]
    store.prepare(a_checkpoint(3, cursor=7))


def test_a_lost_state_file_follows_the_destination(store: StateStore) -> None:
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=41, cursor="x"))
    assert (resume.sequence, resume.cursor) == (41, "x")


def test_a_destination_that_lost_its_watermark_never_sees_a_sequence_again(store: StateStore) -> None:
    store.prepare(a_checkpoint(3, cursor="x"))
    store.finalise(PIPELINE, STREAM, 3)
    resume = store.reconcile(PIPELINE, STREAM, None)
    assert resume.sequence == 3
    assert resume.cursor is None


def test_what_a_restored_destination_lost_is_forgotten_but_for_its_number(store: StateStore) -> None:
    for sequence in (1, 2, 3):
        store.prepare(a_checkpoint(sequence, cursor=sequence))
        store.finalise(PIPELINE, STREAM, sequence)
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, cursor=1, run_id="run", final=True))
    assert (resume.sequence, resume.cursor) == (3, 1)
    assert [c.sequence for c in store.checkpoints(PIPELINE, STREAM)] == [1]


def test_streams_and_pipelines_do_not_touch_each_other(store: StateStore) -> None:
    store.prepare(a_checkpoint(1))
    store.reconcile(PIPELINE, "orders", None)
    store.reconcile("other", STREAM, None)
    store.finalise(PIPELINE, STREAM, 1)


def test_finalising_what_was_never_prepared_is_an_error(store: StateStore) -> None:
    with pytest.raises(StateError, match="never prepared"):
        store.finalise(PIPELINE, STREAM, 1)


def test_two_runs_cannot_prepare_one_sequence(store: StateStore) -> None:
    store.prepare(a_checkpoint(1))
    with pytest.raises(StateError, match="it is another run's"):
        store.prepare(a_checkpoint(1, run_id="other"))


def test_preparing_and_finalising_once_more_changes_nothing(store: StateStore) -> None:
    store.prepare(a_checkpoint(1, cursor=5))
    store.prepare(a_checkpoint(1, cursor=5))
    store.finalise(PIPELINE, STREAM, 1)
    latest = store.latest_checkpoint(PIPELINE, STREAM)
    store.finalise(PIPELINE, STREAM, 1)
    store.prepare(a_checkpoint(1, cursor=5))
    assert store.checkpoints(PIPELINE, STREAM) == [latest]
    with pytest.raises(StateError, match="cannot be prepared"):
        store.prepare(a_checkpoint(1, cursor=6))


def test_what_a_run_committed_is_summed_from_a_checkpoint_on(store: StateStore) -> None:
    runs = ["first", "mine", "mine", "other", "mine", "mine"]
    for sequence, run_id in enumerate(runs, 1):
        store.prepare(a_checkpoint(sequence, rows=10**sequence * 2**33, run_id=run_id, rejected=2, dead_letters=1))
        if sequence < len(runs):
            store.finalise(PIPELINE, STREAM, sequence)
    assert store.committed(PIPELINE, STREAM, "mine") == Committed(3, (10**2 + 10**3 + 10**5) * 2**33, 300, 6, 3)
    assert store.committed(PIPELINE, STREAM, "mine", after=2) == Committed(2, (10**3 + 10**5) * 2**33, 200, 4, 2)
    assert store.committed(PIPELINE, STREAM, "mine", after=5) == Committed(0, 0, 0), "it is only prepared"
    assert store.committed(PIPELINE, "orders", "mine") == Committed(0, 0, 0)
    assert store.committed("other", STREAM, "mine") == Committed(0, 0, 0)


def test_a_prepared_checkpoint_of_a_number_that_another_run_committed_is_discarded(store: StateStore) -> None:
    store.prepare(a_checkpoint(1))
    store.finalise(PIPELINE, STREAM, 1)
    store.prepare(a_checkpoint(2, cursor=5))
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, cursor=7, run_id="other"))
    assert (resume.sequence, resume.cursor) == (2, 7)
    assert [c.sequence for c in store.checkpoints(PIPELINE, STREAM)] == [1]


def test_a_prepared_checkpoint_that_another_run_went_past_is_discarded(store: StateStore) -> None:
    """One that kept its state elsewhere: it may have begun before this one's rows, and used the number itself."""
    store.prepare(a_checkpoint(1, cursor=5))
    store.finalise(PIPELINE, STREAM, 1)
    store.prepare(a_checkpoint(2, cursor=100))
    resume = store.reconcile(PIPELINE, STREAM, Watermark(sequence=3, cursor=60, run_id="other"))
    assert (resume.sequence, resume.cursor) == (3, 60)
    assert store.checkpoint(PIPELINE, STREAM, 2) is None, "rewinding to it would leave rows out"


def test_a_prepared_checkpoint_that_its_own_run_committed_is_finalised(store: StateStore) -> None:
    store.prepare(a_checkpoint(1))
    store.prepare(a_checkpoint(2, cursor=5))
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, cursor=5, run_id="run", final=True))
    assert [(c.sequence, c.cursor) for c in store.checkpoints(PIPELINE, STREAM)] == [(2, 5), (1, None)]


def test_a_schema_version_is_added_only_when_the_schema_changes(store: StateStore) -> None:
    assert store.schema_state(PIPELINE, STREAM).current is None
    store.record_schema(PIPELINE, STREAM, a_version("id"))
    store.record_schema(PIPELINE, STREAM, a_version("id", run_id="second"))
    store.record_schema(PIPELINE, STREAM, a_version("id", "email"))
    state = store.schema_state(PIPELINE, STREAM)
    assert [[c.name for c in version.columns] for version in state.versions] == [["id"], ["id", "email"]]
    assert state.current == state.versions[-1]
    assert state.versions[0].run_id == "run"
    assert state.history == ()


def test_a_schema_version_is_added_when_only_the_policy_changes(store: StateStore) -> None:
    strict = SchemaEvolution(new_column=NewColumn.FAIL, type_change=TypeChange.NULL)
    for policy in (None, SchemaEvolution(), SchemaEvolution(), strict, strict, SchemaEvolution()):
        store.record_schema(PIPELINE, STREAM, a_version("id", policy=policy))
    state = store.schema_state(PIPELINE, STREAM)
    assert [version.policy for version in state.versions] == [None, SchemaEvolution(), strict, SchemaEvolution()]
    assert len({version.fingerprint for version in state.versions}) == 1
    assert state.policy == SchemaEvolution()


def test_the_schema_history_is_what_committed_checkpoints_changed_oldest_first(store: StateStore) -> None:
    added = a_change("email", ddl='ALTER TABLE raw.users ADD COLUMN "email" text')
    ignored = a_change("ü \0 '", ChangeAction.IGNORED)
    store.prepare(a_checkpoint(1, changes=[added]))
    assert store.schema_state(PIPELINE, STREAM).history == (), "nobody knows yet whether it was committed"
    store.finalise(PIPELINE, STREAM, 1)
    store.prepare(a_checkpoint(2))
    store.finalise(PIPELINE, STREAM, 2)
    store.prepare(a_checkpoint(3, run_id="second", changes=[added, ignored]))
    store.finalise(PIPELINE, STREAM, 3)
    first, second = store.schema_state(PIPELINE, STREAM).history
    assert (first.changes, first.run_id, first.sequence) == ((added,), "run", 1)
    assert (second.changes, second.run_id, second.sequence) == ((added, ignored), "second", 3)
    assert first.at <= second.at
    checkpoints = store.checkpoints(PIPELINE, STREAM)
    assert [c.schema_changes for c in checkpoints] == [(added, ignored), (), (added,)]


def test_the_schema_history_follows_the_destination(store: StateStore) -> None:
    """Its DDL is in the transaction of the rows, and so is what is told of it."""
    for sequence in (1, 2, 3):
        store.prepare(a_checkpoint(sequence, changes=[a_change(f"column{sequence}")]))
    store.finalise(PIPELINE, STREAM, 1)
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=2, run_id="run"))
    assert [event.sequence for event in store.schema_state(PIPELINE, STREAM).history] == [1, 2]
    store.reconcile(PIPELINE, STREAM, Watermark(sequence=1, run_id="run"))
    assert [event.sequence for event in store.schema_state(PIPELINE, STREAM).history] == [1]


def test_a_checkpoint_of_other_schema_changes_is_another_one(store: StateStore) -> None:
    store.prepare(a_checkpoint(1, changes=[a_change("email")]))
    store.prepare(a_checkpoint(1, changes=[a_change("email")]))
    with pytest.raises(StateError, match="cannot be prepared"):
        store.prepare(a_checkpoint(1, changes=[a_change("phone")]))
    with pytest.raises(StateError, match="cannot be prepared"):
        store.prepare(a_checkpoint(1))


def test_a_store_of_the_first_version_is_brought_up_to_date_with_what_is_in_it(backend: Backend) -> None:
    backend.make_first_format()
    at = "2024-01-01T00:00:00.000000+00:00"
    for sequence, status, ended in ((1, "committed", f"'{at}'"), (2, "prepared", "NULL")):
        backend.execute(
            "INSERT INTO _rapidbyte_checkpoints VALUES"
            f" ('shop', 'users', {sequence}, '{status}', '{sequence}', 10, 100, 'old', '{at}', {ended})"
        )
    columns = '[{"name": "id", "type": "bigint", "arrow_type": "int64", "nullable": false}]'
    version = f'"table": "raw.users", "columns": {columns}, "primary_key": ["id"], "run_id": "old"'
    backend.execute(
        "INSERT INTO _rapidbyte_schemas VALUES"
        f""" ('shop', 'users', 1, '0123456789abcdef', '{{{version}, "recorded_at": "{at}"}}')"""
    )
    with backend.open() as store:
        assert [(c.sequence, c.cursor, c.schema_changes) for c in store.checkpoints(PIPELINE, STREAM)] == [(1, 1, ())]
        state = store.schema_state(PIPELINE, STREAM)
        assert (state.policy, state.history) == (None, ())
        assert state.current is not None
        assert [(c.name, c.stream_nullable) for c in state.current.columns] == [("id", None)]
        store.finalise(PIPELINE, STREAM, 2)
        store.prepare(a_checkpoint(3, changes=[a_change()]))
        store.finalise(PIPELINE, STREAM, 3)
    with backend.open() as store:
        assert [event.changes for event in store.schema_state(PIPELINE, STREAM).history] == [(a_change(),)]
        assert [c.sequence for c in store.checkpoints(PIPELINE, STREAM)] == [3, 2, 1]


def test_the_columns_that_a_stream_ever_brought_are_those_of_all_its_versions(store: StateStore) -> None:
    assert store.schema_state(PIPELINE, STREAM).columns_brought_to("users") is None
    theirs = SchemaColumn(name="loaded_at", type="timestamp with time zone")
    email = SchemaColumn(name="email", type="text", arrow_type="string", nullable=False, stream_nullable=False)
    widened = SchemaColumn(name="id", type="bigint", arrow_type="int64", nullable=False, stream_nullable=True)
    narrow = SchemaColumn(name="id", type="integer", arrow_type="int32", nullable=False)
    left = SchemaColumn(name="email", type="text", nullable=True)
    store.record_schema(PIPELINE, STREAM, version_of(narrow, email, theirs))
    store.record_schema(PIPELINE, STREAM, version_of(widened, left, theirs))
    state = store.schema_state(PIPELINE, STREAM)
    assert state.columns_brought_to("users") == (widened, email)
    assert state.columns_brought_to("people") is None
    store.record_schema(PIPELINE, STREAM, version_of(theirs, table="raw.people"))
    assert store.schema_state(PIPELINE, STREAM).columns_brought_to("people") == ()


def test_a_run_is_written_once_and_brought_up_to_date(store: StateStore) -> None:
    run = RunRecord(
        run_id="r", pipeline=PIPELINE, stream=STREAM, status="running", started_at=datetime.now(timezone.utc)
    )
    store.record_run(run)
    store.record_run(run.model_copy(update={"status": "ok", "rows": 7, "rejected": 3, "dead_letters": 2}))
    (found,) = store.runs(PIPELINE, STREAM)
    assert (found.status, found.rows, found.rejected, found.dead_letters) == ("ok", 7, 3, 2)


def test_one_run_is_found_by_its_id_and_stream(store: StateStore) -> None:
    run = RunRecord(run_id="r", pipeline=PIPELINE, stream=STREAM, status="ok", started_at=datetime.now(timezone.utc))
    store.record_run(run)
    store.record_run(run.model_copy(update={"stream": "orders", "status": "failed"}))
    assert store.run("r", PIPELINE, STREAM) == run
    assert store.run("r", PIPELINE, "payments") is None
    assert store.run("s", PIPELINE, STREAM) is None


def test_a_number_that_was_prepared_and_discarded_is_not_given_out_again(store: StateStore) -> None:
    """Its commit may be under way in a server that nobody can ask yet."""
    store.prepare(a_checkpoint(1))
    assert store.reconcile(PIPELINE, STREAM, None).sequence == 1


def test_runs_come_newest_first_and_no_more_than_asked_for(store: StateStore) -> None:
    began = datetime(2024, 1, 1, tzinfo=timezone.utc)
    for number in range(5):
        # Whole seconds and parts of one, in two time zones: what is written must still sort by time.
        moment = began + timedelta(seconds=number / 2)
        moment = moment.astimezone(timezone(timedelta(hours=number)))
        run = RunRecord(run_id=f"r{number}", pipeline=PIPELINE, stream=STREAM, status="ok", started_at=moment)
        store.record_run(run)
    assert [run.run_id for run in store.runs(PIPELINE, STREAM, limit=3)] == ["r4", "r3", "r2"]


def test_checkpoints_come_newest_first_and_no_more_than_asked_for(store: StateStore) -> None:
    for sequence in (2, 9, 10):
        store.prepare(a_checkpoint(sequence, cursor={"value": sequence}, rows=sequence * 2**33))
        store.finalise(PIPELINE, STREAM, sequence)
    newest, older = store.checkpoints(PIPELINE, STREAM, limit=2)
    assert (newest.sequence, older.sequence) == (10, 9)
    assert (newest.cursor, newest.rows, newest.bytes, newest.run_id) == ({"value": 10}, 10 * 2**33, 100, "run")
    assert older.committed_at <= newest.committed_at


def test_an_error_text_of_any_characters_is_kept(store: StateStore) -> None:
    run = RunRecord(
        run_id="r",
        pipeline=PIPELINE,
        stream=STREAM,
        status="failed",
        started_at=datetime.now(timezone.utc),
        error="a NUL \0, half a pair \ud83d, % and ?",
    )
    store.record_run(run)
    found = store.run("r", PIPELINE, STREAM)
    assert found is not None
    assert found.error == "a NUL \\0, half a pair \\ud83d, % and ?"


def test_what_one_store_wrote_another_one_reads(backend: Backend) -> None:
    with backend.open() as first, backend.open() as second:
        first.prepare(a_checkpoint(1, cursor="x"))
        second.finalise(PIPELINE, STREAM, 1)
        assert [c.cursor for c in first.checkpoints(PIPELINE, STREAM)] == ["x"]
        second.record_schema(PIPELINE, STREAM, a_version("id"))
        assert first.schema_state(PIPELINE, STREAM).current is not None
    with backend.open() as third:
        assert [c.cursor for c in third.checkpoints(PIPELINE, STREAM)] == ["x"]


def test_threads_share_one_store(store: StateStore) -> None:
    failures: list[BaseException] = []

    def write(stream: str) -> None:
        try:
            for sequence in range(1, 11):
                store.prepare(a_checkpoint(sequence).model_copy(update={"stream": stream}))
                store.finalise(PIPELINE, stream, sequence)
        except BaseException as error:  # noqa: BLE001  a thread's edge
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"stream{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert [len(store.checkpoints(PIPELINE, f"stream{number}")) for number in range(4)] == [10] * 4


def test_a_store_that_is_closed_says_so(backend: Backend) -> None:
    store = backend.open()
    store.close()
    with pytest.raises(StateError, match="closed"):
        store.runs(PIPELINE, STREAM)


def test_a_store_of_a_newer_version_is_refused_with_what_to_do(backend: Backend) -> None:
    backend.open().close()
    backend.execute(backend.newer_format)
    with pytest.raises(StateError, match="newer version") as caught:
        backend.open()
    assert "upgrade rapidbyte-dagster" in str(caught.value.hint)


def test_a_look_at_a_store_that_is_not_there_makes_none(backend: Backend) -> None:
    assert backend.existing() is None
    assert backend.leaves() == []


def test_a_look_at_a_store_reads_what_it_remembers(backend: Backend) -> None:
    with backend.open() as store:
        store.prepare(a_checkpoint(1))
        store.finalise(PIPELINE, STREAM, 1)
    found = backend.existing()
    assert found is not None
    with found:
        assert [checkpoint.sequence for checkpoint in found.checkpoints(PIPELINE, STREAM)] == [1]


def test_a_look_at_a_store_that_cannot_be_used_tells_so(backend: Backend) -> None:
    backend.open().close()
    backend.execute(backend.newer_format)
    with pytest.raises(StateError, match="newer version"):
        backend.existing()


def test_a_look_at_a_store_of_an_older_format_leaves_it_to_those_that_know_no_other(backend: Backend) -> None:
    backend.make_first_format()
    assert backend.existing() is None
    # Which fails where it is there.
    backend.execute("ALTER TABLE _rapidbyte_checkpoints ADD COLUMN schema_changes_json TEXT")


def _commit_many(backend: Backend, stream: str) -> None:
    with backend.open() as store:
        for sequence in range(1, 21):
            store.prepare(a_checkpoint(sequence).model_copy(update={"stream": stream}))
            store.finalise(PIPELINE, stream, sequence)


def test_processes_that_open_and_write_one_new_store_at_once_all_succeed(backend: Backend) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_commit_many, args=(backend, f"stream{number}")) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with backend.open() as store:
        assert [len(store.checkpoints(PIPELINE, f"stream{number}")) for number in range(3)] == [20, 20, 20]


def _open_in_step(backends: list[Backend], barrier: Any) -> None:
    for backend in backends:
        barrier.wait(60)
        backend.open().close()


def test_processes_that_open_a_new_store_in_the_same_instant_all_succeed(backend: Backend) -> None:
    backends = backend.neighbours(25)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(6)
    processes = [context.Process(target=_open_in_step, args=(backends, barrier)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6


def test_processes_that_bring_an_old_store_up_to_date_in_the_same_instant_all_succeed(backend: Backend) -> None:
    backends = backend.neighbours(5)
    for old in backends:
        old.make_first_format()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_open_in_step, args=(backends, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4


def _record_versions(backend: Backend, barrier: Any, name: str) -> None:
    with backend.open() as store:
        barrier.wait(60)
        for number in range(10):
            store.record_schema(PIPELINE, STREAM, a_version(f"{name}{number}"))


def test_processes_that_record_schemas_of_one_stream_at_once_lose_none(backend: Backend) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_record_versions, args=(backend, barrier, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with backend.open() as store:
        assert len(store.schema_state(PIPELINE, STREAM).versions) == 30
